"""Sweeps, or families of one sweep, side by side: their frontiers, how far they lie apart, the best of each.

What may be compared is a panel, (data, measure): distortions of different measures are logarithms of different things,
and no difference is taken between them. Differences are a side's minus the first side's. Where both have the same seeds
they are taken seed by seed, each seed's curve against the other's of that seed, and the interval is over seeds: what
the seeds share (order of the data, initial weights of like shape) cancels. A seed's hull goes through what that seed did
best at, on both sides, so it lies below the hull of the means, and the mean over seeds is not the difference of the
means' curves: both are told."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from distvae.metrics.curve_difference import Point, codec_difference, difference, hypervolume, lower_hull
from distvae.results import curves, ledger
from distvae.results.curves import Config
from distvae.sweeps.plan import trial_from_json
from distvae.trial import canonical, flatten

MOST = 7  # sides: as many colours as can be told apart
NUMBERS = {  # of a difference: what it is, its unit, and which of `no` says why it is null
    "rate_nats": ("BD-rate", "nats", "no_rate"),
    "rate_percent": ("BD-rate", "%", "no_rate"),
    "distortion_nats": ("BD-distortion", "nats", "no_distortion"),
    "area_nats2": ("area between", "nats²", "no_distortion"),
    "hypervolume_nats2": ("area dominated", "nats²", ""),
    "codec_rate_percent": ("BD-rate of log rate at equal PSNR", "%", "no_codec_rate"),
    "codec_psnr_db": ("BD-PSNR at equal log rate", "dB", "no_codec_psnr"),
}


Coded = tuple[float, float, float | None]  # rate, distortion, mean squared error


class NothingToCompareError(Exception):
    """The sides have no data and measure in common, or there are no two of them (exit code 2)."""


@dataclass(frozen=True)
class Side:
    """One curve's trials: a sweep, or a family of one."""

    name: str
    table: pa.Table


def of_sweeps(outs: Sequence[Path]) -> list[Side]:
    """A side for each OUT, named after its sweep; sweeps of one name, after their folders."""
    tables = [ledger.load(out) for out in outs]
    names = [" + ".join(sorted(set(t["sweep"].to_pylist()))) or "empty" for t in tables]
    for where in ([out.name for out in outs], [str(out) for out in outs]):
        if len(set(names)) < len(names):
            names = [f"{n} ({w})" if names.count(n) > 1 else n for n, w in zip(names, where, strict=True)]
    return [Side(name, table) for name, table in zip(names, tables, strict=True)]


def of_families(out: Path, by: str) -> list[Side]:
    """A side for each value of the dotted config name `by` in one sweep; configurations without it come first."""
    table = ledger.load(out)
    flat = {text: dict(flatten(json.loads(text))) for text in table["config_json"].unique().to_pylist()}
    known = {name for config in flat.values() for name in config}
    if by not in known:
        raise NothingToCompareError(f"--by: no configuration of {out} has {by!r}{_hint(by, flat)}")
    values = {text: config.get(by) for text, config in flat.items()}
    distinct = sorted({json.dumps(v) for v in values.values()}, key=lambda v: _order(json.loads(v)))
    if not 1 < len(distinct) <= MOST:
        few = "the same in all configurations" if len(distinct) == 1 else f"of {len(distinct)} values, and {MOST} fit"
        raise NothingToCompareError(f"--by: {by!r} is {few}{_hint(by, flat)}")
    of = [json.dumps(values[text]) for text in table["config_json"].to_pylist()]
    return [Side(_label(by, json.loads(v)), table.filter(pa.array([o == v for o in of]))) for v in distinct]


def _order(value: Any) -> tuple[int, float, str]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return 1, float(value), ""
    return (0 if value is None else 1), math.inf, str(value)


def _label(by: str, value: Any) -> str:
    """`mode=fixed`, `objective=capacity` (of objective.type), `no conditioning`."""
    short = by.removesuffix(".type").rpartition(".")[2]
    return f"no {short}" if value is None else f"{short}={value}"


def _hint(by: str, flat: dict[str, dict[str, Any]]) -> str:
    """What would do: names whose values differ, few enough."""
    from difflib import get_close_matches

    seen: dict[str, set[str]] = defaultdict(set)
    for name in {name for config in flat.values() for name in config} - {"seed"}:
        seen[name] = {json.dumps(config.get(name)) for config in flat.values()}
    fit = sorted(name for name, values in seen.items() if 1 < len(values) <= MOST)
    close = get_close_matches(by, fit, n=1)
    meant = f" - did you mean {close[0]!r}?" if close else ""
    return f" (of the sweep's names these tell 2 to {MOST} families: {', '.join(fit) or 'none'}){meant}"


