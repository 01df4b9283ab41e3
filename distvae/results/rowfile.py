"""A Parquet file of rows: written whole with page checksums, read with every one of them verified."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distvae import files
from distvae.results.schema import SCHEMA

Attempt = tuple[str, int]  # trial key, number


def write(table: pa.Table, target: Path) -> Path:
    """In place of what was there, whole or not at all."""
    with files.replacing(target) as f:
        pq.write_table(table, f, write_page_checksum=True)
    return target


def encode(table: pa.Table) -> bytes:
    buffer = BytesIO()
    pq.write_table(table, buffer, write_page_checksum=True)
    return buffer.getvalue()


def read(file: Path) -> pa.Table | None:
    """Its rows; None if it is not there, is damaged, or holds something else."""
    if file.is_symlink():
        return None
    try:
        return decode(files.source(file))
    except OSError:
        return None


def decode(source: Any) -> pa.Table | None:
    """The rows of a file that can be sought in; None if they are damaged, or something else."""
    try:
        table = pq.ParquetFile(source, page_checksum_verification=True).read()
        table = _current(table)
        sound = table.schema.equals(SCHEMA, check_metadata=False)
        return table if sound and attempts(table) else None
    except (OSError, pa.ArrowException, KeyError, UnicodeDecodeError):
        return None


def attempts(table: pa.Table) -> set[Attempt]:
    """Whose rows they are."""
    mine = table.select(["trial_key", "attempt"]).group_by(["trial_key", "attempt"]).aggregate([])
    return set(zip(mine["trial_key"].to_pylist(), mine["attempt"].to_pylist(), strict=True))


def ranks(column: pa.ChunkedArray) -> np.ndarray:
    """The place of each value of a text column among its sorted values."""
    whole = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    names = np.array(whole.dictionary.to_pylist(), dtype=object)
    place = np.empty(len(names), dtype=np.int64)
    place[np.argsort(names, kind="stable")] = np.arange(len(names))
    return place[whole.indices.to_numpy(zero_copy_only=False)]


def _current(table: pa.Table) -> pa.Table:
    """With the columns that have come since it was written, null."""
    has = set(table.column_names)
    if not has < set(SCHEMA.names):
        return table
    nulls = {f.name: pa.nulls(len(table), f.type) for f in SCHEMA if f.name not in has}
    columns = [nulls[f.name] if f.name in nulls else table[f.name] for f in SCHEMA]
    kinds = [f if f.name in nulls else table.schema.field(f.name) for f in SCHEMA]
    return pa.Table.from_arrays(columns, schema=pa.schema(kinds, table.schema.metadata))
