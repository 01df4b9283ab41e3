"""What the pictures share: figures, colours that survive colour blindness and grey print, axes that outliers do not
own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distvae.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

DPI = 150
OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442")  # Okabe and Ito 2008
BLACK, GREY = "#000000", "#999999"
MARKERS = "osD^vP*X"
LEVELS = 8  # more values than that are a scale, not a list
FAR = 6.0  # interquartile ranges beyond the quartiles where axes end
COLUMNS = 3  # panels side by side


def grid(n: int, width: float = 7.2, height: float = 4.8, columns: int = COLUMNS) -> tuple[Figure, list[Axes]]:
    """A figure of `n` panels of this size in inches, by rows."""
    from matplotlib.figure import Figure

    columns = min(n, columns)
    rows = math.ceil(n / columns)
    fig = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = list(np.atleast_1d(fig.subplots(rows, columns)).ravel())
    for spare in axes[n:]:
        spare.remove()
    return fig, axes[:n]


def save(fig: Figure, path: Path) -> Path:
    """Write the PNG, whole or not at all."""
    with replacing(path) as f:
        fig.savefig(f, dpi=DPI, format="png")
    return path


def legend(ax: Axes) -> None:
    """In the upper right corner, where a rate-distortion curve has no points; below the axes if it is long."""
    _, labels = ax.get_legend_handles_labels()
    if len(labels) <= 5:
        ax.legend(fontsize=7, framealpha=0.85, loc="upper right")
    elif labels:
        ax.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)


def reach(values: Sequence[float]) -> tuple[float, float]:
    """(low, high) of the values without those very far from the middle half."""
    v = np.asarray(values, dtype=np.float64)
    low, high = np.percentile(v, [25, 75])
    far = FAR * (high - low) if high > low else np.inf
    near = v[(v >= low - far) & (v <= high + far)]
    return float(near.min()), float(near.max())


def ink(rgba: Sequence[float]) -> str:
    """Black or white: what can be read on this colour (relative luminance, WCAG 2.1)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgba[:3]]
    return "k" if 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.179 else "w"


def wide(levels: Sequence[float]) -> bool:
    """Do positive levels span so much that they belong on a log scale?"""
    return len(levels) > 1 and levels[0] > 0 and levels[-1] / levels[0] > 20


@dataclass(frozen=True)
class Shades:
    """Colours of numbers: viridis, in steps where there are few levels. No number is grey."""

    values: tuple[float | None, ...]

    @cached_property
    def levels(self) -> list[float]:
        return sorted({v for v in self.values if v is not None})

    @property
    def few(self) -> bool:
        return 1 < len(self.levels) <= LEVELS

    @cached_property
    def norm(self) -> Normalize:
        from matplotlib.colors import LogNorm, Normalize

        if self.few:
            return Normalize(-0.5, len(self.levels) - 0.5)
        low, high = (self.levels[0], self.levels[-1]) if self.levels else (0.0, 0.0)
        return LogNorm(low, high) if wide(self.levels) else Normalize(low, high if high > low else low + 1)

    @cached_property
    def map(self) -> Colormap:
        from matplotlib import colormaps

        return colormaps["viridis"].resampled(len(self.levels)) if self.few else colormaps["viridis"]

    def of(self, value: float | None) -> Any:
        """RGBA of a value."""
        if value is None:
            from matplotlib.colors import to_rgba

            return to_rgba(GREY)
        return self.map(self.norm(self.levels.index(value) if self.few else value))

    def bar(self, fig: Figure, ax: Axes, label: str) -> None:
        """The colour bar, if there is more than one level."""
        from matplotlib.cm import ScalarMappable

        if len(self.levels) > 1:
            bar = fig.colorbar(ScalarMappable(self.norm, self.map), ax=ax, label=label, pad=0.02)
            if self.few:
                bar.set_ticks(list(range(len(self.levels))), labels=[f"{v:g}" for v in self.levels])
                bar.minorticks_off()
