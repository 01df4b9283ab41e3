"""Points coloured by their class: Okabe and Ito's eight colours, Petroff's ten ("Accessible color sequences", 2021), both
chosen for colour blindness; with more classes no colours can be told apart, and viridis runs over their numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distvae.plots.canvas import BLACK, OKABE_ITO

EIGHT = (*OKABE_ITO[:-1], BLACK, OKABE_ITO[-1])
PETROFF = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadb",
)  # fmt: skip
PLAIN = OKABE_ITO[0]  # without classes


def scatter(
    ax: Any, xy: NDArray[np.float64], y: NDArray[np.int64] | None, classes: NDArray[np.int64] | None, **style: Any
) -> Any:
    """Points `[n, 2]` of classes `y` `[n]`, in the order given: no class lies above another. Returns the artist."""
    style = {"s": 6, "lw": 0, "alpha": 0.7, "rasterized": True, **style}
    if y is None or classes is None:
        return ax.scatter(*xy.T, color=PLAIN, **style)
    if len(classes) > len(PETROFF):
        return ax.scatter(*xy.T, c=y, cmap="viridis", vmin=classes[0], vmax=classes[-1], **style)
    return ax.scatter(*xy.T, c=[colour(classes)(c) for c in y], **style)


def colour(classes: NDArray[np.int64]) -> Callable[[int], str]:
    """Class -> its colour, for at most ten."""
    palette = EIGHT if len(classes) <= len(EIGHT) else PETROFF
    return dict(zip(classes.tolist(), palette, strict=False)).__getitem__


def legend(fig: Any, artist: Any, classes: NDArray[np.int64] | None, axes: Any) -> None:
    """Beside the axes: the classes' colours, or a scale of their numbers."""
    from matplotlib.lines import Line2D

    if classes is None:
        return
    if len(classes) > len(PETROFF):
        fig.colorbar(artist, ax=axes, label=f"class, of {len(classes)}", pad=0.02).solids.set_alpha(1)
        return
    name = colour(classes)
    dots = [Line2D([], [], marker="o", ls="", ms=6, color=name(c), label=str(c)) for c in classes.tolist()]
    fig.legend(handles=dots, title="class", loc="outside right center", fontsize=9, frameon=False)
