"""Heat maps of a metric over two knobs. A cell is its best configuration by valid bound, the metric's mean over seeds,
with the half width of its 95% confidence interval from three seeds on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distvae.plots import canvas, knobs, sweep
from distvae.plots.kind import Kind, NothingToPlotError, Options
from distvae.plots.knobs import Value
from distvae.results import curves
from distvae.results.curves import Config, Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 12  # more numbers than that along an axis are put into bins,
BINS = 8  # so many


def draw(out: Path, folder: Path, options: Options) -> list[Path]:
    return [canvas.save(figure(sweep.read(out), options), folder / "heat.png")]


def figure(curve: sweep.Sweep, options: Options) -> Figure:
    label = curve.metric(options.value)
    panels = curve.measured(options.split, options.value)
    if not panels:
        curve.panels(options.split)  # says so if nothing has a bound either
        raise NothingToPlotError(f"{curve.out}: {options.value} was not measured on the {options.split} split")
    x, y = _axes([c for configs in panels.values() for c in configs], options)
    shown = {panel: found for panel, configs in panels.items() if (found := _having(configs, x, y))}
    if not shown:
        raise NothingToPlotError(f"{curve.out}: {options.value} was measured of nothing that has {x} or {y}")
    cells = {panel: _cells(configs, x, y, options.value) for panel, configs in shown.items()}
    wide = max(len(xs) for xs, _, _ in cells.values())
    high = max(len(ys) for _, ys, _ in cells.values())
    fig, axes = canvas.grid(len(shown), max(7.2, 0.85 * wide + 2.0), max(4.8, 0.45 * high + 1.5))
    for ax, ((data, measure), configs) in zip(axes, shown.items(), strict=True):
        xs, ys, shown_in = cells[data, measure]
        _heat(fig, ax, xs, ys, shown_in, label)
        ax.set_xlabel(knobs.called(x))
        ax.set_ylabel(knobs.called(y))
        seeds = {c.seeds for c in configs}
        of = "mean over seeds" + (" ± half the 95% CI" if max(seeds) >= 3 else "") if max(seeds) > 1 else "1 seed"
        chosen = len(configs) > len(shown_in)  # has a cell several configurations?
        which = f"in each cell the best configuration by {sweep.rank(configs)[1]},\n" if chosen else ""
        ax.set_title(
            f"{data}{f' ({measure})' if measure else ''}, {options.split} split, {sweep.protocol(configs)}\n"
            f"{options.value}: {which}{of}" + "; grey: none" * (len(shown_in) < len(xs) * len(ys)),
            fontsize=9,
        )
    return fig


def _axes(configs: Sequence[Config], options: Options) -> tuple[str, str]:
    """The knobs of the two axes: those asked for, else the liveliest."""
    for name, option in ((options.x, "--x"), (options.y, "--y")):
        if name is not None:
            knobs.column(configs, name, option)
    given = [name for name in (options.x, options.y) if name is not None]
    free = [name for name in knobs.liveliest(configs) if name not in map(knobs.dotless, given)]
    if len(given) + len(free) < 2:
        raise NothingToPlotError(
            f"a heat map is over two knobs, and {'only ' + free[0] if free else 'no other'} has more than one value here "
            "(name them with --x and --y)"
        )
    return options.x or free.pop(0), options.y or free.pop(0)


def _having(configs: list[Config], x: str, y: str) -> list[Config]:
    names = {s.get(knobs.dotless(k)) for c in configs for s in (knobs.settings(c),) for k in (x, y)}
    return configs if names - {None} else []


def _cells(
    configs: Sequence[Config], x: str, y: str, value: str
) -> tuple[list[str], list[str], dict[tuple[int, int], Interval]]:
    """Labels along x and y, and (row, column) -> the metric of the cell's best configuration."""
    ranked, _ = sweep.rank(configs)
    (xs, columns), (ys, rows) = (_levels(knobs.column(ranked, k, f"--{o}")) for k, o in ((x, "x"), (y, "y")))
    cells: dict[tuple[int, int], Interval] = {}
    for c, i, j in zip(ranked, rows, columns, strict=True):
        if (i, j) not in cells:
            cells[i, j] = curves.interval([p.row[value] for p in c.points])
    return xs, ys, cells


def _levels(values: Sequence[Value]) -> tuple[list[str], list[int]]:
    """Labels of the levels in order, "none" last, and each value's level. Many numbers are put into bins."""
    texts, numbers = ([v for v in values if isinstance(v, kind)] for kind in (str, int | float))
    levels: list[Any] = sorted(set(texts)) or sorted(set(numbers))
    if not texts and len(levels) > MOST:
        edges = np.geomspace(levels[0], levels[-1], BINS + 1) if canvas.wide(levels) else np.linspace(
            levels[0], levels[-1], BINS + 1
        )  # fmt: skip
        labels = [f"{a:.3g} to {b:.3g}" for a, b in pairwise(edges)]
        at = [BINS if v is None else min(int(np.searchsorted(edges, v, "right")) - 1, BINS - 1) for v in values]
    else:
        labels = [knobs.short(v) for v in levels]
        at = [len(levels) if v is None else levels.index(v) for v in values]
    return labels + ["none"] * (None in values), at


def _heat(
    fig: Figure, ax: Axes, xs: list[str], ys: list[str], cells: dict[tuple[int, int], Interval], label: str
) -> None:
    grid = np.full((len(ys), len(xs)), np.nan)
    for at, i in cells.items():
        grid[at] = i.mean
    low, high = canvas.reach([i.mean for i in cells.values()])
    image = ax.imshow(grid, origin="lower", aspect="auto", cmap="viridis", vmin=low, vmax=high)
    ax.set_facecolor("0.92")
    write = _writer([i.mean for i in cells.values()])
    size = 9 if len(xs) <= 8 else 7
    for (row, column), v in np.ndenumerate(grid):
        if np.isfinite(v):
            i = cells[row, column]
            text = write(i.mean) + (f"\n±{write(i.high - i.mean)}" if i.seeds >= 3 else "")
            color = canvas.ink(tuple(image.cmap(image.norm(v))))
            ax.text(column, row, text, ha="center", va="center", fontsize=size, color=color)
    turned = max(map(len, xs)) > 80 / len(xs)
    ax.set_xticks(range(len(xs)), labels=xs, rotation=30 if turned else 0, ha="right" if turned else "center")
    ax.set_yticks(range(len(ys)), labels=ys)
    outside = {(True, True): "both", (True, False): "min", (False, True): "max"}
    extend = outside.get((bool(np.nanmin(grid) < low), bool(np.nanmax(grid) > high)), "neither")
    fig.colorbar(image, ax=ax, label=label, pad=0.02, extend=extend)


def _writer(values: Sequence[float]) -> Any:
    """How numbers are written, so that those of one map can be told apart."""
    span = max(values) - min(values) or abs(max(values)) or 1.0
    if max(map(abs, values)) >= 1e5 or span < 1e-5:
        return lambda v: f"{v:.3g}"
    decimals = max(1 if max(map(abs, values)) < 1000 else 0, 1 - math.floor(math.log10(span)))
    return lambda v: f"{v:.{decimals}f}"


KIND = Kind("heat", "a metric over two knobs", "sweep", ("x", "y", "value", "split"), draw)
