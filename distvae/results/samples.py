"""Pictures of what a trained model draws: OUT/plots/samples_<sampler>_<trial key>.png."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

from distvae.api import kept_model
from distvae.data import load as load_data
from distvae.results import curves, ledger
from distvae.results.finish import PLOTS, NothingToPlotError
from distvae.results.plots import save
from distvae.samplers import Sampler, named
from distvae.sweeps.plan import trial_from_json
from distvae.training.evaluate import Examples
from distvae.trial import Trial, as_data, flatten
from distvae.vae import Vae

VALUES = 2**28  # pixels of the training examples that a sampler is fitted to, at most: 1 GiB


def draw(out: Path, sampler: str = "prior", *, trial: str | None = None, n: int = 64, seed: int = 0) -> Path:
    """The picture of `n` images of a trial in OUT (its key, or the key's first digits; the best by valid bound),
    drawn by `sampler` (YAML). Raises ConfigError, SamplerError, NothingToPlotError."""
    part: Any = named(sampler, "--sampler")
    chosen, vae = model(out, trial)
    shape = vae.x_shape
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise NothingToPlotError(f"{out}: the {chosen.data.label} data are not pictures: one x is of shape {shape}")
    x = examples(chosen, vae) if part.examples else None
    fitted = part.fit(vae, x, seed)
    images = fitted.images(n, seed).clamp(0, 1).numpy()
    if not np.isfinite(images).all():
        raise NothingToPlotError(f"{out}: trial {chosen.key} draws images that are not finite: it has diverged")
    beta = vae.beta if fitted.beta is None else fitted.beta
    path = out / PLOTS / f"samples_{part.type}_{chosen.key}.png"
    title = f"{chosen.data.label}: {chosen.label}\n{told(part)}" + ("" if beta is None else f", at beta={beta:g}")
    picture(images, path, title)
    return path


def model(out: Path, key: str | None) -> tuple[Trial, Vae]:
    """The trial and its kept weights; a beta-input model at its best beta."""
    table = ledger.load(out)
    try:
        if key is not None:
            table = _of(table, key)
        row = curves.best_trial(table).row
        trial, beta = trial_from_json(row["config_json"]), row["beta"]
    except LookupError as e:
        if key is None or not len(table):
            raise NothingToPlotError(f"{out}: {e.args[0]} (name a trial: --trial KEY)") from e
        trial = trial_from_json(table["config_json"][0].as_py())
        beta = min((b for b in trial.objective.grid() if b is not None), key=lambda b: abs(math.log(b)), default=None)
    try:
        vae = kept_model(out, trial)
    except FileNotFoundError as e:
        raise NothingToPlotError(str(e)) from e
    vae.beta = beta if trial.objective.beta_input else None
    return trial, vae


def _of(table: pa.Table, key: str) -> pa.Table:
    """The rows of one trial."""
    keys = sorted(set(table["trial_key"].to_pylist()))
    found = [k for k in keys if k.startswith(key)]
    if len(found) != 1:
        several = "begins several trials' keys" if found else "is no trial's key"
        some = ", ".join((found or keys)[:8]) + (", ..." if len(found or keys) > 8 else "")
        raise NothingToPlotError(f"--trial: {key!r} {several} (ended: {some or 'none'})")
    return table.filter(pa.array([k == found[0] for k in table["trial_key"].to_pylist()]))


def examples(trial: Trial, vae: Vae) -> Tensor:
    """Training examples `[N, *x_shape]` as the model sees them: the first ones by id, where all would be too large."""
    train = load_data(trial.data).train
    return Examples(trial, train, "cpu").at(np.arange(min(len(train), VALUES // vae.pixels())), vae.dtype, 0)[0]


def told(part: Sampler) -> str:
    """`aggregated: components=10 covariance=full of=draws`"""
    knobs = [f"{k}={_short(v)}" for k, v in flatten(as_data(part)) if k != "type" and v != []]
    return f"{part.type}: {' '.join(knobs)}" if knobs else part.type


def _short(v: Any) -> str:
    return f"{v:g}" if isinstance(v, float) else ",".join(map(_short, v)) if isinstance(v, list) else str(v)


def sheet(images: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Images `[n, C, H, W]` by rows on a square-ish sheet `[rows (H + 1) - 1, columns (W + 1) - 1, C]`, a white pixel
    between two."""
    n, channels, h, w = images.shape
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    cells = np.ones((rows * columns, channels, h + 1, w + 1))
    cells[:n, :, :h, :w] = images
    cells = cells.reshape(rows, columns, channels, h + 1, w + 1).transpose(0, 3, 1, 4, 2)
    return cells.reshape(rows * (h + 1), columns * (w + 1), channels)[:-1, :-1]


def picture(images: NDArray[np.floating[Any]], path: Path, title: str) -> None:
    """A PNG of images `[n, 1 or 3, H, W]` in [0, 1]."""
    from matplotlib.figure import Figure

    pixels = sheet(images)
    fig = Figure(figsize=(6.0, 6.0 * pixels.shape[0] / pixels.shape[1] + 0.4), layout="constrained")
    ax = fig.subplots()
    ax.imshow(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=1)
    ax.set_axis_off()
    ax.set_title(title, fontsize=8)
    save(fig, path)
