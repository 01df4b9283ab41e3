"""The aggregated posterior q(z_d) = 1/N sum_i q(z_d|x_i) of each dimension against the prior p(z_d) and its modes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distvae.plots.canvas import save
from distvae.plots.densities import P, Q, along, draw_along, told
from distvae.plots.kind import Kind, Options
from distvae.plots.latents import ACTIVE, codes, dimensions, prior
from distvae.plots.model import Shown, choose, on_split

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = 24  # dimensions with a panel of their own
BARS = 100  # bits or categories


def draw(out: Path, folder: Path, options: Options) -> list[Path]:
    shown = on_split(choose(out, options))
    path = shown.file(folder, "aggregated")
    save(picture(shown), path)
    return [path]


KIND = Kind(
    name="aggregated",
    doc="aggregated posterior q(z) of each dimension against the prior and its modes",
    of="trial",
    reads=("trial", "split"),
    draw=draw,
)


def picture(shown: Shown) -> Figure:
    """Raises NothingToPlotError."""
    return _bars(shown) if shown.trial.vae.posterior.space in ("bits", "onehot") else _panels(shown)


def _panels(shown: Shown) -> Figure:
    """A panel for each dimension, by decreasing variance of its means."""
    from matplotlib.figure import Figure

    dims, n = dimensions(shown), len(codes(shown)[0])
    total = len(dims.number)
    kept = min(PANELS, total)
    found = along(shown, dims.number[:kept])
    across = kept if kept <= 3 else 2 if kept == 4 else 3 if kept <= 9 else 4 if kept <= 16 else 6
    down = math.ceil(kept / across)
    fig = Figure(figsize=(max(6.5, 2.8 * across), 2.0 * down + 1.3), layout="constrained")
    axes = list(np.atleast_1d(fig.subplots(down, across, sharex=True)).flat)
    for k, ax in enumerate(axes[:kept]):
        draw_along(ax, found[k])
        ax.set_title(dims.words(k), fontsize=8, color="k" if dims.variance[k] > ACTIVE else "0.55")
        ax.tick_params(labelsize=7)
        if k % across == 0:
            ax.set_ylabel("density", fontsize=8)
        if k + across >= kept:
            ax.set_xlabel("z", fontsize=8)
            ax.tick_params(labelbottom=True)
    for ax in axes[kept:]:
        ax.set_axis_off()
    some = f"the {kept} of {total} dimensions of largest variance" if kept < total else f"{total} dimensions"
    how = "histogram of one draw of each" if found[0].q is None else "exact density"
    grey = f"; grey: inactive, variance of the means up to {ACTIVE:g}" if dims.variance[kept - 1] <= ACTIVE else ""
    fig.suptitle(shown.title(f"aggregated posterior of {some} over {n} examples ({how}){grey}"), fontsize=9)
    fig.legend(*told(axes[:kept]), loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return fig


def _bars(shown: Shown) -> Figure:
    """A bar for each bit, by decreasing variance of its means; or for each category, by decreasing probability."""
    from matplotlib.figure import Figure

    means, bits = codes(shown)[0], shown.trial.vae.posterior.space == "bits"
    use = means.mean(0)
    order = dimensions(shown).number if bits else np.argsort(-use, kind="stable")
    kept = min(BARS, len(order))
    level = float(prior(shown).logit.double().sigmoid()) if bits else 1.0 / len(use)
    fig = Figure(figsize=(max(6.5, 1.5 + 0.14 * kept), 4.2), layout="constrained")
    ax = fig.subplots()
    ax.bar(range(kept), use[order[:kept]], color=Q, alpha=0.6, label="aggregated posterior q(z)")
    ax.axhline(level, color=P, ls="--", lw=1.4, label=f"prior, {level:.3g}")
    step = math.ceil(kept / 50)
    names = [str(k) for k in order[:kept:step]]
    ax.set_xticks(range(0, kept, step), labels=names, fontsize=7, rotation=90 if kept > 25 else 0)
    ax.set_xlabel("bit, by decreasing variance of q(z=1|x)" if bits else "category, by decreasing q(z)")
    ax.set_ylabel("probability that the bit is 1" if bits else "probability")
    ax.set_ylim(0, 1 if bits else None)
    ax.margins(x=0.01)
    what = "bits" if bits else "categories"
    some = f"{kept} of {len(order)} {what}" if kept < len(order) else f"{kept} {what}"
    fig.suptitle(shown.title(f"aggregated posterior of {some} over {len(means)} examples"), fontsize=9)
    fig.legend(*told([ax]), loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return fig
