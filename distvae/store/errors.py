"""What can be wrong with the place where OUT lies. `cli.exit_code` has their exit codes."""

from __future__ import annotations

import errno

UNWRITABLE = {  # what the machine says when it is the place that is at fault, and what to do about it
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space or raise the quota",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EROFS: "the file system is mounted read-only: mount it writable, or name another OUT",
    errno.EACCES: "give yourself the right to write there, or name another OUT",
    errno.EPERM: "give yourself the right to write there, or name another OUT",
    errno.EIO: "look at the disk or the network",
    errno.ESTALE: "the shared folder was mounted anew: wait for it",
    errno.ENOTCONN: "the shared folder is away: wait for it",
    errno.EHOSTDOWN: "the shared folder's server is away: wait for it",
    errno.ETIMEDOUT: "the shared folder's server is away: wait for it",
}


class StoreError(Exception):
    """The place cannot be reached, or not be used (exit code 4). Not an OSError: what cannot be *read* now must not be
    taken for a file that is damaged or absent."""


class BucketError(StoreError):
    """An s3:// address that names nothing there is (exit code 2)."""


class UnwrittenError(OSError):
    """A file could not be written, and nothing of it was (exit code 4). `errno` says why."""

    def __str__(self) -> str:
        return str(self.strerror)


class UnsafeNameError(ValueError):
    """A name that would lead out of OUT, or that no file should have (exit code 2)."""


def unwritten(path: object, e: OSError) -> OSError:
    """`e` in words, if the place is at fault; else `e` itself, for it is a bug or somebody's directory in the way."""
    if isinstance(e, UnwrittenError) or e.errno not in UNWRITABLE:
        return e
    return UnwrittenError(e.errno, told(path, e.strerror or str(e), UNWRITABLE[e.errno]))


def told(path: object, why: str, remedy: str) -> str:
    return (
        f"{path}: cannot be written: {why} (nothing of it was written, and what is committed stays; "
        f"{remedy}, then run the same command again)"
    )


def safe(name: str, whole: object) -> str:
    """`name` if it can be one component of a path in OUT. Raises UnsafeNameError."""
    if name in ("", ".", "..") or "/" in name or not all(c.isprintable() for c in name):
        what = repr(name)
        raise UnsafeNameError(
            f"{str(whole)!r}: {what} is not the name of a file in OUT "
            "(no '..', no '/', no NUL, newline or other control character)"
        )
    return name
