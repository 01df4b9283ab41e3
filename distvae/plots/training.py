"""Training curves: a metric against the epoch, a line for each configuration (mean over seeds, with their interval),
the best by valid bound in colour, its splits by the kind of line; the others thin and grey. What a scheduler stopped ends
at a cross."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distvae.plots import canvas, knobs, sweep
from distvae.plots.kind import Kind, NothingToPlotError, Options
from distvae.results import curves
from distvae.results.curves import Config, Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINES = 12  # in colour: configurations times splits
STYLES = {"test": "-", "valid": "--", "train": ":"}
Key = tuple[str, int]  # config_key, point of a beta-input model
Curve = list[tuple[int, Interval]]  # by epoch, over the seeds


@dataclass(frozen=True)
class Course:
    """A configuration's curve by split, and whether a scheduler stopped it."""

    key: Key
    splits: dict[str, Curve]
    stopped: bool


@dataclass
class _Way:
    """What a configuration's seeds measured: split -> epoch -> values."""

    values: dict[str, dict[int, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    stopped: bool = False

    def course(self, key: Key) -> Course | None:
        """None if no split has two epochs."""
        splits = {
            split: [(e, curves.interval(v)) for e, v in sorted(epochs.items())] for split, epochs in self.values.items()
        }
        return Course(key, splits, self.stopped) if any(len(line) > 1 for line in splits.values()) else None


def draw(out: Path, folder: Path, options: Options) -> list[Path]:
    return [canvas.save(figure(sweep.read(out), options), folder / "training.png")]


def figure(curve: sweep.Sweep, options: Options) -> Figure:
    from matplotlib.ticker import MaxNLocator

    label = curve.metric(options.value)
    panels = courses(curve, options.value)
    if not panels:
        raise NothingToPlotError(
            f"{curve.out}: no trial has {options.value} at two epochs or more (evaluate.every says how often it is measured)"
        )
    ranked = _ranked(curve)
    fig, axes = canvas.grid(len(panels), height=5.2)
    for ax, ((data, measure), found) in zip(axes, panels.items(), strict=True):
        best, by = ranked.get((data, measure), ([], "bound"))
        _draw(ax, found, best)
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_ylabel(label)
        shown = min(len(best), _most(found))
        stopped = sum(c.stopped for c in found)
        ax.set_title(
            f"{data} ({measure}): {len(found)} configurations, means over seeds\n"
            f"in colour: the best {shown} by {by}{_bands(found)}" + (f"; {stopped} stopped (×)" if stopped else ""),
            fontsize=9,
        )
    if note := _not_drawn(curve):
        fig.suptitle(note, fontsize=8, color="0.35")
    return fig


def courses(curve: sweep.Sweep, value: str) -> dict[curves.Panel, list[Course]]:
    """The ways of what finished or was stopped, by (data, measure); those with two epochs or more on some split."""
    columns = ("trial_key", "config_key", "point", "split", "epoch", "data", "measure", value)
    ways: dict[curves.Panel, dict[Key, _Way]] = defaultdict(lambda: defaultdict(_Way))
    for key, config, point, split, epoch, data, measure, v in zip(
        *(curve.table[c].to_pylist() for c in columns), strict=True
    ):
        if curve.status[key] in ("finished", "stopped") and v is not None:
            way = ways[data, measure or "no density"][config, point]
            way.values[split][epoch].append(v)
            way.stopped |= curve.status[key] == "stopped"
    panels = {panel: [c for key, way in found.items() if (c := way.course(key))] for panel, found in ways.items()}
    return {panel: found for panel, found in sorted(panels.items()) if found}


def _ranked(curve: sweep.Sweep) -> dict[curves.Panel, tuple[list[Config], str]]:
    try:
        return {panel: sweep.rank(configs) for panel, configs in curve.panels("test").items()}
    except NothingToPlotError:
        return {}


def _most(found: Sequence[Course]) -> int:
    """How many configurations are in colour."""
    splits = max(len(c.splits) for c in found)
    return min(LINES // splits, len(canvas.OKABE_ITO))


def _draw(ax: Axes, found: Sequence[Course], best: Sequence[Config]) -> None:
    by_key = {c.key: c for c in found}
    chosen = [c for c in best if (c.config_key, c.points[0].point) in by_key][: _most(found)]
    names = knobs.liveliest(best) if best else []
    colours = {(c.config_key, c.points[0].point): hue for c, hue in zip(chosen, canvas.OKABE_ITO, strict=False)}
    labels = {(c.config_key, c.points[0].point): knobs.label(c, names) or "the configuration" for c in chosen}
    drawn = [s for s in STYLES if any(s in c.splits for c in found)]
    ends: list[float] = []
    for course in sorted(found, key=lambda c: list(colours).index(c.key) if c.key in colours else len(colours)):
        hue = colours.get(course.key)
        for split in drawn if hue else drawn[:1]:
            if line := course.splits.get(split):
                _line(ax, line, split, hue, labels.get(course.key) if split == drawn[0] else None, len(found))
                ends += [i.mean for e, i in line[max(1, len(line) // 4) :]]
                if course.stopped and split == drawn[0]:
                    ax.plot(line[-1][0], line[-1][1].mean, "x", ms=4, color=hue or "0.5", gid="stopped")
    low, high = canvas.reach(ends)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    ax.set_ylim(low - margin, high + margin)
    for split in drawn:
        ax.plot([], [], STYLES[split], color="k", lw=1.2, label=split)
    if len(found) > len(chosen):
        ax.plot([], [], color="0.75", lw=0.7, label=f"the others ({drawn[0]})")
    ax.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)


def _bands(found: Sequence[Course]) -> str:
    seeds = max(i.seeds for c in found for line in c.splits.values() for _, i in line)
    return ", with 95% CI" if seeds >= 3 else ", with the range" if seeds == 2 else ""


def _line(ax: Axes, line: Curve, split: str, hue: str | None, label: str | None, crowd: int) -> None:
    x, mean = [e for e, _ in line], [i.mean for _, i in line]
    if hue is None:
        alpha = float(np.clip(40 / crowd, 0.25, 0.8))
        ax.plot(x, mean, color="0.7", lw=0.6, alpha=alpha, zorder=1, gid="other")
        return
    ax.plot(x, mean, STYLES[split], color=hue, lw=1.5, zorder=3, label=label, gid=split)
    if split == next(iter(STYLES)):
        ax.fill_between(x, [i.low for _, i in line], [i.high for _, i in line], color=hue, alpha=0.15, lw=0, zorder=2)


def _not_drawn(curve: sweep.Sweep) -> str:
    counts = {s: sum(v == s for v in curve.status.values()) for s in ("diverged", "failed")}
    told = ", ".join(f"{n} {status}" for status, n in counts.items() if n)
    return f"not drawn: {told} (trials)" if told else ""


KIND = Kind("training", "a metric against the epoch, the best configurations in colour", "sweep", ("value",), draw)
