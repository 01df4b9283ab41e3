"""The one door for writing: files that are whole or not there, whatever happens, in a folder or on S3.

Paths are `pathlib.Path`s or, for `s3://bucket/prefix`, objects with the part of its interface that distvae uses
(`store/path.py`): code that reads need not know which. In a folder a file is written beside, synced to disk, then
renamed; on S3 a PUT is whole by itself. Writing raises UnwrittenError where the place is at fault (full, read-only,
away), UnsafeNameError for a name that would lead out of OUT."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path
from typing import IO, Any, TypeVar

from distvae.store import local
from distvae.store.errors import UnsafeNameError
from distvae.store.path import S3, S3Path

T = TypeVar("T")
U = TypeVar("U")
AT_ONCE = 32  # requests to S3, of which each waits for an answer


def at(place: str | os.PathLike[str] | Any) -> Path:
    """The path object of a folder, file or `s3://bucket/key`. Typed as a Path, whose interface it has in part. Raises
    BucketError on an s3:// address without a bucket, UnsafeNameError on nothing."""
    if isinstance(place, S3Path):
        return place  # type: ignore[return-value]
    text = os.fspath(place)
    if not text:  # which pathlib takes for the folder we are in
        raise UnsafeNameError("'': an empty name is no place (--out takes a folder, or s3://bucket/prefix)")
    return S3Path.parse(text) if text.startswith(S3) else Path(text)  # type: ignore[return-value]


def is_remote(path: Any) -> bool:
    return isinstance(path, S3Path)


def guard(out: Path) -> None:
    """`out` is an OUT: from here on nothing below it is written through a symbolic link."""
    if not is_remote(out):
        local.guard(out)


def replacing(path: Path) -> AbstractContextManager[IO[bytes]]:
    """A binary file to write; `path` becomes it when the block ends, and keeps what it held if the block raises."""
    return path.replacing() if isinstance(path, S3Path) else local.replacing(path)


def creating(path: Path) -> AbstractContextManager[IO[bytes]]:
    """`replacing` of what is not there yet: of several that try, one succeeds, and the others get FileExistsError."""
    return path.replacing(create=True) if isinstance(path, S3Path) else local.creating(path)


def append(path: Path, text: str) -> None:
    """Add lines to a log. On S3 they may come a little later (`store/appended.py`)."""
    if isinstance(path, S3Path):
        from distvae.store import appended

        appended.append(path, text)
    else:
        local.append(path, text)


def move(path: Path, to: Path) -> None:
    """Rename a file or a folder, in place of one that is there. On S3 a folder moves file by file."""
    if isinstance(path, S3Path):
        path.move(to)  # type: ignore[arg-type]
    else:
        local.move(path, to)


def remove(path: Path) -> None:
    """A file, or a folder with all that is in it; nothing happens if there is none."""
    if isinstance(path, S3Path):
        path.remove()
    else:
        local.remove(path)


def source(path: Any) -> Any:
    """What a reader of Parquet can seek in, of a path or of what has its `read_bytes`."""
    return path if isinstance(path, Path) else BytesIO(path.read_bytes())


def each(paths: Iterable[T], read: Callable[[T], U], *, remote: bool) -> Iterable[U]:
    """`read` of every path, in order; on S3 many at once."""
    if not remote:
        return map(read, paths)
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(read, paths))


def cache_folder() -> Path | None:
    """What outlives a sweep and can be made again: `$DISTVAE_CACHE`, `$XDG_CACHE_HOME/distvae` or `~/.cache/distvae`; None
    if there is no home."""
    if os.environ.get("DISTVAE_CACHE"):
        return Path(os.environ["DISTVAE_CACHE"])
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "distvae"
    except RuntimeError:
        return None
