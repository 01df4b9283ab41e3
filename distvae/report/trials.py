"""The table of all trials: one row per trial (per beta of a beta-input model), its last epoch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from distvae.report.columns import cell, column, knob_columns, metric_columns, metric_names
from distvae.results.curves import trial_status
from distvae.sweeps.plan import PLAN, read_plan
from distvae.trial import KNOBS, flatten

SPLITS = ("test", "valid", "train")  # a metric is shown on the first that has it
TO_RUN = "to run"
At = tuple[str, int]  # (trial key, point)


def plan(out: Path) -> list[dict[str, Any]]:
    """Planned trials in order; none if OUT has no plan (`distvae.train(..., out=OUT)` writes none)."""
    if not (out / PLAN).exists():
        return []
    rows = read_plan(out).select(["trial_key", "current", "config_json"]).to_pylist()
    return [r for r in rows if r["current"]]


def statuses(curve: pa.Table, planned: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Trial key -> status, in the order of the plan; trials that an edited config no longer has come last."""
    ended = trial_status(curve)
    return {r["trial_key"]: ended.get(r["trial_key"], TO_RUN) for r in planned} | ended


def table(
    curve: pa.Table, configs: Mapping[str, Mapping[str, Any]], status: Mapping[str, str]
) -> tuple[list[dict[str, Any]], list[list[Any]]]:
    """(columns, rows): a row is a list in the order of the columns. `configs`: trial key -> configuration."""
    flat = {key: dict(flatten(config)) for key, config in configs.items()}
    last = last_rows(curve)
    splits = {n: s for n in metric_names(curve) if (s := _split(n, last)) is not None}
    points = {key: sorted({p for rows in last.values() for k, p in rows if k == key}) or [0] for key in status}
    columns = [
        column("key", "text", "trial", "hash of what can change a trial's numbers", label="trial"),
        column("status", "text", "trial", "how it ended; only finished trials are on the frontier"),
        *([column("data", "text", "trial", "data set")] if len(curve["data"].unique()) > 1 else []),
        *knob_columns(curve, flat.values()),
        column("seed", "number", "trial", "seed of weights and latent noise"),
        column(
            "point", "number", "trial", "numbers the betas of a beta-input model", shown=any(map(max, points.values()))
        ),
        column("epoch", "number", "trial", "epochs trained", "epochs", shown=False),
        column("wall_s", "number", "trial", "training and evaluation", "s", shown=False),
        *metric_columns(curve, splits),
    ]
    if splits.get("elbo_nats") == "test" and any(r["elbo_nats"] is not None for r in last["valid"].values()):
        at = next(i for i, c in enumerate(columns) if c["id"] == "elbo_nats") + 1
        valid = columns[at - 1] | {
            "id": "valid_elbo",
            "doc": "the bound on the valid split, which selects",
            "split": "valid",
        }
        columns.insert(at, valid)
    rows = []
    for key, ended in status.items():
        for point in points[key]:
            passes = {s: last[s].get((key, point), {}) for s in SPLITS}
            measured = next((r for r in passes.values() if r), None)
            axes = measured or {k: flat[key].get(path) for k, path in KNOBS.items()}
            cells = {k: axes.get(k) for k in (*KNOBS, "data", "epoch", "wall_s")}
            cells |= {n: passes[s].get(n) for n, s in splits.items()}
            cells |= {"key": key, "status": ended, "point": point, "valid_elbo": passes["valid"].get("elbo_nats")}
            rows.append([cells[c["id"]] if c["id"] in cells else cell(flat[key].get(c["id"])) for c in columns])
    return columns, rows


def last_rows(curve: pa.Table) -> dict[str, dict[At, dict[str, Any]]]:
    """split -> (trial key, point) -> the row of the last epoch. A trial that measured nothing has none."""
    latest: dict[tuple[str, At], tuple[int, int]] = {}
    narrow = curve.select(["trial_key", "point", "split", "epoch", "n_examples"]).to_pylist()
    for i, r in enumerate(narrow):
        at = r["split"], (r["trial_key"], r["point"])
        if r["n_examples"] and r["split"] in SPLITS:
            latest[at] = max(latest.get(at, (-1, -1)), (r["epoch"], i))
    chosen = pa.array([i for _, i in latest.values()], pa.int64())
    found: dict[str, dict[At, dict[str, Any]]] = {s: {} for s in SPLITS}
    for (split, at), row in zip(latest, curve.drop_columns(["config_json"]).take(chosen).to_pylist(), strict=True):
        found[split][at] = row
    return found


def _split(metric: str, last: Mapping[str, Mapping[At, Mapping[str, Any]]]) -> str | None:
    return next((s for s in SPLITS if any(r[metric] is not None for r in last[s].values())), None)
