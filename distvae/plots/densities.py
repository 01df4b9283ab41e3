"""A dimension's aggregated posterior q(z_d) drawn over the prior's p(z_d) and its modes."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distvae.plots.canvas import OKABE_ITO
from distvae.plots.latents import codes, prior
from distvae.plots.marginals import aggregated_density, modes, prior_density
from distvae.plots.model import Shown

GRID = 400  # points of a density
LINES = 4  # more modes are ticks at the bottom
Q, P = OKABE_ITO[0], OKABE_ITO[4]  # colours of q(z) and p(z)


class Along(NamedTuple):
    """One dimension."""

    grid: NDArray[np.float64]  # [G] values of z_d
    q: NDArray[np.float64] | None  # [G] exact density of the aggregated posterior; None: a histogram of `draws`
    p: NDArray[np.float64] | None  # [G] the prior's; None where it is not known
    modes: list[float]  # of the prior
    draws: NDArray[np.float64]  # [N] one z_d ~ q an example


def along(shown: Shown, numbers: NDArray[np.int64]) -> list[Along]:
    """The dimensions `numbers` of z, over one range."""
    z, p = codes(shown)[1], prior(shown)
    places = {int(d): modes(p, d) for d in numbers}
    grid = _range(z[:, numbers], [m for some in places.values() for m in some], shown.trial.vae.posterior.space)
    every = np.repeat(grid[:, None], z.shape[1], 1)
    q, against = aggregated_density(shown.subject.posterior(shown.split), every), prior_density(p, every)
    return [
        Along(grid, None if q is None else q[:, d], None if against is None else against[:, d], places[int(d)], z[:, d])
        for d in numbers
    ]


def _range(z: NDArray[np.float64], places: list[float], space: str) -> NDArray[np.float64]:
    """What q covers (but for 2 in 1000), and the prior's modes with three standard deviations."""
    if space == "sphere":
        return np.linspace(-1, 1, GRID + 1)[:-1] + 1 / GRID  # not the ends, where a circle's density is infinite
    low, high = np.quantile(z, [0.001, 0.999])
    return np.linspace(min([low, *(m - 3.2 for m in places)]), max([high, *(m + 3.2 for m in places)]), GRID)


def draw_along(ax: Any, a: Along, *, upright: bool = False) -> None:
    """`upright`: z_d along y."""
    if a.q is None:
        bins = np.linspace(a.grid[0], a.grid[-1], int(np.clip(math.sqrt(len(a.draws)), 8, 60)) + 1)
        way = "horizontal" if upright else "vertical"
        ax.hist(
            a.draws, bins=bins, density=True, orientation=way, color=Q, alpha=0.45, label="aggregated posterior q(z)"
        )
    else:
        fill = ax.fill_betweenx if upright else ax.fill_between
        fill(a.grid, a.q, color=Q, alpha=0.35, lw=0, label="aggregated posterior q(z)")
        _line(ax, a.grid, a.q, upright, color=Q, lw=1.2)
    if a.p is not None:
        _line(ax, a.grid, a.p, upright, color=P, lw=1.4, ls="--", label="prior p(z)")
    for place in a.modes:
        few = len(a.modes) <= LINES
        line, end = (ax.axhline, "xmax") if upright else (ax.axvline, "ymax")
        style = {"color": "0.35", "lw": 0.9, "ls": ":" if few else "-", end: 1.0 if few else 0.12}
        line(place, label="the prior's modes", **style)
    tops = [d[np.isfinite(d)].max() for d in (a.q, a.p) if d is not None]
    if a.q is not None and tops:
        (ax.set_xlim if upright else ax.set_ylim)(0, 1.08 * max(tops))


def _line(ax: Any, grid: NDArray[np.float64], density: NDArray[np.float64], upright: bool, **style: Any) -> None:
    ax.plot(*((density, grid) if upright else (grid, density)), **style)


def told(axes: Any) -> tuple[list[Any], list[str]]:
    """(handles, labels) of what is drawn in the axes, each once."""
    found = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    return list(found.values()), list(found)
