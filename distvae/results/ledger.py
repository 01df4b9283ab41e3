"""The ledger: OUT/points/<trial_key>.<attempt>.parquet, one file per ended attempt, the system of record.

A file appears whole and never changes: the commit creates it, and of several that try to one succeeds. Pages carry checksums, verified on every read: a flipped
byte or a truncated file is moved to OUT/quarantine and its trial run again, never read in silence. Readers merge
attempts: a row belongs to the first attempt that committed it."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from distvae import files
from distvae.files import replacing
from distvae.results import measurements
from distvae.results.schema import SCHEMA

POINTS, QUARANTINE = "points", "quarantine"
_NAME = re.compile(r"([0-9a-f]{16})\.(\d+)\.parquet")


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


def write(table: pa.Table, target: Path) -> Path:
    """A Parquet file, whole or not at all, with page checksums."""
    with replacing(target) as f:
        pq.write_table(table, f, write_page_checksum=True)
    return target


def scan(out: Path, *, mend: bool = True) -> tuple[dict[str, Ended], list[str]]:
    """(what has ended, by trial key; one line per damaged file). With `mend`, for the owner of OUT, damaged files are
    moved to quarantine and temp files of dead writers removed."""
    ended: dict[str, Ended] = {}
    damaged = []
    if mend:
        files.guard(out)
        for stale in (out / POINTS).glob(".*.tmp"):
            files.remove(stale)
    for file, table in _files(out):
        if table is None:
            if not mend:
                damaged.append(f"{file} is damaged: the next sweep sets it aside and runs its trial again")
                continue
            damaged.append(f"{file} is damaged: moved to {_set_aside(out, file)}, its trial is run again")
            continue
        key, attempt = _identity(file)
        before = ended.get(key)
        epoch = max([before.epoch if before else 0, *(e or 0 for e in table["epoch"].to_pylist())])
        status = table["status"][0].as_py()
        if before is None or attempt > before.attempt:
            ended[key] = Ended(key, status, attempt, epoch)
        else:
            ended[key] = Ended(key, before.status, before.attempt, epoch)
    return ended, damaged


def history(out: Path, key: str) -> History | None:
    """One trial's record, or None. A row belongs to the first attempt that committed it; damaged files are left to
    `scan`."""
    read = ((file, _read(file)) for file in (out / POINTS).glob(f"{key}.*.parquet"))
    found = [(_identity(file)[1], table) for file, table in read if table is not None]
    merged: dict[tuple[int, str, int], dict[str, Any]] = {}
    status = None
    for _, table in sorted(found, key=lambda item: item[0]):
        status = table["status"][0].as_py()
        for row in table.drop_columns(["config_json"]).to_pylist():
            if row["n_examples"]:
                merged.setdefault((row["epoch"], row["split"], row["point"]), row)
    return None if status is None else History(status, list(merged.values()))


def load(out: Path, keys: Collection[str] | None = None) -> pa.Table:
    """Every sound committed row (of the trials `keys`), merged over attempts, ordered by (trial_key, epoch, split,
    point), with what was measured later joined. Reads only; damaged files are left to `scan`."""
    found = sorted(((_identity(f), t) for f, t in _files(out, keys) if t is not None), key=lambda item: item[0])
    seen: set[tuple[str, int, str, int]] = set()
    kept = []
    measured = {key for (key, _), t in found if t["n_examples"].to_pylist()[0]}
    for (key, _), t in found:
        keep = []
        ids = zip(*(t[c].to_pylist() for c in ("epoch", "split", "point", "n_examples")), strict=True)
        for epoch, split, point, n in ids:
            new = (key, epoch, split, point) not in seen
            keep.append(new and (bool(n) or key not in measured))
            seen.add((key, epoch, split, point))
        kept.append(t.filter(pa.array(keep)))
    table = pa.concat_tables(kept) if kept else SCHEMA.empty_table()
    if not len(table):
        return SCHEMA.empty_table()
    order = [(c, "ascending") for c in ("trial_key", "epoch", "split", "point")]
    ordered = _plain(table.select([c for c, _ in order]).append_column("row", pa.array(range(len(table))))).sort_by(
        order
    )
    return measurements.join(out, table.take(ordered["row"]).unify_dictionaries())


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
    return None if table is None else Ended(key, table["status"][0].as_py(), attempt, max(table["epoch"].to_pylist()))


def _files(out: Path, keys: Collection[str] | None = None) -> Iterator[tuple[Path, pa.Table | None]]:
    """(file, its rows or None if it is damaged) of the ledger."""
    folder = out / POINTS
    found = [
        file
        for file in (sorted(folder.iterdir()) if folder.is_dir() else ())
        if not file.name.startswith(".") and (keys is None or file.name.partition(".")[0] in keys)
    ]
    yield from zip(found, files.each(found, _read, remote=files.is_remote(out)), strict=True)


def _set_aside(out: Path, file: Path) -> Path:
    """Move a damaged file to OUT/quarantine, which is returned."""
    grave = out / QUARANTINE
    files.move(file, grave / file.name)
    return grave


def _read(file: Path) -> pa.Table | None:
    match = _NAME.fullmatch(file.name)
    if match is None or file.is_symlink():
        return None
    try:
        table = pq.ParquetFile(files.source(file), page_checksum_verification=True).read()
        identity = set(zip(table["trial_key"].to_pylist(), table["attempt"].to_pylist(), strict=True))
    except (OSError, pa.ArrowException, KeyError, UnicodeDecodeError):
        return None
    table = _current(table)
    sound = table.schema.equals(SCHEMA, check_metadata=False) and identity == {(match[1], int(match[2]))}
    return table if sound else None


def _current(table: pa.Table) -> pa.Table:
    """With the columns that have come since it was written, null."""
    has = set(table.column_names)
    if not has < set(SCHEMA.names):
        return table
    nulls = {f.name: pa.nulls(len(table), f.type) for f in SCHEMA if f.name not in has}
    columns = [nulls[f.name] if f.name in nulls else table[f.name] for f in SCHEMA]
    kinds = [f if f.name in nulls else table.schema.field(f.name) for f in SCHEMA]
    return pa.Table.from_arrays(columns, schema=pa.schema(kinds, table.schema.metadata))


def _identity(file: Path) -> tuple[str, int]:
    match = _NAME.fullmatch(file.name)
    assert match is not None
    return match[1], int(match[2])
