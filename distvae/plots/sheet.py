"""Sheets of images: many small ones as one array, so that a picture of thousands stays one image."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from distvae.plots.kind import NothingToPlotError
from distvae.plots.model import Shown

Images = NDArray[np.floating[Any]]  # [n, 1 or 3, H, W] in [0, 1]


def check_images(shown: Shown) -> None:
    """Raises NothingToPlotError if one x is not an image."""
    shape = shown.subject.vae.x_shape
    if len(shape) != 3 or shape[0] not in (1, 3):
        label = shown.trial.data.label
        raise NothingToPlotError(f"the {label} data are not pictures: one x is of shape {shape}")


def images(shown: Shown, x: Tensor) -> Images:
    """Pixels `[n, *x_shape]` as they are shown. Raises NothingToPlotError if a model's are not finite."""
    if not x.isfinite().all():
        raise NothingToPlotError(f"trial {shown.trial.key} draws images that are not finite: it has diverged")
    return x.clamp(0, 1).cpu().double().numpy()


def columns_for(n: int, aspect: float = 1.0) -> int:
    """Columns that make a sheet of `n` about square; `aspect` is the height of one over its width."""
    return max(1, min(n, math.ceil(math.sqrt(n * aspect))))


def sheet(images: Images, columns: int | None = None) -> Images:
    """Images `[n, C, H, W]` by rows on a sheet `[rows (H + 1) - 1, columns (W + 1) - 1, C]`, a white pixel between
    two."""
    n, channels, h, w = images.shape
    columns = columns or columns_for(n)
    rows = math.ceil(n / columns)
    cells = np.ones((rows * columns, channels, h + 1, w + 1))
    cells[:n, :, :h, :w] = images
    cells = cells.reshape(rows, columns, channels, h + 1, w + 1).transpose(0, 3, 1, 4, 2)
    return cells.reshape(rows * (h + 1), columns * (w + 1), channels)[:-1, :-1]


def stacked(*rows: Images, below: int = 0) -> Images:
    """Images of the same examples above one another, a white pixel between two and `below` white rows under them:
    `[n, C, len(rows) (H + 1) - 1 + below, W]`."""
    n, channels, _, w = rows[0].shape
    line, space = np.ones((n, channels, 1, w)), np.ones((n, channels, below, w))
    parts = [part for row in rows for part in (row, line)]
    return np.concatenate([*parts[:-1], space], axis=2)


def show(ax: Any, pixels: Images) -> None:
    """A sheet `[H, W, C]` without axes."""
    ax.imshow(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=1)
    ax.set_axis_off()
