"""Latent pair plot: one z ~ q(z|x) an example in the planes of the dimensions of largest variance, by class; beside them
q(z_d) and the prior's p(z_d)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distvae.kernels.philox import Stream, permutation
from distvae.plots.canvas import save
from distvae.plots.classes import legend, scatter
from distvae.plots.densities import along, draw_along, told
from distvae.plots.kind import Kind, NothingToPlotError, Options
from distvae.plots.latents import codes, dimensions
from distvae.plots.model import Shown, choose, on_split

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 4  # dimensions
POINTS = 2000  # drawn in a plane
REFUSED = {
    "bits": "a pair of bits has four values (draw --kind aggregated, traversals or umap)",
    "onehot": "one category has no pairs of dimensions (draw --kind aggregated, traversals or umap)",
}


def draw(out: Path, folder: Path, options: Options) -> list[Path]:
    shown = on_split(choose(out, options))
    path = shown.file(folder, "pairs")
    save(picture(shown, options.seed), path)
    return [path]


KIND = Kind(
    name="pairs",
    doc="latents in the planes of the (up to 4) dimensions of largest variance, by class",
    of="trial",
    reads=("trial", "split", "seed"),
    draw=draw,
)


def picture(shown: Shown, seed: int) -> Figure:
    """Raises NothingToPlotError."""
    from matplotlib.figure import Figure

    space, key = shown.trial.vae.posterior.space, shown.trial.key
    if space in REFUSED:
        raise NothingToPlotError(f"trial {key} ({shown.trial.vae.posterior.type} posterior): {REFUSED[space]}")
    dims = dimensions(shown)
    k = min(MOST, len(dims.number))
    if k < 2:
        raise NothingToPlotError(f"trial {key}: its one dimension has no pairs (draw --kind aggregated)")
    z, y = codes(shown)[1][:, dims.number[:k]], shown.subject.labels(shown.split)
    rows = permutation(seed, len(z), stream=Stream.SAMPLE)[:POINTS]
    fig = Figure(figsize=(7.8, 7.4) if k == 2 else (9.4, 9.0), layout="constrained")
    planes, beside = _plane(fig) if k == 2 else _matrix(fig, k)
    names, found = [dims.words(i) for i in range(k)], along(shown, dims.number[:k])
    classes = None if y is None else np.unique(y)
    artist = None
    for (i, j), ax in planes.items():
        artist = scatter(ax, z[rows][:, [j, i]], None if y is None else y[rows], classes, s=20 if k == 2 else 8)
        ax.set_xlim(found[j].grid[0], found[j].grid[-1])
        ax.set_ylim(found[i].grid[0], found[i].grid[-1])
        _label(ax, names[j] if i == k - 1 else None, names[i] if j == 0 else None)
    for i, ax in enumerate(beside):
        draw_along(ax, found[i], upright=k == 2 and i == 1)
        ax.tick_params(labelsize=7)
    if k > 2:
        for ax, a in zip(beside, found, strict=True):
            ax.set_xlim(a.grid[0], a.grid[-1])
        beside[-1].set_xlabel(names[-1], fontsize=8)
        beside[0].set_ylabel("density", fontsize=8)
    legend(fig, artist, classes, fig.axes)
    fig.legend(*told(beside), loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    some = f"{len(rows)} of {len(z)}" if len(rows) < len(z) else f"{len(z)}"
    most = (
        f"the {k} of {len(dims.number)} dimensions of largest variance"
        if k < len(dims.number)
        else f"all {k} dimensions"
    )
    fig.suptitle(shown.title(f"latents, one z ~ q(z|x) of each of {some} examples: {most}"), fontsize=9)
    return fig


Planes = dict[tuple[int, int], Any]  # (dimension along y, along x) -> axes


def _plane(fig: Figure) -> tuple[Planes, list[Axes]]:
    """The plane of two dimensions, a density along each side."""
    grid = fig.add_gridspec(2, 2, width_ratios=(4, 1), height_ratios=(1, 4))
    ax = fig.add_subplot(grid[1, 0])
    above, beside = fig.add_subplot(grid[0, 0], sharex=ax), fig.add_subplot(grid[1, 1], sharey=ax)
    above.tick_params(labelbottom=False)
    beside.tick_params(labelleft=False)
    above.set_ylabel("density", fontsize=8)
    beside.set_xlabel("density", fontsize=8)
    return {(1, 0): ax}, [above, beside]


def _matrix(fig: Figure, k: int) -> tuple[Planes, list[Axes]]:
    """The planes below the diagonal, densities on it."""
    axes = fig.subplots(k, k)
    for i, j in zip(*np.triu_indices(k, 1), strict=True):
        axes[i, j].set_axis_off()
    return {(i, j): axes[i, j] for i in range(k) for j in range(i)}, [axes[i, i] for i in range(k)]


def _label(ax: Axes, x: str | None, y: str | None) -> None:
    ax.tick_params(labelsize=7, labelbottom=x is not None, labelleft=y is not None)
    if x is not None:
        ax.set_xlabel(x, fontsize=8)
    if y is not None:
        ax.set_ylabel(y, fontsize=8)