def compare(sides: Sequence[Side], split: str = "test", *, by: str | None = None) -> dict[str, Any]:
    """Everything that `distvae compare` tells, as JSON-able data. Raises NothingToCompareError."""
    panels = [curves.panels(curves.configs(side.table, split)) for side in sides]
    shared = [p for p in panels[0] if any(p in other for other in panels[1:])]
    if not shared:
        raise NothingToCompareError(_nothing(sides, panels, split))
    return {
        "split": split,
        "against": sides[0].name,
        "warnings": [*_protocols(sides, split, by), *_alone(sides, panels, shared)],
        "panels": [
            _panel(panel, [(side.name, found[panel]) for side, found in zip(sides, panels, strict=True) if panel in found])
            for panel in shared
        ],
    }  # fmt: skip


def _nothing(sides: Sequence[Side], panels: Sequence[dict[Any, Any]], split: str) -> str:
    has = "; ".join(
        f"{side.name} has {', '.join(f'{data} ({measure})' for data, measure in found) or 'no finished trial with a valid bound'}"
        for side, found in zip(sides, panels, strict=True)
    )
    return f"nothing to compare on the {split} split: {has} (distortions compare within one data set and measure only)"


def _alone(sides: Sequence[Side], panels: Sequence[dict[Any, Any]], shared: Sequence[Any]) -> Iterator[str]:
    for side, found in zip(sides, panels, strict=True):
        left = [f"{data} ({measure})" for data, measure in found if (data, measure) not in shared]
        if left:
            yield f"left out, of {side.name} alone: {', '.join(left)} (other measures and data do not compare)"


def _panel(panel: curves.Panel, groups: Sequence[tuple[str, list[Config]]]) -> dict[str, Any]:
    data, measure = panel
    reached = [_frontier(configs) for _, configs in groups]
    corner = max(r for f in reached for r, _ in f), max(d for f in reached for _, d in f)
    first, *others = groups
    return {
        "data": data,
        "measure": measure,
        "corner_nats": list(corner),
        "sides": [_side(name, configs, corner) for name, configs in groups],
        "differences": [
            {"side": name, **_differences(first[1], configs, corner), **_best_of(first[1], configs),
             "in_both": _in_both(first[1], configs)}
            for name, configs in others
        ],
    }  # fmt: skip


def _frontier(configs: Sequence[Config]) -> list[Point]:
    """(rate, distortion) means that no other beats in both, by increasing rate."""
    return _pareto([(c.rate.mean, c.distortion.mean) for c in configs])


def _pareto(points: Sequence[Point]) -> list[Point]:
    kept: list[Point] = []
    for p in sorted(points):
        if not kept or p[1] < kept[-1][1]:
            kept.append(p)
    return kept


def _side(name: str, configs: Sequence[Config], corner: Point) -> dict[str, Any]:
    frontier, best = _frontier(configs), _best(configs)
    return {
        "name": name,
        "configurations": len(configs),
        "seeds": sorted(_seeds(configs)),
        "frontier": [list(p) for p in frontier],
        "hull": [list(p) for p in lower_hull(frontier)],
        "hypervolume_nats2": hypervolume(frontier, corner),
        "best": best and {
            "config_key": best.config_key,
            "knobs": {k: v for k, v in best.knobs.items() if v is not None},
            "valid_elbo_nats": asdict(best.valid_elbo) if best.valid_elbo else None,
            "elbo_nats": asdict(best.elbo),
            "trial_keys": [p.trial_key for p in best.points],
        },
    }  # fmt: skip


def _best(configs: Sequence[Config]) -> Config | None:
    """The highest mean valid bound; None without a valid split."""
    ranked = [c for c in configs if c.valid_elbo is not None]
    return max(ranked, key=lambda c: c.valid_elbo.mean if c.valid_elbo else -math.inf, default=None)


# --- differences ------------------------------------------------------------------------------------------------------


def _differences(a: Sequence[Config], b: Sequence[Config], corner: Point) -> dict[str, Any]:
    """Of the curves of means, and seed by seed: {name: {of_means, by_seed, seeds, why}} and the common ranges."""
    means = _numbers(_means(a), _means(b), corner)
    shared = sorted(_seeds(a) & _seeds(b))
    each = {seed: _numbers(_of_seed(a, seed), _of_seed(b, seed), corner) for seed in shared}
    out: dict[str, Any] = {}
    for name, (_, _, why) in NUMBERS.items():
        paired = {seed: found[name] for seed, found in each.items() if found[name] is not None}
        out[name] = {
            "of_means": means[name],
            "by_seed": _interval(list(paired.values())),
            "seeds": list(paired),
            "why": means.get(why),
        }
    return {"rates": means["rates"], "distortions": means["distortions"], "shared_seeds": shared, "numbers": out}


def _means(configs: Sequence[Config]) -> list[Coded]:
    return [(c.rate.mean, c.distortion.mean, curves.mean_of(c, "distortion_mse")) for c in configs]


def _of_seed(configs: Sequence[Config], seed: int) -> list[Coded]:
    return [(p.rate, p.distortion, p.row["distortion_mse"]) for c in configs for p in c.points if p.seed == seed]


