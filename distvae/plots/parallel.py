"""Parallel coordinates: a line for each configuration through its knobs, rate, distortion and bound; the higher the
bound, the brighter the line, and the best is marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distvae.plots import canvas, knobs, sweep
from distvae.plots.kind import Kind, NothingToPlotError, Options
from distvae.plots.knobs import Value
from distvae.results.curves import Config

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 9  # knobs
TICKS = 12  # labels on an axis of levels
FAN = 0.05  # of an axis: lines that share a level lie that far apart at most, by rank


@dataclass(frozen=True)
class Scale:
    """One axis: where values lie on 0..1, and its ticks (position, label)."""

    label: str
    at: NDArray[np.float64]  # [configurations]
    ticks: list[tuple[float, str]]
    levels: bool  # of a few values, rather than of any number


def draw(out: Path, folder: Path, options: Options) -> list[Path]:
    return [canvas.save(figure(sweep.read(out), options), folder / "parallel.png")]


def figure(curve: sweep.Sweep, options: Options) -> Figure:
    panels = {panel: configs for panel, configs in curve.panels(options.split).items() if len(configs) > 1}
    if not panels:
        raise NothingToPlotError(f"{curve.out}: parallel coordinates compare configurations, and there is only one")
    axes_of = {panel: knobs.liveliest(configs)[:MOST] for panel, configs in panels.items()}
    widest = max(map(len, axes_of.values()))
    fig, axes = canvas.grid(len(panels), max(7.2, 1.35 * (widest + 3)), 4.4, columns=1)
    for ax, ((data, measure), configs) in zip(axes, panels.items(), strict=True):
        names = knobs.liveliest(configs)
        ranked, by = sweep.rank(configs)
        _lines(fig, ax, ranked, names[:MOST], by == "valid bound", options.split)
        left = f"; {len(names) - MOST} more knobs differ" if len(names) > MOST else ""
        ax.set_title(
            f"{data} ({measure}), {options.split} split, means over seeds: {sweep.protocol(configs)}{left}\n"
            f"black: the best by {by}" + (f"; {note}" if (note := curve.not_drawn(options.split)) else ""),
            fontsize=9,
        )
    return fig


def _lines(fig: Figure, ax: Axes, ranked: Sequence[Config], names: Sequence[str], valid: bool, split: str) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.colors import Normalize

    bound = [c.valid_elbo.mean if c.valid_elbo and valid else c.elbo.mean for c in ranked]
    scales = [
        *(_scale(knobs.called(n), knobs.column(ranked, n, "knob")) for n in names),
        _numbers(f"rate\n({split}, nats)", [c.rate.mean for c in ranked]),
        _numbers(f"distortion\n({split}, nats)", [c.distortion.mean for c in ranked]),
        _numbers(f"ELBO\n({'valid' if valid else split}, nats)", bound),
    ]
    fan = np.linspace(FAN, -FAN, len(ranked)) if len(ranked) > 1 else np.zeros(1)  # the best above
    ys = np.stack([s.at + fan * s.levels for s in scales], axis=1)  # [configurations, axes]
    xs = np.arange(len(scales))
    low, high = canvas.reach(bound)
    norm = Normalize(low, high if high > low else low + 1.0)
    lines = LineCollection(
        [np.column_stack([xs, y]) for y in ys[::-1]],  # the best last, on top
        array=np.asarray(bound[::-1]),
        cmap="viridis",
        norm=norm,
        lw=float(np.clip(60 / len(ranked), 0.5, 1.6)),
        alpha=float(np.clip(60 / len(ranked), 0.35, 0.9)),
    )
    ax.add_collection(lines)
    ax.plot(xs, ys[0], color=canvas.BLACK, lw=2.2, marker="o", ms=4, zorder=3, gid="best")
    for x, scale in enumerate(scales):
        ax.axvline(x, color="0.3", lw=0.8, zorder=2.5)
        for y, text in scale.ticks:
            ax.plot([x - 0.02, x + 0.02], [y, y], color="0.3", lw=0.8, zorder=2.5)
            box = {"fc": "w", "ec": "none", "alpha": 0.75, "pad": 0.6}
            ax.text(x + 0.04, y, text, fontsize=7, va="center", bbox=box, zorder=4)
    ax.set_xlim(-0.15, len(scales) - 0.6)
    ax.set_ylim(-0.09, 1.09)
    ax.set_xticks(xs, labels=[s.label for s in scales], fontsize=8)
    ax.tick_params(axis="x", length=0)
    ax.set_yticks([])
    for side in ax.spines.values():
        side.set_visible(False)
    bar = fig.colorbar(lines, ax=ax, pad=0.01, label=f"ELBO ({'valid' if valid else split}), nats per example")
    bar.solids.set_alpha(1.0)  # type: ignore[union-attr]


def _scale(label: str, values: Sequence[Value]) -> Scale:
    """A knob: its levels equally far apart where they are few, or text; else numbers. "none" is the lowest level."""
    numbers = sorted({v for v in values if isinstance(v, int | float)})
    texts = sorted({v for v in values if isinstance(v, str)})
    if texts or len(numbers) <= canvas.LEVELS:
        levels: list[Value] = [*[None] * (None in values), *texts, *numbers]
        place = {v: i / max(1, len(levels) - 1) for i, v in enumerate(levels)}
        every = -(-len(levels) // TICKS)
        ticks = [(place[v], knobs.short(v)) for v in levels[::every]]
        return Scale(label, np.array([place[v] for v in values]), ticks, True)
    scale = _numbers(label, [v for v in values if isinstance(v, int | float)])
    if None not in values:
        return scale
    at = iter(scale.at)
    return Scale(
        label, np.array([-0.08 if v is None else next(at) for v in values]), [(-0.08, "none"), *scale.ticks], False
    )


def _numbers(label: str, values: Sequence[float]) -> Scale:
    """Numbers on a linear axis, or a log axis where they span more; those very far off lie at its ends."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    low, high = canvas.reach(values)
    logs = canvas.wide(sorted(values)) and not label.startswith(("rate", "distortion", "ELBO"))
    ends = np.log([low, high]) if logs else np.array([low, high])
    span = ends[1] - ends[0] or 1.0
    place = np.asarray(values, dtype=np.float64)
    at = ((np.log(place) if logs else place) - ends[0]) / span
    marks = LogLocator(subs=(1.0, 3.0)).tick_values(low, high) if logs else MaxNLocator(6).tick_values(low, high)
    ticks = [(float(((np.log(m) if logs else m) - ends[0]) / span), f"{m:g}") for m in marks if low <= m <= high]
    beyond = [(1.06, "beyond")] * bool((at > 1).any()) + [(-0.06, "beyond")] * bool((at < 0).any())
    return Scale(label, np.where(at > 1, 1.06, np.where(at < 0, -0.06, at)), ticks + beyond, False)


KIND = Kind("parallel", "parallel coordinates of knobs, rate, distortion and bound", "sweep", ("split",), draw)
