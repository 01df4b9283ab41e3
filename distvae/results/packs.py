"""Packs: when many attempts have ended, the rows of 256 of them move into one file, OUT/points/pack-<id>.parquet, in the
same schema, and their own files go. Ten thousand trials are then read in a second, from a few hundred files.

One damaged byte would cost 256 trials, so a pack is kept twice (`store/twice.py`). The id is a hash of whose rows a pack
holds, so one under a false name counts as damaged too. Only the owner of OUT packs, and only attempts that nobody can
still be committing; a pack is there, whole, before a file goes, so a reader that reads single files first and packs
after them misses nothing, and who dies in between leaves rows that are there twice, equal, and are read once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import pyarrow as pa

from distvae import files
from distvae.results import rowfile
from distvae.results.rowfile import Attempt
from distvae.results.schema import SCHEMA
from distvae.store import twice

POINTS = "points"
SIZE = 256  # attempts in a pack
NAME = re.compile(r"pack-([0-9a-f]{16})\.parquet")


def found(out: Path) -> list[Path]:
    """The packs there are, or have been."""
    return [pack for pack in twice.found(out / POINTS, "pack-*.parquet") if NAME.fullmatch(pack.name)]


def read(pack: Path) -> pa.Table | None:
    """A pack's rows; None if it is damaged, and its spare too."""
    return twice.read(pack, _sound)


def holding(out: Path, key: str) -> Iterator[pa.Table]:
    """The packs with rows of a trial, whole."""
    for pack in found(out):
        if key in _keys(pack):
            table = read(pack)
            if table is not None:
                yield table


def check(out: Path, *, mend: bool) -> list[str]:
    """A line for each pack that is damaged; with `mend`, for the owner of OUT, it is mended, or set aside."""
    told = (twice.check(out, pack, _sound, mend=mend, lost="its trials are run again") for pack in found(out))
    return [line for line in told if line]


def gather(out: Path, singles: Iterable[tuple[Path, pa.Table]]) -> Path:
    """Pack these attempts' files; `singles` (file, rows). Raises UnwrittenError, OSError; then the files stay."""
    singles = list(singles)
    table = pa.concat_tables([t for _, t in singles]).unify_dictionaries().combine_chunks().cast(SCHEMA)
    pack = out / POINTS / f"pack-{_id(rowfile.attempts(table))}.parquet"
    twice.write(pack, rowfile.encode(table))
    drop(out, [file for file, _ in singles])
    return pack


def drop(out: Path, singles: Iterable[Path]) -> None:
    """Remove the files of attempts that a sound pack holds."""
    list(files.each(list(singles), files.remove, remote=files.is_remote(out)))


def _id(attempts: Iterable[Attempt]) -> str:
    return hashlib.sha256("\n".join(f"{key}.{n}" for key, n in sorted(attempts)).encode()).hexdigest()[:16]


def _sound(name: str, blob: bytes) -> pa.Table | None:
    table, match = rowfile.decode(BytesIO(blob)), NAME.fullmatch(name)
    return table if table is not None and match and _id(rowfile.attempts(table)) == match[1] else None


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
