"""Files that hold what many trials measured, kept twice: OUT/<folder>/<name>, and the same bytes in
OUT/spare/<folder>/<name>. One damaged byte then costs nothing: either is made again from the other.

What is sound is the caller's to say: `sound(name, bytes)` is what the bytes hold, or None if they are damaged or are
not what the name says."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from distvae import files

T = TypeVar("T")
Sound = Callable[[str, bytes], T | None]
SPARE, QUARANTINE = "spare", "quarantine"


def found(folder: Path, pattern: str) -> list[Path]:
    """Those there are or have been, by name: one that is lost has its spare."""
    there = [f for f in (folder, folder.parent / SPARE / folder.name) if f.is_dir()]
    return [folder / name for name in sorted({file.name for f in there for file in f.glob(pattern)})]


def spare(file: Path) -> Path:
    """Where the second copy lies."""
    return file.parent.parent / SPARE / file.parent.name / file.name


def write(file: Path, blob: bytes) -> None:
    """Both, the spare last: one that dies in between leaves what `check` completes. Raises UnwrittenError, OSError if what
    is read back is not what was written; then it goes."""
    for copy in (file, spare(file)):
        _put(copy, blob)
        if _bytes(copy) != blob:
            files.remove(copy)
            raise OSError(f"{copy}: what was written is not what is read back")


def read(file: Path, sound: Sound[T]) -> T | None:
    """What it holds, from the spare if it must be; None if both are damaged."""
    for copy in (file, spare(file)):
        if (blob := _bytes(copy)) is not None and (held := sound(file.name, blob)) is not None:
            return held
    return None


def check(out: Path, file: Path, sound: Sound[T], *, mend: bool, lost: str) -> str | None:
    """A line if it is damaged, with what is `lost` if its spare is too. With `mend`, for the owner of OUT, it is made again from the spare; where that is damaged
    too, both move to quarantine. A sound file's spare is mended without a word: nothing was in danger."""
    other = spare(file)
    mine, theirs = _bytes(file), _bytes(other)
    if mine is not None and sound(file.name, mine) is not None:
        if mend and mine != theirs:
            _put(other, mine)
        return None
    if theirs is not None and sound(file.name, theirs) is not None:
        if mend:
            _set_aside(out, file)
            _put(file, theirs)
        return f"{file} is damaged: {'made again from' if mend else 'read from'} {other}"
    if not mend:
        return f"{file} is damaged, and its spare {other}: the next sweep sets them aside; {lost}"
    _set_aside(out, other, "spare-")
    return f"{file} is damaged, and its spare: moved to {_set_aside(out, file)}; {lost}"


def _bytes(file: Path) -> bytes | None:
    """Raises OSError where it is not the file that is at fault."""
    if file.is_symlink():
        return None
    try:
        return file.read_bytes()
    except OSError as e:
        if isinstance(e, FileNotFoundError | IsADirectoryError | NotADirectoryError) or e.errno == errno.EIO:
            return None
        raise


def _put(file: Path, blob: bytes) -> None:
    with files.replacing(file) as f:
        f.write(blob)


def _set_aside(out: Path, file: Path, which: str = "") -> Path:
    if file.exists() or file.is_symlink():
        files.move(file, out / QUARANTINE / f"{which}{file.name}")
    return out / QUARANTINE
