"""Writing in a folder: whole files, synced to disk, and never through a link that leads out of OUT.

`guard(out)` tells which folders are OUTs of this process. A path below one is opened from there component by component,
each with O_NOFOLLOW, and what is created is created relative to the folder that was opened: who plants a link in OUT,
before or during, gets an error and no file. Paths outside any OUT (`--to`, caches) are the user's own, links and all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from distvae.store.errors import UnwrittenError, safe, unwritten

_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_OUTS: set[tuple[str, ...]] = set()  # paths go through many hands on their way here, and none need know of OUT


def guard(out: Path) -> None:
    """From now on nothing that this process writes below `out` follows a link."""
    _OUTS.add(out.absolute().parts)


def _root(path: Path) -> tuple[Path, tuple[str, ...]]:
    """(the OUT that `path` lies in, the names below it); without one, (its folder, its name)."""
    parts = path.absolute().parts
    for n in range(len(parts) - 1, 0, -1):  # the innermost, should one OUT lie in another
        if parts[:n] in _OUTS:
            return Path(*parts[:n]), parts[n:]
    return path.parent, (path.name,)


@contextmanager
def folder_of(path: Path, *, make: bool = True) -> Iterator[tuple[int, str]]:
    """(open folder, name in it) for `path`; its folders are made. Raises UnwrittenError where a link is in the way."""
    root, names = _root(path)
    for name in names:
        safe(name, path)
    with _told(path):
        if make:
            root.mkdir(parents=True, exist_ok=True)
        if root.parts in _OUTS and root.is_symlink():
            raise linked(root)
        fd = os.open(root, _FOLDER | (os.O_NOFOLLOW if root.parts in _OUTS else 0))
        try:
            at = root
            for name in names[:-1]:
                at = at / name
                inner = _inside(fd, name, at, make)
                os.close(fd)
                fd = inner
            yield fd, names[-1]
        finally:
            os.close(fd)


def _inside(fd: int, name: str, at: Path, make: bool) -> int:
    if make:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=fd)
            os.fsync(fd)
    try:
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=fd)
    except OSError as e:
        if e.errno in (errno.ELOOP, errno.ENOTDIR) and _is_link(fd, name):
            raise linked(at) from None
        raise


def linked(path: Path) -> UnwrittenError:
    return UnwrittenError(
        errno.ELOOP,
        f"{path}: is a symbolic link, and nothing in OUT is written through one (put the folder itself there)",
    )


def _is_link(fd: int, name: str) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
    except OSError:
        return False


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        told = unwritten(path, e)
        raise told from (None if told is e else e)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    with _writing(path) as (f, fd, temp, name):
        yield f
        _finish(f)
        os.replace(temp, name, src_dir_fd=fd, dst_dir_fd=fd)


@contextmanager
def creating(path: Path) -> Iterator[IO[bytes]]:
    with _writing(path) as (f, fd, temp, name):
        yield f
        _finish(f)
        try:
            os.link(temp, name, src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False)
        except OSError as e:
            if e.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS):
                raise
            _create_without_links(temp, name, fd)


def _create_without_links(temp: str, name: str, fd: int) -> None:
    """Where there are no hard links: take the name by an exclusive create, which one process alone can do, and then put
    the whole file in its place. Who dies between leaves an empty file, which counts as damaged."""
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644, dir_fd=fd))
    os.replace(temp, name, src_dir_fd=fd, dst_dir_fd=fd)


@contextmanager
def _writing(path: Path) -> Iterator[tuple[IO[bytes], int, str, str]]:
    """A new temporary file beside `path`; gone afterwards if nobody renamed it."""
    with folder_of(path) as (fd, name):
        temp = f".{name}.{secrets.token_hex(4)}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        try:
            with open(os.open(temp, flags, 0o666, dir_fd=fd), "wb") as f:
                yield f, fd, temp, name
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temp, dir_fd=fd)
        os.fsync(fd)  # a rename itself may be lost


def _finish(f: IO[bytes]) -> None:
    f.flush()
    os.fsync(f.fileno())


def append(path: Path, text: str) -> None:
    """In one write, so that lines of several processes do not mix."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    with folder_of(path) as (fd, name):
        try:
            log = os.open(name, flags, 0o666, dir_fd=fd)
        except OSError as e:
            raise linked(path) if e.errno == errno.ELOOP else e from None
        try:
            data = text.encode()
            while data:
                data = data[os.write(log, data) :]
        finally:
            os.close(log)


def move(path: Path, to: Path) -> None:
    with folder_of(to) as (there, name), folder_of(path, make=False) as (here, old):
        os.replace(old, name, src_dir_fd=here, dst_dir_fd=there)
        os.fsync(there)


def remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), folder_of(path, make=False) as (fd, name):
        if _is_folder(fd, name):
            shutil.rmtree(name, ignore_errors=True, dir_fd=fd)
        else:
            os.unlink(name, dir_fd=fd)


def _is_folder(fd: int, name: str) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
