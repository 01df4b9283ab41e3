"""UMAP (McInnes et al. 2018) of the posterior means, by class. Distances between far clusters mean nothing in it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distvae.kernels.philox import Stream, permutation
from distvae.plots.canvas import save
from distvae.plots.classes import PETROFF, legend, scatter
from distvae.plots.kind import Kind, NothingToPlotError, Options
from distvae.plots.latents import codes
from distvae.plots.model import Shown, choose, on_split

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS = 2000  # embedded: 8 s on one core, after 21 s of compilation by numba (5000: 60 s)
NEIGHBOURS = 15
MIN_DIST = 0.1
LEAST = 5  # examples


def draw(out: Path, folder: Path, options: Options) -> list[Path]:
    shown = on_split(choose(out, options))
    path = shown.file(folder, "umap")
    save(picture(shown, options.seed), path)
    return [path]


KIND = Kind(
    name="umap",
    doc="UMAP of the posterior means, by class",
    of="trial",
    reads=("trial", "split", "seed"),
    draw=draw,
)


def embed(means: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """`[n, 2]` of means `[n, Z]`; the same for the same seed. Raises NothingToPlotError without umap-learn."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)  # only its parametric form's
            from umap import UMAP
    except ImportError as e:
        raise NothingToPlotError("umap: umap-learn is not installed (pip install umap-learn)") from e
    neighbours = min(NEIGHBOURS, len(means) - 1)
    fixed: dict[str, Any] = {"random_state": seed % 2**32, "n_jobs": 1}  # one thread: only so is it the same every time
    return np.asarray(UMAP(n_neighbors=neighbours, min_dist=MIN_DIST, **fixed).fit_transform(means), dtype=np.float64)


def picture(shown: Shown, seed: int) -> Figure:
    """Raises NothingToPlotError."""
    from matplotlib.figure import Figure

    means, y = codes(shown)[0], shown.subject.labels(shown.split)
    if len(means) < LEAST:
        raise NothingToPlotError(f"--split: {shown.split!r} has {len(means)} examples; UMAP needs {LEAST}")
    rows = permutation(seed, len(means), stream=Stream.SAMPLE)[:POINTS]
    at = embed(means[rows], seed)
    classes = None if y is None else np.unique(y)
    fig = Figure(figsize=(7.8, 7.2), layout="constrained")
    ax = fig.subplots()
    artist = scatter(ax, at, None if y is None else y[rows], classes, s=10)
    if y is not None and classes is not None and len(classes) <= len(PETROFF):
        _names(ax, at, y[rows], classes)
    legend(fig, artist, classes, ax)
    ax.set_xlabel("UMAP 1, no unit", fontsize=8)
    ax.set_ylabel("UMAP 2, no unit", fontsize=8)
    ax.set_xticks([])
    ax.set_yticks([])
    some = f"{len(rows)} of {len(means)}" if len(rows) < len(means) else f"{len(means)}"
    how = f"n_neighbors={min(NEIGHBOURS, len(rows) - 1)} min_dist={MIN_DIST:g} euclidean, seed {seed}"
    plane = "\nlatent_dim 2: the plane itself is --kind pairs" if means.shape[1] == 2 else ""
    fig.suptitle(shown.title(f"UMAP of the posterior means of {some} examples, {how}") + plane, fontsize=9)
    return fig


def _names(ax: Any, at: NDArray[np.float64], y: NDArray[np.int64], classes: NDArray[np.int64]) -> None:
    """Each class's number at the median of its points."""
    from matplotlib.patheffects import withStroke

    for c in classes:
        if (y == c).any():
            x0, y0 = np.median(at[y == c], 0)
            around = [withStroke(linewidth=3, foreground="w")]
            ax.text(x0, y0, str(c), ha="center", va="center", fontsize=13, weight="bold", path_effects=around)
