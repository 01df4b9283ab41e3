"""Inputs above their reconstructions: E[x|z] at the middle of q(z|x), and at one z ~ q(z|x)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from distvae.kernels.philox import Stream, permutation
from distvae.plots.canvas import save
from distvae.plots.kind import Kind, Options
from distvae.plots.latents import MIDDLE, middle
from distvae.plots.model import Shown, choose, on_split
from distvae.plots.sheet import Images, check_images, columns_for, images, sheet, show, stacked
from distvae.samplers.sampler import decode

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEGIBLE = 100  # with more images their numbers are left out


def draw(out: Path, folder: Path, options: Options) -> list[Path]:
    shown = choose(out, options)
    check_images(shown)
    on_split(shown)
    path = shown.file(folder, "reconstructions")
    save(picture(shown, reconstruct(shown, options.n, options.seed)), path)
    return [path]


KIND = Kind(
    name="reconstructions",
    doc="inputs above their reconstructions, from the middle of q(z|x) and from one z ~ q(z|x)",
    of="trial",
    reads=("trial", "split", "n", "seed"),
    draw=draw,
)


@dataclass(frozen=True)
class Reconstructed:
    rows: NDArray[np.int64]  # [n] of the split
    x: Images
    of_middle: Images
    of_draw: Images
    errors: NDArray[np.float64]  # [n] distortion, nats; mean squared error where the likelihood has no measure


@torch.no_grad()
def reconstruct(shown: Shown, n: int, seed: int) -> Reconstructed:
    """`n` examples of the split, chosen by (seed, number); what the evaluation pass measures of them."""
    subject, split = shown.subject, shown.split
    rows = permutation(seed, len(subject.split(split)), stream=Stream.SAMPLE)[:n]
    parts = []
    for some in np.split(rows, range(subject.evaluator.chunk, len(rows), subject.evaluator.chunk)):
        batch = subject.evaluator.batch(split, some, subject.beta)
        m = subject.vae.measure(batch)
        errors = m.distortion if shown.trial.vae.likelihood.measure is not None else m.mse
        parts.append((batch.x, middle(m.q, shown.trial.vae.posterior.space), m.z, errors))
    x, centre, z, errors = (torch.cat(column) for column in zip(*parts, strict=True))
    decoded = (images(shown, decode(subject.vae, code)) for code in (centre, z))
    return Reconstructed(rows, images(shown, x), *decoded, errors=errors.cpu().double().numpy())


def picture(shown: Shown, r: Reconstructed) -> Figure:
    from matplotlib.figure import Figure

    n, _, h, w = r.x.shape
    numbered = n <= LEGIBLE
    below = math.ceil(0.45 * h) if numbered else math.ceil(0.2 * h)
    tall = stacked(r.x, r.of_middle, r.of_draw, below=below)
    columns = columns_for(n, tall.shape[2] / w)
    pixels = sheet(tall, columns)
    fig = Figure(figsize=(9.0, 8.4 * pixels.shape[0] / pixels.shape[1] + 0.9), layout="constrained")
    ax = fig.subplots()
    show(ax, pixels)
    for i, error in enumerate(r.errors if numbered else ()):
        row, column = divmod(i, columns)
        y = row * (tall.shape[2] + 1) + tall.shape[2] - 0.55 * below
        ax.text(
            column * (w + 1) + w / 2 - 0.5, y, _short(error), ha="center", va="center", fontsize=min(8, 100 / columns)
        )
    for row in range(math.ceil(n / columns)):
        for k, words in enumerate(("x", MIDDLE[shown.trial.vae.posterior.space], "z ~ q")):
            y = row * (tall.shape[2] + 1) + k * (h + 1) + h / 2
            ax.text(-1.5, y, words, ha="right", va="center", fontsize=min(8, 100 / columns))
    unit = "distortion, nats" if shown.trial.vae.likelihood.measure is not None else "squared error per pixel"
    told = f" (below: the example's {unit})" if numbered else ""
    fig.suptitle(shown.title(f"{n} inputs x above E[x|z], z in the middle of q(z|x) and z ~ q(z|x){told}"), fontsize=9)
    return fig


def _short(v: float) -> str:
    return f"{v:.0f}" if abs(v) >= 1000 else f"{v:.1f}" if abs(v) >= 10 else f"{v:.2g}"
