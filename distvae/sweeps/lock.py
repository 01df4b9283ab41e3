"""One owner per OUT: an advisory lock on OUT/.lock, which the kernel releases when its holder dies, however it dies; where
there are no such locks (S3, some shared folders) a lease that beats (`store/lease.py`)."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from distvae import files
from distvae.store import lease
from distvae.store.lease import Hold, OutLockedError
from distvae.store.local import folder_of, linked

__all__ = ["Hold", "OutLockedError", "hold_out"]

NO_LOCKS = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL)
NAMED_S = 2.0  # for an owner to write its name
ONE_NODE = {"nolock", "localflock", "local_lock=flock", "local_lock=all"}  # mount options: other nodes see no lock


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def hold_out(out: Path, say: Callable[[str], None] = _tell) -> Iterator[Hold]:
    """Own `out` for the duration. Raises OutLockedError naming the owner."""
    if files.is_remote(out):
        with lease.hold(out, say) as held:
            yield held
        return
    fd = _open(out)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locks = not _one_node(out)
        except OSError as e:
            if e.errno not in NO_LOCKS:
                raise OutLockedError(
                    f"{out} is being swept by {_owner(fd)}; wait for it, or give another --out"
                ) from None
            locks = False
        if not locks:
            with lease.hold(out, say, lease.SHARED_PATIENCE_S) as held:
                yield held
            return
        os.truncate(fd, 0)
        os.pwrite(fd, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        yield Hold(out)
    finally:
        os.close(fd)


def _open(out: Path) -> int:
    files.guard(out)
    with folder_of(out / ".lock") as (fd, name):
        try:
            return os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644, dir_fd=fd)
        except OSError as e:
            raise linked(out / ".lock") if e.errno == errno.ELOOP else e from None


def _one_node(out: Path) -> bool:
    """Is `out` on a mount whose locks other nodes do not see? (Linux says; elsewhere they are believed.)"""
    try:
        with open("/proc/self/mounts") as f:
            mounts = [line.split() for line in f]
    except OSError:
        return False
    at = os.path.realpath(out)
    over = [m for m in mounts if at == m[1] or at.startswith(m[1].rstrip("/") + "/")]
    deepest = max(over, key=lambda m: len(m[1]), default=None)
    return deepest is not None and bool(ONE_NODE & set(deepest[3].split(",")))


def _owner(fd: int) -> str:
    """Who holds the lock. Its name follows the lock by a moment: till then none is there, or that of one who died."""
    import psutil

    deadline = time.monotonic() + NAMED_S
    while time.monotonic() < deadline:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            owner = json.loads(os.pread(fd, 1000, 0))
            if owner["host"] != socket.gethostname() or psutil.pid_exists(owner["pid"]):
                return f"process {owner['pid']} on {owner['host']}"
        time.sleep(0.05)
    return "another process"
