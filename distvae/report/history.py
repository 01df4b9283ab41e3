"""What each trial measured as it trained: the rows of its epochs."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from distvae.report.columns import doc, is_surrogate, metric_names, unit
from distvae.report.trials import SPLITS

PASSES = 50  # of a trial; of more, evenly chosen ones with the first and the last (rd_curve.parquet has all)
DIGITS = 7
AT = ("point", "split", "epoch", "step")


def history(curve: pa.Table) -> dict[str, Any]:
    """{history_columns, history, thinned}: trial key -> rows as lists in the order of the columns; whether some were
    left out."""
    curve = curve.filter(pa.array([bool(n) for n in curve["n_examples"].to_pylist()], pa.bool_()))
    metrics = [n for n in metric_names(curve) if curve[n].null_count < len(curve)]
    rows: dict[str, list[list[Any]]] = {}
    names = ["trial_key", *AT, *metrics]
    for key, *values in zip(*(curve[n].to_pylist() for n in names), strict=True):
        rows.setdefault(key, []).append([*values[: len(AT)], *map(_short, values[len(AT) :])])
    thinned = {key: _thin(mine) for key, mine in rows.items()}
    order = {s: i for i, s in enumerate(reversed(SPLITS))}
    for mine in thinned.values():
        mine.sort(key=lambda r: (r[0], r[2], order.get(r[1], -1)))
    return {
        "history_columns": [
            *({"id": n, "unit": "", "doc": "", "surrogate": False} for n in AT),
            *(
                {"id": n, "unit": unit(curve, n), "doc": doc(curve, n), "surrogate": is_surrogate(curve, n)}
                for n in metrics
            ),
        ],
        "history": thinned,
        "thinned": any(len(thinned[key]) < len(rows[key]) for key in rows),
    }


def _thin(rows: list[list[Any]]) -> list[list[Any]]:
    epochs = sorted({r[2] for r in rows})
    last = len(epochs) - 1
    kept = {epochs[round(i * last / (PASSES - 1))] for i in range(PASSES)} if last >= PASSES else set(epochs)
    return [r for r in rows if r[2] in kept]


def _short(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
