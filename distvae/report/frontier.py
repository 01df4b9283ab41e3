"""The rate-distortion plane as data: every configuration over its seeds, the frontier, the lower hull, the best by
valid bound, for each (data, measure): those do not compare."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from distvae.results import curves

SPLIT = "test"


def frontier(table: pa.Table) -> dict[str, Any]:
    """{panels, configs}: `configs` by increasing rate; an interval is [mean, low, high], a Student-t 95% confidence
    interval over seeds, under 3 seeds their range."""
    found = curves.configs(table, SPLIT)
    on = {_id(c) for c in curves.frontier(table, SPLIT)}
    best = {_id(c) for c in curves.best(table, SPLIT)}
    panels, configs = [], []
    for i, ((data, measure), mine) in enumerate(curves.panels(found).items()):
        hull = curves.lower_hull([(c.rate.mean, c.distortion.mean) for c in mine])
        panels.append({"data": data, "measure": measure, "split": SPLIT, "hull": hull})
        for c in sorted(mine, key=lambda c: c.rate.mean):
            configs.append(_config(c) | {"panel": i, "frontier": _id(c) in on, "best": _id(c) in best})
    return {"panels": panels, "configs": configs}


def _id(c: curves.Config) -> tuple[str, int, str, str]:
    return c.config_key, c.points[0].point, c.data, c.measure


def _config(c: curves.Config) -> dict[str, Any]:
    def span(i: curves.Interval | None) -> list[float] | None:
        return None if i is None else [i.mean, i.low, i.high]

    return {
        "seeds": c.seeds,
        "interval": c.rate.kind if c.seeds > 1 else "one seed",
        "rate": span(c.rate),
        "distortion": span(c.distortion),
        "elbo": span(c.elbo),
        "valid_elbo": span(c.valid_elbo),
        "trials": [
            {"key": p.trial_key, "point": p.point, "seed": p.seed, "rate": p.rate, "distortion": p.distortion}
            for p in c.points
        ],
    }
