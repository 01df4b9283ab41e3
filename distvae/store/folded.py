"""Many small files of a folder in one: FOLDER/folded-<number>-<hash>.zip. Its members are the files, byte for byte, each
with a checksum. A zip never changes; a file of the same name that comes later lies beside it, and is folded into another."""

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

SIZE = 256  # files in a zip
_NAME = re.compile(r"folded-(\d{6})-([0-9a-f]{16})\.zip")


class Member(NamedTuple):
    """A file that has been folded, with what its readers use of a path."""

    zip: Path
    name: str

    def read_bytes(self) -> bytes:
        """Raises OSError if the zip is damaged there."""
        try:
            return _open(str(self.zip)).read(self.name)
        except (zipfile.BadZipFile, KeyError, ValueError) as e:
            raise OSError(f"{self.zip}: {self.name}: {e}") from e


def members(folder: Path) -> Iterator[Member]:
    """Every file that has been folded, oldest zip first. A zip that cannot be read holds none."""
    for path in _zips(folder):
        try:
            names = _open(str(path)).namelist()
        except (OSError, zipfile.BadZipFile):
            continue
        yield from (Member(path, name) for name in names)


def named(folder: Path, name: str) -> list[Member]:
    """What has been folded of one file, in the order it was written."""
    return [m for m in members(folder) if m.name == name]


def fold(folder: Path, found: Sequence[Path], least: int) -> int:
    """Fold these files of `folder`, `SIZE` at a time, if there are at least so many. Returns how many went. Nobody may
    be writing them. Raises UnwrittenError."""
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
        target = folder / f"folded-{number:06}-{hashlib.sha256(blob).hexdigest()[:16]}.zip"
        with files.replacing(target) as f:
            f.write(blob)
        if target.read_bytes() != blob:
            raise OSError(f"{target}: what was written is not what is read back; the files stay")
        list(files.each(some, files.remove, remote=files.is_remote(folder)))
        gone += len(some)
    return gone


def _number(path: Path) -> int:
    return int(path.name.split("-")[1])


def _zips(folder: Path) -> list[Path]:
    found = folder.glob("folded-*.zip") if folder.is_dir() else ()
    return sorted((path for path in found if _NAME.fullmatch(path.name)), key=_number)


@lru_cache(maxsize=8)
def _open(path: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(BytesIO(files.at(path).read_bytes()))