def _seeds(configs: Sequence[Config]) -> set[int]:
    return {p.seed for c in configs for p in c.points}


def _numbers(a: Sequence[Coded], b: Sequence[Coded], corner: Point) -> dict[str, Any]:
    plane, other = [p[:2] for p in a], [p[:2] for p in b]
    codec = codec_difference(_psnr(a), _psnr(b))
    return {
        **asdict(difference(plane, other)),
        "hypervolume_nats2": hypervolume(other, corner) - hypervolume(plane, corner),
        "codec_rate_percent": codec.rate_percent,
        "codec_psnr_db": codec.psnr_db,
        "no_codec_rate": codec.no_rate,
        "no_codec_psnr": codec.no_psnr,
    }


def _psnr(points: Sequence[Coded]) -> list[Point]:
    """(rate, PSNR of the mean squared error) that no other beats in both; the peak, here 1, cancels in differences."""
    coded = _pareto([(rate, mse) for rate, _, mse in points if mse and rate > 0])
    return [(rate, -10.0 * math.log10(mse)) for rate, mse in coded]


def _interval(values: Sequence[float]) -> dict[str, Any] | None:
    if not values:
        return None
    i = curves.interval(values)
    return {**asdict(i), "kind": i.kind}


def _best_of(a: Sequence[Config], b: Sequence[Config]) -> dict[str, Any]:
    """The bound of the best configuration minus that of the first side's best, seed by seed."""
    best = [_best(a), _best(b)]
    if best[0] is None or best[1] is None:
        return {"best_elbo_nats": {"of_means": None, "by_seed": None, "seeds": [], "why": "no valid split selects"}}
    by_seed = [{p.seed: p.elbo for p in c.points} for c in best if c]
    seeds = sorted(by_seed[0].keys() & by_seed[1].keys())
    return {
        "best_elbo_nats": {
            "of_means": best[1].elbo.mean - best[0].elbo.mean,
            "by_seed": _interval([by_seed[1][s] - by_seed[0][s] for s in seeds]),
            "seeds": seeds,
            "why": None,
        }
    }


def _in_both(a: Sequence[Config], b: Sequence[Config]) -> dict[str, Any]:
    """Configurations that both sides have, and how far the rows of their trials differ: nothing, up to rounding, under
    one protocol."""
    rows = [{(p.trial_key, p.point): p for c in configs for p in c.points} for configs in (a, b)]
    same = [(p, rows[1][key]) for key, p in rows[0].items() if key in rows[1]]
    apart = [max(abs(p.rate - q.rate), abs(p.distortion - q.distortion)) for p, q in same]
    keys = sorted({c.config_key for c in a} & {c.config_key for c in b})
    return {"config_keys": keys, "trials": len(same), "largest_difference_nats": max(apart, default=None)}


# --- protocols --------------------------------------------------------------------------------------------------------


def _protocols(sides: Sequence[Side], split: str, by: str | None) -> Iterator[str]:
    """What the sides do not share, and should for their difference to be of the models alone."""
    told = [_protocol(side.table, split) for side in sides]
    for name in dict.fromkeys(name for t in told for name in t):
        values = [t.get(name, set()) for t in told]
        if name != by and any(v != values[0] for v in values):
            each = "; ".join(f"{side.name}: {_listed(v)}" for side, v in zip(sides, values, strict=True))
            yield f"protocols differ in {name}: {each}"


def _listed(values: set[str]) -> str:
    some = sorted(values, key=lambda v: (len(v), v))
    return ", ".join(some[:6]) + (f", ... ({len(some)} values)" if len(some) > 6 else "") or "none"


def _protocol(table: pa.Table, split: str) -> dict[str, set[str]]:
    """Values, over a side's configurations, of what is not a property of the model: how long it trained, how it is
    evaluated, on what."""
    found: dict[str, set[str]] = defaultdict(set)
    keys = dict(zip(table["config_json"].to_pylist(), table["trial_key"].to_pylist(), strict=True))
    seen: Callable[[str, Any], None] = lambda name, value: found[name].add(str(value))  # noqa: E731
    for text, key in keys.items():
        try:
            trial = trial_from_json(text)
        except ValueError:  # pydantic's: of parts or knobs that this version does not have
            seen("protocol version", "one that this distvae does not know")
            continue
        seen("protocol version", "this distvae's" if trial.key == key else "another than this distvae's")
        seen("train.epochs", trial.train.epochs)
        seen("evaluate.samples", trial.evaluate.samples)
        for name, value in flatten({"data": {trial.data.label: canonical(trial.data)}}):
            if not name.endswith(".type"):
                seen(name, value)
    for row in table.select(["data", "split", "n_examples", "version"]).to_pylist():
        seen("version of distvae", row["version"])
        if row["split"] == split and row["n_examples"]:
            seen(f"examples of {row['data']}'s {split} split", row["n_examples"])
    return found
