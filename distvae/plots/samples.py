"""What a trained model draws, by each sampler that fits it, or by one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from torch import Tensor

from distvae.plots.canvas import save
from distvae.plots.kind import Kind, NothingToPlotError, Options
from distvae.plots.model import Shown, choose
from distvae.plots.sheet import Images, check_images, images, sheet, show
from distvae.samplers import Sampler, SamplerError, named
from distvae.training.evaluate import Examples
from distvae.trial import as_data, flatten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VALUES = 2**28  # pixels of the training examples that a sampler is fitted to, at most: 1 GiB
ACROSS = 3  # panels in a row


def draw(out: Path, folder: Path, options: Options) -> list[Path]:
    shown = choose(out, options)
    check_images(shown)
    if options.sampler is None:
        panels = by_each(shown, options.n, options.seed)
        path = folder / f"samples_{shown.trial.key}.png"
    else:
        part: Any = named(options.sampler, "--sampler")
        panels = [by(shown, part, options.n, options.seed)]
        path = folder / f"samples_{part.type}_{shown.trial.key}.png"
    each = "" if options.sampler else " by each sampler"
    save(picture(panels, shown.title(f"{options.n} samples E[x|z]{each}, seed {options.seed}")), path)
    return [path]


KIND = Kind(
    name="samples",
    doc="images of a trial by each sampler that fits it, or by one (--sampler)",
    of="trial",
    reads=("trial", "sampler", "n", "seed"),
    draw=draw,
)


def by_each(shown: Shown, n: int, seed: int) -> list[tuple[str, Images | None]]:
    """(words, images or None) of each sampler of the union, as it is by default, that fits the model. One that fails
    beside others has its reason for words; alone, it raises NothingToPlotError."""
    panels: list[tuple[str, Images | None]] = []
    for kind in get_args(Sampler):
        part = kind()
        if part.refusal(shown.subject.vae) is None:
            try:
                panels.append(by(shown, part, n, seed))
            except SamplerError as e:
                panels.append((f"{part.type}: none\n{fill(str(e), 44)}", None))
    if all(drawn is None for _, drawn in panels):
        raise NothingToPlotError(f"trial {shown.trial.key}: " + "; ".join(words for words, _ in panels))
    return panels


def by(shown: Shown, part: Any, n: int, seed: int) -> tuple[str, Images]:
    """(words, `n` images) by one sampler. Raises SamplerError, NothingToPlotError."""
    vae = shown.subject.vae
    fitted = part.fit(vae, examples(shown) if part.examples else None, seed)
    beta = vae.beta if fitted.beta is None else fitted.beta
    words = told(part) + ("" if beta is None else f", at beta={beta:g}")
    return words, images(shown, fitted.images(n, seed))


def examples(shown: Shown) -> Tensor:
    """Training examples `[N, *x_shape]` as the model sees them: the first ones by id, where all would be too large."""
    train, vae = shown.subject.data.train, shown.subject.vae
    rows = np.arange(min(len(train), VALUES // vae.pixels()))
    return Examples(shown.trial, train, "cpu").at(rows, vae.dtype, 0)[0]


def told(part: Sampler) -> str:
    """`aggregated: components=10 covariance=full of=draws`"""
    knobs = [f"{k}={_short(v)}" for k, v in flatten(as_data(part)) if k != "type" and v != []]
    return f"{part.type}: {' '.join(knobs)}" if knobs else part.type


def _short(v: Any) -> str:
    return f"{v:g}" if isinstance(v, float) else ",".join(map(_short, v)) if isinstance(v, list) else str(v)


def picture(panels: Sequence[tuple[str, Images | None]], title: str) -> Figure:
    """A sheet for each panel, its words above it."""
    from matplotlib.figure import Figure

    across = min(ACROSS, len(panels))
    down = math.ceil(len(panels) / across)
    side = 6.0 if len(panels) == 1 else 4.2
    fig = Figure(figsize=(side * across, (side + 0.35) * down + 0.6), layout="constrained")
    axes = list(np.atleast_1d(fig.subplots(down, across)).flat)
    for ax in axes:
        ax.set_axis_off()
    for ax, (words, drawn) in zip(axes, panels, strict=False):
        ax.set_title(words, fontsize=9)
        if drawn is not None:
            show(ax, sheet(drawn))
    engine: Any = fig.get_layout_engine()
    engine.set(w_pad=0.12, h_pad=0.08)
    fig.suptitle(title, fontsize=9)
    return fig
