"""What a dimension of z does to an image: E[x|z] from one example's z, one dimension moved, the others as they are.

Dimensions are ranked by the variance of the posterior means over the whole split (S1's released code ranks them by max -
min of the means over one batch, which grows with the batch and follows its outliers). A dimension goes from the 1st to
the 99th percentile of its aggregated posterior.

z on a sphere: a coordinate takes the values, and the others shrink or grow together so that |z| = 1: z turns in the plane
of that axis and the example's own direction. Bits are set to 0 and 1 in several examples; categories are decoded one by
one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distvae.kernels.philox import Stream, permutation
from distvae.plots.canvas import save
from distvae.plots.kind import Kind, Options
from distvae.plots.latents import MIDDLE, Dimensions, codes, dimensions, middle
from distvae.plots.model import Shown, choose, on_split
from distvae.plots.sheet import check_images, columns_for, images, sheet, show, stacked
from distvae.samplers.sampler import decode

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENDS = 3  # dimensions from either end of the ranking
COLUMNS = 11  # values of a dimension
EXAMPLES = 5  # in which a bit is flipped
CATEGORIES = 100  # decoded


def draw(out: Path, folder: Path, options: Options) -> list[Path]:
    shown = choose(out, options)
    check_images(shown)
    on_split(shown)
    path = shown.file(folder, "traversals")
    save(picture(shown, options.seed), path)
    return [path]


KIND = Kind(
    name="traversals",
    doc="images along the dimensions whose means vary most and least",
    of="trial",
    reads=("trial", "split", "seed"),
    draw=draw,
)


class Row(NamedTuple):
    """A row of the picture."""

    words: str
    z: Tensor  # [columns, Z]
    notes: list[str]  # one below each image


def picture(shown: Shown, seed: int) -> Figure:
    """Raises NothingToPlotError."""
    space = shown.trial.vae.posterior.space
    if space == "onehot":
        return _categories(shown)
    dims = dimensions(shown)
    examples = permutation(seed, len(shown.subject.split(shown.split)), stream=Stream.SAMPLE)
    if space == "bits":
        rows = bits(shown, dims, examples[:EXAMPLES])
        title = "bits set to 0 and 1, from each example's most likely code (•)"
        return _rows(shown, rows, examples[:EXAMPLES], title)
    rows = lines(shown, dims, examples[0])
    around = ", turned on the sphere" if space == "sphere" else ""
    title = f"dimensions from the 1st to the 99th percentile of q(z){around}, from an example's {MIDDLE[space]}"
    return _rows(shown, rows, examples[:1], title)


def ends(total: int) -> list[int]:
    """Places in the ranking that are shown: the first three and the last three."""
    return list(range(total)) if total <= 2 * ENDS else [*range(ENDS), *range(total - ENDS, total)]


def start(shown: Shown, rows: NDArray[np.int64]) -> Tensor:
    """The z `[B, Z]` in the middle of q(z|x) of examples of the split, float64."""
    q = shown.subject.posterior(shown.split)
    some = type(q)(*(t[torch.from_numpy(rows)] for t in q))
    return middle(some, shown.trial.vae.posterior.space).double()


def lines(shown: Shown, dims: Dimensions, example: int) -> list[Row]:
    """A dimension each, moved along the line (the circle, on a sphere)."""
    at, z = start(shown, np.array([example]))[0], codes(shown)[1]
    move = turned if shown.trial.vae.posterior.space == "sphere" else moved
    rows = []
    for k in ends(len(dims.number)):
        d = int(dims.number[k])
        low, high = np.percentile(z[:, d], [1, 99])
        values = np.linspace(low, high, COLUMNS)
        rows.append(Row(dims.words(k), move(at, d, torch.from_numpy(values)), [f"{v:.2f}" for v in values]))
    return rows


def moved(z: Tensor, d: int, values: Tensor) -> Tensor:
    """z `[Z]` with `values` `[V]` in dimension d: `[V, Z]`."""
    many = z.repeat(len(values), 1)
    many[:, d] = values
    return many


def turned(z: Tensor, d: int, values: Tensor) -> Tensor:
    """Unit z `[Z]` with `values` `[V]` in dimension d and the others scaled so that it stays one: `[V, Z]`."""
    rest = z.clone()
    rest[d] = 0.0
    if rest.norm() < 1e-12:  # at the pole every direction is as good
        rest[(d + 1) % len(z)] = 1.0
    many = (1.0 - values.square()).clamp_min(0).sqrt()[:, None] * (rest / rest.norm())
    many[:, d] = values
    return many


def bits(shown: Shown, dims: Dimensions, examples: NDArray[np.int64]) -> list[Row]:
    """A bit each: 0 and 1 in the code of each example."""
    codes, rows = start(shown, examples), []
    for k in ends(len(dims.number)):
        d = int(dims.number[k])
        z = torch.cat([moved(code, d, torch.tensor([0.0, 1.0], dtype=code.dtype)) for code in codes])
        notes = [f"{v}{' •' if code[d] == v else ''}" for code in codes for v in (0, 1)]
        rows.append(Row(dims.words(k), z, notes))
    return rows


def _rows(shown: Shown, rows: list[Row], examples: NDArray[np.int64], title: str) -> Figure:
    """The examples beside their reconstructions, and below them the rows."""
    from matplotlib.figure import Figure

    vae, n = shown.subject.vae, len(rows[0].z)
    x = images(shown, shown.subject.pixels(shown.split, examples))
    again = images(shown, decode(vae, start(shown, examples)))
    head = np.ones((n, *x.shape[1:]))
    head[0 : 2 * len(x) : 2], head[1 : 2 * len(x) : 2] = x, again
    decoded = images(shown, decode(vae, torch.cat([row.z for row in rows])))
    notes = [(["x", "E[x|z]"] * len(x))[:n], *(row.notes for row in rows)]
    _, _, h, w = decoded.shape
    below = math.ceil(0.34 * h)
    pixels = sheet(stacked(np.concatenate([head, decoded]), below=below), n)
    fig = Figure(figsize=(9.6, 8.2 * pixels.shape[0] / pixels.shape[1] + 0.9), layout="constrained")
    ax = fig.subplots()
    show(ax, pixels)
    for i, words in enumerate(["example", *(row.words for row in rows)]):
        top = i * (h + below + 1)
        ax.text(-0.15 * w, top + h / 2, words.replace("  ", "\n"), ha="right", va="center", fontsize=8)
        for j, note in enumerate(notes[i]):
            ax.text(j * (w + 1) + w / 2 - 0.5, top + h + 0.45 * below, note, ha="center", va="center", fontsize=7)
    fig.suptitle(shown.title(title), fontsize=9)
    return fig


def _categories(shown: Shown) -> Figure:
    """Every category decoded, by decreasing probability under q(z)."""
    from matplotlib.figure import Figure

    use = codes(shown)[0].mean(0)
    order = np.argsort(-use, kind="stable")[:CATEGORIES]
    decoded = images(
        shown, decode(shown.subject.vae, torch.eye(len(use), dtype=torch.float64)[torch.from_numpy(order)])
    )
    _, _, h, w = decoded.shape
    below = math.ceil(0.34 * h)
    columns = columns_for(len(order), (h + below) / w)
    pixels = sheet(stacked(decoded, below=below), columns)
    fig = Figure(figsize=(7.6, 7.4 * pixels.shape[0] / pixels.shape[1] + 0.9), layout="constrained")
    ax = fig.subplots()
    show(ax, pixels)
    for i, k in enumerate(order):
        row, column = divmod(i, columns)
        at = column * (w + 1) + w / 2 - 0.5, row * (h + below + 1) + h + 0.45 * below
        ax.text(*at, f"{k}: {100 * use[k]:.1f}%", ha="center", va="center", fontsize=7)
    some = f"the {len(order)} of {len(use)} categories most used" if len(order) < len(use) else f"{len(use)} categories"
    fig.suptitle(shown.title(f"E[x|z] of {some}, and how often q(z) takes each"), fontsize=9)
    return fig
