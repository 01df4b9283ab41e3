"""The ledger: OUT/points/<trial_key>.<attempt>.parquet, one file per ended attempt, the system of record.

A file appears whole and never changes: the commit creates it, and of several that try to one succeeds. Pages carry
checksums, verified on every read: a flipped byte or a truncated file is moved to OUT/quarantine and its trial run again,
never read in silence. Readers merge attempts: a row belongs to the first attempt that committed it. Where there are many,
files move together into packs (`packs.py`): rows stay, byte for byte the same values, files do not."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from distvae import files
from distvae.files import replacing
from distvae.results import measurements, packs, rowfile
from distvae.results.packs import POINTS
from distvae.results.rowfile import write
from distvae.results.schema import SCHEMA
from distvae.store import twice
from distvae.store.twice import QUARANTINE

MANY = 2 * packs.SIZE  # files of single attempts that may lie side by side
_NAME = re.compile(r"([0-9a-f]{16})\.(\d+)\.parquet")
_ORDER = ("trial_key", "epoch", "split", "point")


@dataclass(frozen=True)
class Ended:
    """What the ledger knows of a trial: its latest attempt, and the last epoch any attempt committed."""

    key: str
    status: str
    attempt: int
    epoch: int


@dataclass(frozen=True)
class History:
    """What a trial measured: the status of its latest attempt, and its rows over all attempts."""

    status: str
    rows: list[dict[str, Any]]

    def last(self, metric: str, split: str = "valid") -> float:
        """The metric at the last epoch (of a beta-input model the mean over its grid); NaN where it has no value."""
        mine = [r for r in self.rows if r["split"] == split]
        at = max((r["epoch"] for r in mine), default=None)
        found = [r[metric] for r in mine if r["epoch"] == at]
        return sum(math.nan if v is None else v for v in found) / len(found) if found else math.nan


def path(out: Path, key: str, attempt: int) -> Path:
    return out / POINTS / f"{key}.{attempt}.parquet"


def commit(out: Path, table: pa.Table) -> Path:
    """Commit the rows of one ended attempt. If it is committed already, what is there stays. Raises UnwrittenError."""
    ((key, attempt),) = set(zip(table["trial_key"].to_pylist(), table["attempt"].to_pylist(), strict=True))
    target = path(out, key, attempt)
    files.guard(out)
    table = table.cast(SCHEMA) if table.schema != SCHEMA else table
    for _ in range(2):
        try:
            with files.creating(target) as f:
                pq.write_table(table, f, write_page_checksum=True)
            return target
        except FileExistsError:
            if _read(target) is not None:
                return target
            _set_aside(out, target)  # damaged: nobody's row
    raise FileExistsError(f"{target}: is made anew, damaged, as often as it is set aside")


def scan(out: Path, *, mend: bool = True) -> tuple[dict[str, Ended], list[str]]:
    """(what has ended, by trial key; one line per damaged file). With `mend`, for the owner of OUT, damaged files are
    moved to quarantine and temp files of dead writers removed."""
    if mend:
        files.guard(out)
        for stale in (p for folder in (out / POINTS, out / twice.SPARE / POINTS) for p in folder.glob(".*.tmp")):
            files.remove(stale)
    ended: dict[str, Ended] = {}
    damaged = packs.check(out, mend=mend)
    for file, table in _files(out):
        if table is not None:
            for end in _ends(table):
                before = ended.get(end.key, end)
                latest = end if end.attempt >= before.attempt else before
                ended[end.key] = Ended(end.key, latest.status, latest.attempt, max(before.epoch, end.epoch))
        elif not mend:
            damaged.append(f"{file} is damaged: the next sweep sets it aside and runs its trial again")
        else:
            damaged.append(f"{file} is damaged: moved to {_set_aside(out, file)}, its trial is run again")
    return ended, damaged


def compact(out: Path, over: Collection[str] | None = None) -> int:
    """Move files of single attempts into packs, if there are `MANY`; of the trials `over` alone, whose groups are over, or
    of all if nothing runs. Returns how many went. For the owner of OUT, after a `scan`. Raises UnwrittenError."""
    singles = [
        f for f in _singles(out) if _NAME.fullmatch(f.name) and (over is None or f.name.partition(".")[0] in over)
    ]
    if len(singles) < MANY:
        return 0
    packed = {a for pack in packs.found(out) if (t := packs.read(pack)) is not None for a in rowfile.attempts(t)}
    twice = [file for file in singles if _identity(file) in packed]  # somebody died between packing and removing
    packs.drop(out, twice)
    left = sorted(set(singles) - set(twice))
    gone = len(twice)
    for i in range(0, len(left) - packs.SIZE + 1, packs.SIZE):
        some = left[i : i + packs.SIZE]
        rows = zip(some, files.each(some, _read, remote=files.is_remote(out)), strict=True)
        sound = [(file, table) for file, table in rows if table is not None]
        if sound:
            packs.gather(out, sound)
        gone += len(sound)
    return gone


def history(out: Path, key: str) -> History | None:
    """One trial's record, or None. A row belongs to the first attempt that committed it; damaged files are left to
    `scan`."""
    singles = [table for file in (out / POINTS).glob(f"{key}.*.parquet") if (table := _read(file)) is not None]
    packed = [_of(table, {key}) for table in packs.holding(out, key)]
    table = _merged([*packed, *singles])
    if not len(table):
        return None
    status = max(_ends(pa.concat_tables([*packed, *singles])), key=lambda end: end.attempt).status
    return History(status, [r for r in table.drop_columns(["config_json"]).to_pylist() if r["n_examples"]])


def load(out: Path, keys: Collection[str] | None = None) -> pa.Table:
    """Every sound committed row (of the trials `keys`), merged over attempts, ordered by (trial_key, epoch, split,
    point), with what was measured later joined. Reads only; damaged files are left to `scan`."""
    singles, packed = [], []
    for file, table in _files(out, keys):
        if table is not None:
            (packed if packs.NAME.fullmatch(file.name) else singles).append(table)
    table = _merged([*packed, *singles])
    return measurements.join(out, table) if len(table) else SCHEMA.empty_table()


def _merged(tables: list[pa.Table]) -> pa.Table:
    """The rows in order. Of several at one place that of the first attempt is kept, of one attempt's that of the first
    table; the placeholder of an attempt without a number goes once the trial has numbers."""
    if not tables:
        return SCHEMA.empty_table()
    table = pa.concat_tables(tables)
    key, split = rowfile.ranks(table["trial_key"]), rowfile.ranks(table["split"])
    epoch, point, attempt, n = (table[c].to_numpy() for c in ("epoch", "point", "attempt", "n_examples"))
    order = np.lexsort((attempt, point, split, epoch, key))
    place = np.stack([key, epoch, split, point])[:, order]
    first = np.append(True, (place[:, 1:] != place[:, :-1]).any(0))
    real = n[order] > 0
    has_numbers = np.isin(place[0], place[0][real])
    return table.take(order[first & (real | ~has_numbers)]).unify_dictionaries()


def _ends(table: pa.Table) -> list[Ended]:
    """How the attempts in a table ended."""
    found = _plain(table.select(["trial_key", "attempt", "epoch", "status"])).group_by(["trial_key", "attempt"])
    told = found.aggregate([("epoch", "max"), ("status", "max")]).to_pylist()  # an attempt's rows have one status
    return [Ended(r["trial_key"], r["status_max"], r["attempt"], r["epoch_max"]) for r in told]


def export(out: Path, fmt: str = "parquet", to: Path | None = None) -> Path:
    """The curve as `parquet` (OUT/rd_curve.parquet) or `csv` (OUT/rd_curve.csv), or to the file `to`."""
    table, target = load(out), to or out / f"rd_curve.{fmt}"
    if fmt == "parquet":
        return write(table, target)
    with replacing(target) as f:
        pyarrow.csv.write_csv(_plain(table), f)
    return target


def _plain(table: pa.Table) -> pa.Table:
    """Strings instead of dictionaries."""
    fields = [pa.field(f.name, pa.string()) if pa.types.is_dictionary(f.type) else f for f in table.schema]
    return table.cast(pa.schema(fields))


def end(out: Path, key: str, attempt: int) -> Ended | None:
    """How an attempt ended, None if it has not."""
    file = path(out, key, attempt)
    table = _read(file) if files.is_remote(file) or file.exists() else None
    found = [table] if table is not None else [_of(pack, {key}) for pack in packs.holding(out, key)]
    return next((end for t in found for end in _ends(t) if end.attempt == attempt), None)


def _singles(out: Path) -> list[Path]:
    """What lies in points/ and is no pack."""
    folder = out / POINTS
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [f for f in found if not f.name.startswith(".") and not packs.NAME.fullmatch(f.name)]


def _files(out: Path, keys: Collection[str] | None = None) -> Iterator[tuple[Path, pa.Table | None]]:
    """(file, its rows or None if it is damaged) of the ledger, then of its packs, without those that `packs.check` tells
    of. A file that goes while we look has gone into a pack."""
    remote = files.is_remote(out)
    found = [f for f in _singles(out) if keys is None or f.name.partition(".")[0] in keys]
    for file, table in zip(found, files.each(found, _read, remote=remote), strict=True):
        if table is not None or file.is_symlink() or file.exists():
            yield file, table
    found = packs.found(out)
    for file, table in zip(found, files.each(found, packs.read, remote=remote), strict=True):
        if table is not None:
            yield file, table if keys is None else _of(table, keys)


def _of(table: pa.Table, keys: Collection[str]) -> pa.Table:
    return table.filter(pc.field("trial_key").cast(pa.string()).isin(sorted(keys)))


def _set_aside(out: Path, file: Path) -> Path:
    """Move a damaged file to OUT/quarantine, which is returned."""
    grave = out / QUARANTINE
    files.move(file, grave / file.name)
    return grave


def _read(file: Path) -> pa.Table | None:
    match, table = _NAME.fullmatch(file.name), rowfile.read(file)
    return table if table is not None and match and rowfile.attempts(table) == {(match[1], int(match[2]))} else None


def _identity(file: Path) -> tuple[str, int]:
    match = _NAME.fullmatch(file.name)
    assert match is not None
    return match[1], int(match[2])
