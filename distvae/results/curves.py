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

from distvae.metrics.curve_difference import lower_hull as lower_hull
from distvae.results.ranked import direction, how_to_measure, of_measure
from distvae.results.schema import METRICS, SCHEMA
from distvae.trial import KNOBS

LEVEL = 0.95
Panel = tuple[str, str]  # (data, measure): what may be compared; the measure of what has no density is null


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


def final_points(table: pa.Table, split: str = "test", having: str = "elbo_nats") -> list[Point]:
    """The last row of every finished trial that has a value of `having`: as it is, a valid bound. One that a scheduler
    stopped has valid bounds too, but of a model that was not trained to the protocol's end."""
    last = _last(table, (split, "valid"))
    points = []
    for (key, point, name), row in last.items():
        if name == split and row[having] is not None and (row["measure"] is not None or having != "elbo_nats"):
            points.append(_point(row, last.get((key, point, "valid"), {}).get("elbo_nats")))
    return points


def _last(table: pa.Table, splits: Sequence[str]) -> dict[tuple[str, int, str], dict[str, Any]]:
    """(trial key, point, split) -> the last row of every finished trial."""
    status = trial_status(table)
    last: dict[tuple[str, int, str], dict[str, Any]] = {}
    for row in _rows(table, lambda r: status[r["trial_key"]] == "finished" and r["split"] in splits):
        at = row["trial_key"], row["point"], row["split"]
        if at not in last or row["epoch"] >= last[at]["epoch"]:
            last[at] = row
    return last


def _point(row: dict[str, Any], valid: float | None) -> Point:
    rate, distortion, elbo = (
        math.nan if row[c] is None else row[c] for c in ("rate_nats", "distortion_nats", "elbo_nats")
    )
    return Point(
        row["trial_key"], row["config_key"], row["seed"], row["data"], row["measure"],
        rate, distortion, elbo, row, valid, row["point"],
    )  # fmt: skip


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


def configs(table: pa.Table, split: str = "test", having: str = "elbo_nats") -> list[Config]:
    """Every configuration that has a value of `having` (as it is, a valid bound) over its seeds, best valid bound first
    (those without a valid split, or a bound, last). What a row does not have is NaN in a point and its intervals."""
    groups: dict[tuple[str, int, str, str], list[Point]] = defaultdict(list)
    for p in final_points(table, split, having):
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
    return dict(sorted(out.items(), key=lambda item: (item[0][0], item[0][1] or "")))


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


def mean_of(config: Config, column: str) -> float | None:
    """Mean of a column over a configuration's seeds; None if a seed has no value."""
    values = [p.row[column] for p in config.points]
    return None if None in values else sum(values) / len(values)


def best_trial(table: pa.Table, by: str = "elbo_nats", at_rate: float | None = None, split: str = "valid") -> Point:
    """The finished trial (and, of a beta-input model, its beta: `.row["beta"]`) with the best `by` on `split`, among those
    whose rate there is at most `at_rate` nats; NaN in the point where it has no value. Raises LookupError if there is
    none, ValueError for a surrogate or a metric without a best value."""
    sign, last = direction(by), _last(table, ("train", "valid", "test"))
    rows = [row for (_, _, name), row in last.items() if name == split and row.get(by) is not None]
    if not rows:
        raise LookupError(_unmeasured(last, by, split))
    kinds = {(r["data"], r["measure"]) if of_measure(by) else (r["data"],) for r in rows}
    if len(kinds) > 1:
        raise LookupError(f"the sweep has several data sets or measures, which do not compare: {sorted(kinds)}")
    if at_rate is not None:
        low = min((r["rate_nats"] for r in rows if r["rate_nats"] is not None), default=math.nan)
        rows = [r for r in rows if r["rate_nats"] is not None and r["rate_nats"] <= at_rate]
        if not rows:
            raise LookupError(f"no trial has a {split} rate of at most {at_rate:g} nats; the lowest is {low:.4g} nats")
    row = max(rows, key=lambda r: sign * r[by])
    return _point(row, last.get((row["trial_key"], row["point"], "valid"), {}).get("elbo_nats"))


def _unmeasured(last: dict[tuple[str, int, str], dict[str, Any]], by: str, split: str) -> str:
    """Why no row has `by`, and what would help."""
    elsewhere = [
        s for s in ("valid", "test", "train") if any(k[2] == s and r.get(by) is not None for k, r in last.items())
    ]
    other = f"; it was measured on {' and '.join(elsewhere)}: split={elsewhere[0]!r}" if elsewhere else ""
    if by == "elbo_nats":
        return f"no trial has a valid bound on the {split} split{other}"
    if not last:
        return "no trial has finished"
    if not any(k[2] == split for k in last):
        return f"no trial was evaluated on a {split} split{other}"
    return f"no trial has {by} on the {split} split{other or f': {how_to_measure(by, split)}'}"


def last_metrics(table: pa.Table, key: str, point: int = 0) -> dict[str, dict[str, float]]:
    """split -> metric -> value of a trial's last epoch, without what is null; metrics joined to the curve's own too."""
    names = [*METRICS, *(n for n in table.column_names if n not in SCHEMA.names)]
    mine = [r for r in _rows(table, lambda r: r["trial_key"] == key) if r["point"] == point]
    last = max((r["epoch"] for r in mine), default=None)
    return {
        r["split"]: {n: r[n] for n in names if isinstance(r[n], int | float)}
        for r in mine
        if r["epoch"] == last and r["n_examples"]
    }


def config_of(point: Point) -> dict[str, Any]:
    """The trial's whole configuration, nested."""
    return json.loads(point.row["config_json"])
