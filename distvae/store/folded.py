"""Many small files of a folder in one: FOLDER/folded-<number>-<hash>.zip, kept twice (`store/twice.py`). Its members are the
files, byte for byte; the hash is of the whole zip. A zip never changes; a file of the same name that comes later lies
beside it, and is folded into another."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from distvae import files
from distvae.store import twice

SIZE = 256  # files in a zip
_NAME = re.compile(r"folded-(\d{6})-([0-9a-f]{16})\.zip")


class Member(NamedTuple):
    """A file that has been folded, with what its readers use of a path."""

    zip: Path
    name: str

    def read_bytes(self) -> bytes:
        """Raises OSError if the zip and its spare are damaged."""
        return _open(str(self.zip)).read(self.name)


def members(folder: Path) -> Iterator[Member]:
    """Every file that has been folded, oldest zip first. A zip that is damaged, with its spare, holds none."""
    for path in _zips(folder):
        yield from (Member(path, name) for name in _names(path))


def named(folder: Path, start: str) -> list[Member]:
    """Those whose name begins so, in the order they were written."""
    return [m for m in members(folder) if m.name.startswith(start)]


def fold(folder: Path, found: Sequence[Path], least: int) -> int:
    """Fold these files of `folder`, `SIZE` at a time, if there are at least so many. Returns how many went. Nobody may
    be writing them. Raises UnwrittenError, OSError; what has not been folded by then stays."""
    gone = 0
    for i in range(0, len(found) - SIZE + 1 if len(found) >= least else 0, SIZE):
        some = found[i : i + SIZE]
        blobs = list(files.each(some, lambda file: file.read_bytes(), remote=files.is_remote(folder)))
        buffer = BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
            for file, blob in zip(some, blobs, strict=True):
                packed.writestr(file.name, blob)
        blob = buffer.getvalue()
        number = max((_number(path) for path in _zips(folder)), default=0) + 1
        twice.write(folder / f"folded-{number:06}-{_hash(blob)}.zip", blob)
        list(files.each(some, files.remove, remote=files.is_remote(folder)))
        gone += len(some)
    return gone


def check(out: Path, folder: Path, *, mend: bool, lost: str) -> list[str]:
    """A line for each zip that is damaged; with `mend`, for the owner of OUT, it is mended, or set aside."""
    told = (twice.check(out, path, _sound, mend=mend, lost=lost) for path in _zips(folder))
    return [line for line in told if line]


def _hash(blob: bytes) -> str:
    return hashlib.sha256(blob).hexdigest()[:16]


def _sound(name: str, blob: bytes) -> bytes | None:
    match = _NAME.fullmatch(name)
    return blob if match and _hash(blob) == match[2] else None


def _number(path: Path) -> int:
    return int(path.name.split("-")[1])


def _zips(folder: Path) -> list[Path]:
    return sorted((f for f in twice.found(folder, "folded-*.zip") if _NAME.fullmatch(f.name)), key=_number)


@lru_cache(maxsize=8)
def _open(path: str) -> zipfile.ZipFile:
    blob = twice.read(files.at(path), _sound)
    if blob is None:
        raise OSError(f"{path} is damaged, and its spare")
    return zipfile.ZipFile(BytesIO(blob))


@lru_cache(maxsize=4096)  # zips never change
def _names_of(path: str) -> tuple[str, ...]:
    return tuple(_open(path).namelist())


def _names(path: Path) -> tuple[str, ...]:
    try:
        return _names_of(str(path))
    except OSError:
        return ()
