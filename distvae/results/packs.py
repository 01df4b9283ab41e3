"""Packs: when many attempts have ended, the rows of 256 of them move into one file, OUT/points/pack-<id>.parquet, in the
same schema, and their own files go. Ten thousand trials are then read in a second, from a few hundred files.

One damaged byte would cost 256 trials, so a pack is kept twice: OUT/spare holds the same bytes, and the one is made again
from the other. The id is a hash of whose rows a pack holds, so one under a false name counts as damaged too. Only the owner
of OUT packs, and only attempts that nobody can still be committing; a pack is there, whole, before a file goes, so a reader
that reads single files first and packs after them misses nothing, and who dies in between leaves rows that are there
twice, equal, and are read once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import pyarrow as pa

from distvae import files
from distvae.results import rowfile
from distvae.results.rowfile import Attempt
from distvae.results.schema import SCHEMA

POINTS, SPARE, QUARANTINE = "points", "spare", "quarantine"
SIZE = 256  # attempts in a pack
NAME = re.compile(r"pack-([0-9a-f]{16})\.parquet")


def found(out: Path) -> list[Path]:
    """The packs there are, or have been: one whose file is lost has its spare."""
    folders = [folder for folder in (out / POINTS, out / SPARE) if folder.is_dir()]
    names = {file.name for folder in folders for file in folder.glob("pack-*.parquet") if NAME.fullmatch(file.name)}
    return [out / POINTS / name for name in sorted(names)]


def read(pack: Path) -> pa.Table | None:
    """A pack's rows, from its spare if it must be; None if both are damaged."""
    table = _sound(pack)
    return _sound(_spare(pack)) if table is None else table


def holding(out: Path, key: str) -> Iterator[pa.Table]:
    """The packs with rows of a trial, whole."""
    for pack in found(out):
        if key in _keys(pack):
            table = read(pack)
            if table is not None:
                yield table


def check(out: Path, *, mend: bool) -> list[str]:
    """A line for each pack that is damaged. With `mend` it is made again from its spare, or its spare from it."""
    told = []
    for pack in found(out):
        spare = _spare(pack)
        sound = _sound(pack) is not None
        if sound and (not mend or _same(pack, spare)):
            continue
        if sound:
            _replace(spare, pack)  # nothing to tell: no row was in danger
        elif _sound(spare) is not None:
            told.append(f"{pack} is damaged: {'made again from' if mend else 'read from'} {spare}")
            if mend:
                _set_aside(out, pack)
                _replace(pack, spare)
        elif mend:
            graves = [_set_aside(out, file) for file in (pack, spare)]
            told.append(f"{pack} is damaged, and its spare: moved to {graves[0]}, its trials are run again")
        else:
            told.append(f"{pack} is damaged, and its spare: the next sweep sets them aside and runs its trials again")
    return told


def gather(out: Path, singles: Iterable[tuple[Path, pa.Table]]) -> Path:
    """Pack these attempts' files; `singles` (file, rows). Raises UnwrittenError."""
    singles = list(singles)
    table = pa.concat_tables([t for _, t in singles]).unify_dictionaries().combine_chunks().cast(SCHEMA)
    pack = out / POINTS / f"pack-{_id(rowfile.attempts(table))}.parquet"
    rowfile.write(table, _spare(pack))
    rowfile.write(table, pack)
    if _sound(pack) is None or not _same(pack, _spare(pack)):
        raise OSError(f"{pack}: what was written is not what is read back; the trials' own files stay")
    drop(out, [file for file, _ in singles])
    return pack


def drop(out: Path, singles: Iterable[Path]) -> None:
    """Remove the files of attempts that a sound pack holds."""
    list(files.each(list(singles), files.remove, remote=files.is_remote(out)))


def _spare(pack: Path) -> Path:
    return pack.parent.parent / SPARE / pack.name


def _id(attempts: Iterable[Attempt]) -> str:
    return hashlib.sha256("\n".join(f"{key}.{n}" for key, n in sorted(attempts)).encode()).hexdigest()[:16]


def _sound(file: Path) -> pa.Table | None:
    table, name = rowfile.read(file), NAME.fullmatch(file.name)
    return table if table is not None and name and _id(rowfile.attempts(table)) == name[1] else None


def _same(one: Path, other: Path) -> bool:
    try:
        return not other.is_symlink() and one.read_bytes() == other.read_bytes()
    except OSError:
        return False


def _replace(file: Path, by: Path) -> None:
    with files.replacing(file) as f:
        f.write(by.read_bytes())


def _set_aside(out: Path, file: Path) -> Path:
    grave = out / QUARANTINE
    if files.is_remote(file) or file.exists() or file.is_symlink():
        files.move(file, grave / f"{file.parent.name}-{file.name}")
    return grave


@lru_cache(maxsize=4096)  # packs never change
def _keys_of(pack: str) -> frozenset[str]:
    table = read(files.at(pack))
    if table is None:
        raise LookupError  # which is not remembered
    return frozenset(key for key, _ in rowfile.attempts(table))


def _keys(pack: Path) -> frozenset[str]:
    try:
        return _keys_of(str(pack))
    except LookupError:
        return frozenset()
