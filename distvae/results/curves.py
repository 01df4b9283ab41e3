"""What a sweep says: points, seed intervals, hulls, frontiers and the best. Nothing here looks at a surrogate, and
nothing mixes data sets or measures.

A trial's point is its last epoch. The valid split selects, the test split is reported."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from distvae.trial import KNOBS

LEVEL = 0.95
Panel = tuple[str, str]  # (data, measure): what may be compared


@dataclass(frozen=True)
class Point:
    """One trial's last epoch on one split."""

    trial_key: str
    config_key: str
    seed: int
    data: str
    measure: str
    rate: float  # nats per example
    distortion: float  # nats per example
    elbo: float  # nats per example
    row: dict[str, Any]  # all columns
    valid_elbo: float | None = None
    point: int = 0  # of a beta-input model's grid

    @property
    def panel(self) -> Panel:
        return self.data, self.measure


@dataclass(frozen=True)
class Interval:
    """A mean over seeds, and how sure: a Student-t 95% confidence interval, or under 3 seeds the range of the
    values."""

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def kind(self) -> str:
        return "95% CI" if self.seeds >= 3 else "range"


@dataclass(frozen=True)
class Config:
    """A configuration over its seeds, on one split."""

    config_key: str
    data: str
    measure: str
    seeds: int
    rate: Interval
    distortion: Interval
    elbo: Interval
    valid_elbo: Interval | None
    knobs: dict[str, Any]
    points: tuple[Point, ...]

    @property
    def panel(self) -> Panel:
        return self.data, self.measure


def trial_status(table: pa.Table) -> dict[str, str]:
    """Trial key -> status of its latest attempt."""
    latest: dict[str, tuple[int, str]] = {}
    for key, attempt, status in zip(*(table[c].to_pylist() for c in ("trial_key", "attempt", "status")), strict=True):
        latest[key] = max(latest.get(key, (-1, "")), (attempt, status))
    return {key: status for key, (_, status) in latest.items()}


def final_points(table: pa.Table, split: str = "test") -> list[Point]:
    """The last row of every finished trial that has a valid bound. One that a scheduler stopped has valid bounds too,
    but of a model that was not trained to the protocol's end."""
    status = trial_status(table)
    last: dict[tuple[str, int, str], dict[str, Any]] = {}
    for row in _rows(table, lambda r: status[r["trial_key"]] == "finished" and r["split"] in (split, "valid")):
        at = row["trial_key"], row["point"], row["split"]
        if at not in last or row["epoch"] >= last[at]["epoch"]:
            last[at] = row
    points = []
    for (key, point, name), row in last.items():
        if name == split and row["elbo_nats"] is not None and row["measure"] is not None:
            valid = last.get((key, point, "valid"), {}).get("elbo_nats")
            points.append(
                Point(
                    key, row["config_key"], row["seed"], row["data"], row["measure"],
                    row["rate_nats"], row["distortion_nats"], row["elbo_nats"], row, valid, point,
                )
            )  # fmt: skip
    return points


def _rows(table: pa.Table, keep: Callable[[dict[str, Any]], bool]) -> Iterable[dict[str, Any]]:
    """Rows as dicts, filtered on cheap columns before the wide ones are touched."""
    narrow = table.select(["trial_key", "split"]).to_pylist()
    chosen = [i for i, r in enumerate(narrow) if keep(r)]
    return table.take(pa.array(chosen, pa.int64())).to_pylist()


def interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Mean over seeds: Student t with n - 1 degrees of freedom, or the range below 3 seeds."""
    v = np.asarray(values, dtype=np.float64)
    n, mean = len(v), float(v.mean())
    if n < 3:
        return Interval(mean, float(v.min()), float(v.max()), n)
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    half = float(stdtrit(n - 1, 0.5 + level / 2) * v.std(ddof=1) / math.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def configs(table: pa.Table, split: str = "test") -> list[Config]:
    """Every configuration with a valid bound, over its seeds, best valid bound first (those without a valid split
    last)."""
    groups: dict[tuple[str, int, str, str], list[Point]] = defaultdict(list)
    for p in final_points(table, split):
        groups[p.config_key, p.point, p.data, p.measure].append(p)
    found = [_config(key, data, measure, points) for (key, _, data, measure), points in groups.items()]
    return sorted(found, key=lambda c: -c.valid_elbo.mean if c.valid_elbo else math.inf)


def _config(key: str, data: str, measure: str, points: list[Point]) -> Config:
    points = sorted(points, key=lambda p: p.seed)
    valid = [p.valid_elbo for p in points if p.valid_elbo is not None]
    return Config(
        config_key=key,
        data=data,
        measure=measure,
        seeds=len(points),
        rate=interval([p.rate for p in points]),
        distortion=interval([p.distortion for p in points]),
        elbo=interval([p.elbo for p in points]),
        valid_elbo=interval(valid) if len(valid) == len(points) else None,
        knobs={k: points[0].row[k] for k in KNOBS},
        points=tuple(points),
    )


def panels(found: Iterable[Any]) -> dict[Panel, list[Any]]:
    """Points or configurations by (data, measure)."""
    out: dict[Panel, list[Any]] = defaultdict(list)
    for f in found:
        out[f.panel].append(f)
    return dict(sorted(out.items()))


def frontier(table: pa.Table, split: str = "test") -> list[Config]:
    """Configurations that no other one of their panel beats in both mean rate and mean distortion, by increasing
    rate."""
    out = []
    for group in panels(configs(table, split)).values():
        best = math.inf
        for c in sorted(group, key=lambda c: (c.rate.mean, c.distortion.mean)):
            if c.distortion.mean < best:
                out.append(c)
                best = c.distortion.mean
    return out


def best(table: pa.Table, split: str = "test") -> list[Config]:
    """The configuration with the highest mean *valid* bound of each panel; none where there is no valid split."""
    return [g[0] for g in panels(configs(table, split)).values() if g[0].valid_elbo is not None]


def best_trial(table: pa.Table, by: str = "elbo_nats", at_rate: float | None = None) -> Point:
    """The trial (and, of a beta-input model, its beta: `.row["beta"]`) with the best `by` on the valid split (lowest for errors, rates and distortions, highest for
    bounds), among those whose valid rate is at most `at_rate` nats. Raises LookupError if there is none, ValueError
    for a surrogate or a name that is no metric."""
    if by not in RANKED:
        raise ValueError(f"by: {by!r} is not one of {', '.join(RANKED)} (surrogates rank nothing)")
    points = final_points(table, "valid")
    if len(panels(points)) > 1:
        raise LookupError(
            f"the sweep has several data sets or measures, which do not compare: {sorted(panels(points))}"
        )
    if not points:
        raise LookupError("no trial has a valid bound on a validation split")
    within = [p for p in points if at_rate is None or p.rate <= at_rate]
    if not within:
        low = min(p.rate for p in points)
        raise LookupError(f"no trial has a valid rate of at most {at_rate:g} nats; the lowest is {low:.4g} nats")
    within = [p for p in within if p.row[by] is not None]
    if not within:
        raise LookupError(f"no trial has {by}")
    return max(within, key=lambda p: RANKED[by] * p.row[by])


RANKED = {"elbo_nats": 1, "distortion_nats": -1, "distortion_mse": -1, "iw_nll_nats": -1}


def lower_hull(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The decreasing part of the lower convex hull of (rate, distortion) points, by increasing rate (Andrew's monotone
    chain)."""
    hull: list[tuple[float, float]] = []
    for p in sorted(set(points)):
        while len(hull) >= 2 and _turn(hull[-2], hull[-1], p) <= 0:
            hull.pop()
        hull.append(p)
    keep = [p for n, p in enumerate(hull) if n == 0 or p[1] < hull[n - 1][1]]
    return keep


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def config_of(point: Point) -> dict[str, Any]:
    """The trial's whole configuration, nested."""
    return json.loads(point.row["config_json"])
