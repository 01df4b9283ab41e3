"""OUT/plan.parquet, one row per planned trial, and OUT/sweep.yaml, the config as it was understood.

`position, trial_key, config_key, seed, fusion_group, epochs, current, config_json, suggested`, then every dotted name of
`trial.flat()` as a column, null where a trial has no such knob: numbers where all are numbers, booleans where all are,
else strings (lists as JSON). `config_json` is the truth, the columns are for reading. A trial that an edited config no
longer has stays, with `current` false, if it has rows. `suggested`: number -> values of every suggestion of a search that
is this configuration, as JSON; null where nothing suggests."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distvae import config, files
from distvae.files import replacing
from distvae.store.errors import BucketError
from distvae.store.path import S3
from distvae.study import Study
from distvae.sweeps.tree import ConfigError, printable
from distvae.trial import Trial, flatten

SCHEMA_VERSION = "1"
PLAN, SWEEP = "plan.parquet", "sweep.yaml"
FOLDERS = (
    "points",
    "spare",
    "checkpoints",
    "logs",
    "plots",
    "metrics",
    "quarantine",
    "requests",
    "mlartifacts",
)  # in OUT
_WORDS = pa.dictionary(pa.int32(), pa.string())
BASE = pa.schema(
    [
        pa.field("position", pa.int64(), nullable=False),
        pa.field("trial_key", pa.string(), nullable=False),
        pa.field("config_key", _WORDS, nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("fusion_group", _WORDS, nullable=False),
        pa.field("epochs", pa.int64(), nullable=False),
        pa.field("current", pa.bool_(), nullable=False),
        pa.field("config_json", pa.string(), nullable=False),
        pa.field("suggested", pa.string()),
    ]
)


def write_plan(
    out: str | Path,
    study: Study,
    keep: Collection[str] = frozenset(),
    suggested: Mapping[str, Mapping[int, Mapping[str, Any]]] | None = None,
) -> pa.Table:
    """Write the plan and the resolved config. `keep`: keys of trials with committed rows. `suggested`: config_key ->
    number -> values."""
    out = check_out(out)
    asked = {key: json.dumps(numbers) for key, numbers in (suggested or {}).items()}
    rows = [{**row, "suggested": asked.get(row["config_key"])} for row in _rows(study.trials)]
    planned = {row["trial_key"] for row in rows}
    if (out / PLAN).exists():
        old = read_plan(out).select(BASE.names).to_pylist()
        kept = [row for row in old if row["trial_key"] in keep and row["trial_key"] not in planned]
        rows += [{**row, "position": i, "current": False} for i, row in enumerate(kept, start=len(rows))]
    table = _table(rows)
    words = [f.name for f in table.schema if pa.types.is_dictionary(f.type)]
    with replacing(out / SWEEP) as f:
        f.write(study.resolved.encode())
    with replacing(out / PLAN) as f:
        pq.write_table(table, f, compression="zstd", use_dictionary=words)  # type: ignore[arg-type]
    return table


def read_plan(out: str | Path) -> pa.Table:
    path = check_out(out) / PLAN
    try:
        with pq.ParquetFile(files.source(path)) as f:  # `read_table` would read an OUT called `r=1` as a column
            return _current(f.read())
    except FileNotFoundError:
        raise ConfigError(
            [f"{printable(str(path))}: there is no plan yet (run `distvae plan` or `distvae sweep` first)"]
        ) from None
    except (OSError, pa.ArrowException) as e:
        why = printable(str(e).splitlines()[0])
        raise ConfigError(
            [f"{printable(str(path))}: cannot be read: {why} (delete it: the next run plans anew)"]
        ) from None


def _current(table: pa.Table) -> pa.Table:
    """A plan written before there were suggestions has none."""
    if "suggested" in table.column_names:
        return table
    return table.append_column(BASE.field("suggested"), pa.nulls(len(table), pa.string()))


def trial_from_json(config_json: str) -> Trial:
    return config.trial_from_data(json.loads(config_json))


def check_out(path: str | Path) -> Path:
    """`path` as OUT: a directory, or what can become one, or s3://bucket/prefix. Refuses what would put files elsewhere
    than where it says. Raises ConfigError, and StoreError if S3 cannot be reached."""
    if files.is_remote(path) or os.fspath(path).startswith(S3):
        return _on_s3(path)
    text = os.fspath(path)
    label = printable(text) or "''"
    if not text or not all(c.isprintable() for c in text):
        raise ConfigError(
            [f"--out {label}: is not the name of a directory (no NUL, newline or other control character)"]
        )
    out = Path(text)
    files.guard(out)
    try:
        mode = os.lstat(out).st_mode
    except FileNotFoundError:
        return out
    except OSError as e:
        raise ConfigError([f"--out {label}: {e.strerror} (name a directory)"]) from None
    if stat.S_ISLNK(mode):
        raise ConfigError(
            [f"--out {label}: is a symbolic link (name the directory itself: {printable(os.path.realpath(out))})"]
        )
    if not stat.S_ISDIR(mode):
        raise ConfigError([f"--out {label}: exists and is not a directory (name another)"])
    for inside in (out / name for name in FOLDERS):
        if inside.is_symlink():  # else known at the end alone, or of a log never
            where = printable(str(inside))
            raise ConfigError(
                [f"{where}: is a symbolic link (nothing is written through one: put the folder itself there)"]
            )
    return out


def _on_s3(path: str | Path) -> Path:
    try:
        out = files.at(path)
        out.is_dir()  # one request: are there a bucket, credentials, a server?
    except BucketError as e:
        raise ConfigError([f"--out {printable(str(e))}"]) from None
    return out


def _rows(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    rows, parts, same = [], (), {}
    for position, trial in enumerate(trials):
        now = (trial.data, trial.vae, trial.objective, trial.train, trial.evaluate)
        if len(parts) != len(now) or any(a is not b for a, b in zip(parts, now, strict=True)):
            parts = now  # the seeds of a configuration are adjacent, and share what does not depend on the seed
            same = {"config_key": trial.config_key, "fusion_group": trial.fusion_group, "epochs": trial.train.epochs}
        text = json.dumps(trial.config(), separators=(",", ":"), allow_nan=False)
        own = {"position": position, "trial_key": trial.key, "seed": trial.seed, "current": True, "config_json": text}
        rows.append({**same, **own})
    return rows


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    flat = [dict(flatten(json.loads(row["config_json"]))) for row in rows]
    names = dict.fromkeys(name for config in flat for name in config if name not in BASE.names)
    knobs = {name: _column([config.get(name) for config in flat]) for name in names}
    schema = pa.schema([*BASE, *(pa.field(k, c.type) for k, c in knobs.items())])
    schema = schema.with_metadata({"distvae.schema_version": SCHEMA_VERSION})
    base = [pa.array([row[f.name] for row in rows], f.type) for f in BASE]
    return pa.Table.from_arrays([*base, *knobs.values()], schema=schema)


def _column(values: list[Any]) -> pa.Array:
    kinds = {type(v) for v in values if v is not None}
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds == {int} and all(v is None or -(2**63) <= v < 2**63 for v in values):
        return pa.array(values, pa.int64())
    if kinds and kinds <= {int, float}:
        return pa.array([None if v is None else float(v) for v in values], pa.float64())
    words = [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
    return pa.array(words, pa.string()).dictionary_encode().cast(_WORDS)
