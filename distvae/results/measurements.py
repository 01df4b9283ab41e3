"""What was measured after training: OUT/metrics/<trial_key>.<n>.parquet, one immutable file for each time a trial was
measured, joined to the rows of the curve when it is read.

A file's rows are the (epoch, split, point) that were measured, its columns the metrics', its metadata which metrics,
with which settings, and why a value is null. A later file's columns stand in place of an earlier one's, where it
measured the same rows; every file stays, in a zip where there are many (`store/folded.py`). Pages carry checksums; a
damaged file counts as not there."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from distvae import __version__, files
from distvae.results.schema import SCHEMA, whole
from distvae.store import folded
from distvae.store.folded import Member
from distvae.trial import Trial, as_data

if TYPE_CHECKING:
    from distvae.metrics.menu import Metric
    from distvae.metrics.metric import Column

FOLDER = "metrics"
PLACE = ("epoch", "split", "point")  # of a value, in its trial
_NAME = re.compile(r"([0-9a-f]{16})\.(\d+)\.parquet")
_NOTE = b"distvae.metrics"


@dataclass
class Measurement:
    """Values of one trial: `rows` {epoch, split, point, and columns}, and why some are null."""

    key: str
    epoch: int
    columns: dict[str, Column] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)  # column -> the metric's settings
    rows: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)  # by (split, point)
    why: dict[str, str] = field(default_factory=dict)  # metric -> why it has no value

    def add(self, metric: Metric, columns: Sequence[Column], split: str, point: int, values: Mapping[str, Any]) -> None:
        """A metric's values on one split. Raises ValueError if they are not of its columns."""
        if unknown := values.keys() - {c.name for c in columns}:
            raise ValueError(f"{metric.type} returned {', '.join(sorted(unknown))}, which are none of its columns")
        self.columns |= {c.name: c for c in columns}
        self.settings |= {c.name: settings(metric) for c in columns}
        row = self.rows.setdefault((split, point), {"epoch": self.epoch, "split": split, "point": point})
        row |= {c.name: _finite(values.get(c.name)) for c in columns}


def settings(metric: Metric) -> str:
    """What a metric's values depend on, as canonical JSON; the splits do not change them."""
    data = {k: v for k, v in as_data(metric).items() if k != "splits"}
    return json.dumps({**data, "version": metric.version}, sort_keys=True, separators=(",", ":"))


def commit(out: Path, m: Measurement) -> Path:
    """Write a measurement as the trial's next file, whole or not at all. Raises UnwrittenError."""
    fields = [pa.field(p, SCHEMA.field(p).type if p != "split" else pa.string()) for p in PLACE]
    for c in m.columns.values():
        kind = pa.int64() if c.whole else pa.float64()
        kind = SCHEMA.field(c.name).type if c.name in SCHEMA.names else kind
        fields.append(pa.field(c.name, kind, metadata={"unit": c.unit, "doc": c.doc}))
    note = {"settings": m.settings, "why_null": m.why, "version": __version__}
    schema = pa.schema(fields, metadata={_NOTE: json.dumps(note).encode()})
    table = pa.Table.from_pylist(list(m.rows.values()), schema=schema)
    files.guard(out)
    while True:
        target = out / FOLDER / f"{m.key}.{max((n for n, _ in _files(out, m.key)), default=-1) + 1}.parquet"
        try:
            with files.creating(target) as f:
                pq.write_table(table, f, write_page_checksum=True)
            return target
        except FileExistsError:
            continue  # somebody else measured it, just now: both stand


def missing(out: Path, trial: Trial, epoch: int, metrics: Sequence[Metric], splits: Collection[str]) -> list[Metric]:
    """Those of `metrics` that have not been measured on the rows of `epoch` with their settings, on all their splits
    (that the data have: `splits`)."""
    known: dict[tuple[str, str], str] = {}  # (split, column) -> settings
    for _, file in _files(out, trial.key):
        table = _read(file)
        if table is not None:
            note = json.loads(table.schema.metadata[_NOTE])["settings"]
            at = {r["split"] for r in table.select(PLACE).to_pylist() if r["epoch"] == epoch}
            known |= {(split, column): how for split in at for column, how in note.items()}
    return [
        m
        for m in metrics
        if any(
            known.get((split, c.name)) != settings(m) for split in m.splits if split in splits for c in m.columns(trial)
        )
    ]


def join(out: Path, table: pa.Table) -> pa.Table:
    """The curve's rows with what was measured of them: more columns, null where nothing was."""
    fields: dict[str, pa.Field] = {}
    values: dict[str, dict[tuple[str, int, str, int], Any]] = {}
    for key, found in _tables(out, set(table["trial_key"].unique().to_pylist())):
        names = [f.name for f in found.schema if f.name not in PLACE]
        fields |= {f.name: f for f in found.schema if f.name not in PLACE}
        for row in found.to_pylist():
            for name in names:
                values.setdefault(name, {})[key, row["epoch"], row["split"], row["point"]] = row[name]
    if not fields:
        return table
    places = list(zip(*(table[c].to_pylist() for c in ("trial_key", *PLACE)), strict=True))
    schema = whole(fields)
    for name, f in fields.items():
        column = pa.array([values[name].get(at) for at in places], f.type)
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), table.schema.field(name), column)
        else:
            table = table.append_column(f, column)
    return table.cast(schema)


def _finite(value: Any) -> Any:
    return None if value is not None and not math.isfinite(value) else value


def _files(out: Path, key: str) -> list[tuple[int, Path | Member]]:
    """A trial's files, by number."""
    found = [*(out / FOLDER).glob(f"{key}.*.parquet"), *folded.named(out / FOLDER, f"{key}.")]
    return sorted(((int(m[2]), f) for f in found if (m := _NAME.fullmatch(f.name))), key=lambda pair: pair[0])


def _tables(out: Path, keys: Collection[str]) -> list[tuple[str, pa.Table]]:
    """(trial key, rows) of every sound file of these trials, a trial's by number. Single files before folded ones: what
    goes while we look has been folded."""
    folder = out / FOLDER
    read: dict[tuple[str, int], pa.Table] = {}
    for look in (lambda: folder.iterdir() if folder.is_dir() else (), lambda: folded.members(folder)):
        found = [((m[1], int(m[2])), f) for f in look() if (m := _NAME.fullmatch(f.name)) and m[1] in keys]
        tables = files.each([f for _, f in found], _read, remote=files.is_remote(out))
        read |= {place: table for (place, _), table in zip(found, tables, strict=True) if table is not None}
    return [(key, table) for (key, _), table in sorted(read.items(), key=lambda item: item[0])]


def check(out: Path, *, mend: bool) -> list[str]:
    """A line for each zip of measurements that is damaged; with `mend`, for the owner of OUT, it is mended."""
    return folded.check(out, out / FOLDER, mend=mend, lost="`distvae eval` measures again what it held")


def fold(out: Path, least: int) -> int:
    """Fold the files into zips if there are at least so many; whoever calls owns OUT. Returns how many went."""
    folder = out / FOLDER
    found = sorted(f for f in folder.iterdir() if _NAME.fullmatch(f.name)) if folder.is_dir() else []
    return folded.fold(folder, found, least)


def _read(file: Path | Member) -> pa.Table | None:
    if isinstance(file, Path) and file.is_symlink():
        return None
    try:
        table = pq.ParquetFile(files.source(file), page_checksum_verification=True).read()
        json.loads((table.schema.metadata or {})[_NOTE])["settings"]
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return None
    return table if set(PLACE) <= set(table.column_names) else None
