"""Evaluation passes: the rows of a trial. Over a whole split, dropout off, running statistics, addressed noise that is
the same in every epoch (so curves over epochs are not blurred by it). Every figure is a mean over examples, gathered
in the order of their ids: the number of workers does not change it. A beta-input model has one row for each beta of
its grid.

A valid bound or null: `elbo_nats` = -(rate + distortion), where rate is the KL to the normalised prior and the
likelihood has a measure; what training weighed is in the columns called surrogate and in `objective`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distvae.batch import Batch, Noise
from distvae.data import Split, binarize
from distvae.kernels.philox import Stream
from distvae.metrics.gradient import gradient_variance
from distvae.objectives import Terms
from distvae.training.world import World
from distvae.trial import Trial
from distvae.vae import Measured, Vae

CHUNK = 1000  # examples at a time,
OUTPUTS = 2**24  # or fewer: so many decoder outputs
PASS = 2**32 - 1  # the step at which evaluation binarises: one that training never reaches
ACTIVE_VARIANCE = 0.01  # a unit is active if its posterior mean varies by more over the examples (Burda et al. 2016)


class Examples:
    """A split on the device, as stored (uint8 stays uint8), and rows of it as a model sees them."""

    def __init__(self, trial: Trial, split: Split, device: str):
        self.data, self.index = trial.data, torch.from_numpy(np.ascontiguousarray(split.index)).to(device)
        self.x = torch.from_numpy(np.ascontiguousarray(split.x)).to(device)
        labelled = trial.vae.prior.labels and split.y is not None
        self.y = torch.from_numpy(np.ascontiguousarray(split.y)).to(device) if labelled else None

    def at(
        self, rows: NDArray[np.int64] | Tensor, dtype: torch.dtype, step: int | Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """(x in [0, 1] or, of real data, as it is; y; ids): binarised anew for every `step` if the data say so."""
        where = torch.as_tensor(rows, device=self.x.device)
        x, ids = self.x.index_select(0, where), self.index[where]  # whole rows: indexing goes byte by byte
        x = x.to(dtype) / 255 if x.dtype == torch.uint8 else x.to(dtype)
        if self.data.binarize == "dynamic":
            x = binarize(x, seed=self.data.seed, index=ids, step=step)
        return x, None if self.y is None else self.y[where], ids


class Evaluator:
    """Evaluates one model on the splits of one data set."""

    def __init__(
        self,
        trial: Trial,
        vae: Vae,
        objective: torch.nn.Module,
        splits: dict[str, Split],
        world: World,
        shared: dict[str, Examples] | None = None,  # of trials on the same data: filled by the first
    ):
        self.trial, self.vae, self.objective, self.world = trial, vae, objective, world
        n = trial.evaluate.train_examples
        self.splits = {name: s.some(n) if name == "train" else s for name, s in splits.items()}
        self.examples = {} if shared is None else shared
        for name, s in self.splits.items():
            if name not in self.examples:
                self.examples[name] = Examples(trial, s, world.device)
        model, asked = trial.vae, trial.evaluate.samples
        samples = model.gradient().samples(model.posterior, model.latent_dim, asked)
        outputs = model.likelihood.width(vae.x_shape) * samples
        self.chunk = max(1, min(CHUNK, OUTPUTS // outputs))

    def rows(self, *, epoch: int, step: int, measured: Mapping[str, Measured] | None = None) -> list[dict[str, Any]]:
        """One row per point and split, train first; metrics that have no valid value are None. `measured`: the splits,
        where they have been measured already (of a model with one point)."""
        training = self.vae.training
        self.vae.eval()
        try:
            rows = []
            for point, beta in enumerate(self.trial.objective.grid()):
                if self.trial.vae.likelihood.calibrated:
                    self.vae.likelihood.calibrate(self.measure("train", beta).mse.mean())
                for name in self.splits:
                    m = self.measure(name, beta) if measured is None else measured[name]
                    row = {"epoch": epoch, "step": step, "point": point, **self._row(name, m, beta, step)}
                    if name == "train" and self.trial.evaluate.gradient_draws:
                        row |= self._gradient(beta, step)
                    rows.append({**row, **self._told(beta)})
            return rows
        finally:
            self.vae.train(training)

    def measure(self, name: str, beta: float | None) -> Measured:
        """The whole split, every rank's shard gathered: float64 `[N]`, ... on the CPU."""
        split, parts = self.splits[name], []
        mine = self.world.shard(np.arange(len(split)))
        for rows in np.split(mine, range(self.chunk, len(mine), self.chunk)):
            parts.append(self.vae.measure(self.batch(name, rows, beta)))
        ranks = self.world.collect(_flat(joined(parts)))
        return _unflat([torch.cat(column) for column in zip(*ranks, strict=True)], type(parts[0].q))

    def batch(self, name: str, rows: NDArray[np.int64], beta: float | None) -> Batch:
        split = self.splits[name]
        x, y, ids = self.examples[name].at(rows, self.vae.dtype, PASS)
        return Batch(
            x=x,
            y=y,
            noise=Noise(self.trial.seed, 0, ids, Stream.EVALUATE),
            total=len(split),
            samples=self.trial.evaluate.samples,
            beta=None if beta is None else x.new_full((len(rows),), beta),
            dataset=len(split),
        )

    @torch.no_grad()
    def _objective(self, name: str, m: Measured, beta: float | None, step: int) -> float:
        """The mean of what training minimises, of the split as one batch."""
        n, device = len(m.rate), self.world.device
        some = self.batch(name, np.arange(min(1, n)), beta)  # what a prior is conditioned on is not an example
        noise = Noise(self.trial.seed, 0, self.examples[name].index[:n], Stream.EVALUATE)
        q = type(m.q)(*(t.to(device) for t in m.q))
        terms = Terms(m.distortion.to(device), m.divergence.to(device), q, m.z.to(device), self.vae.prior_at(some))
        every = None if beta is None else terms.distortion.new_full((n,), beta)
        batch = Batch(x=some.x, noise=noise, total=n, step=step, beta=every, dataset=n)
        return float(self.objective(terms, batch).mean())

    def _gradient(self, beta: float | None, step: int) -> dict[str, float]:
        """Of the first training batch, whole on every rank: the number of workers does not change it."""
        train = self.trial.train
        some = np.arange(min(train.batch_size, len(self.splits["train"])))
        batch = self.batch("train", some, beta)
        noise = Noise(self.trial.seed, step, batch.noise.index)
        batch = replace(batch, noise=noise, total=len(some), samples=train.samples, step=step)
        got = gradient_variance(self.vae, self.objective, batch, self.trial.evaluate.gradient_draws)
        return {"gradient_variance": got.trace, "gradient_square": got.square}

    def _told(self, beta: float | None) -> dict[str, Any]:
        """What marks a row of a beta-input model."""
        conditioning = self.trial.vae.conditioning
        return {} if conditioning is None else {"beta": beta, "conditioning": conditioning.type}

    def _row(self, name: str, m: Measured, beta: float | None, step: int) -> dict[str, Any]:
        model = self.trial.vae
        n, measured = len(m.rate), model.likelihood.measure is not None
        surrogate = float(m.divergence.sum(-1).mean()) if model.prior.surrogate and model.posterior.density else None
        return {
            "split": name,
            "n_examples": n,
            "measure": model.likelihood.measure,
            **(_mean("rate", m.rate) if model.posterior.density else {}),
            "rate_surrogate_nats": surrogate,
            **(_mean("distortion", m.distortion) if measured else {}),
            "distortion_surrogate_nats": self._peeking(m),
            "distortion_mse": float(m.mse.mean()),
            **(_mean("elbo", -(m.rate + m.distortion)) if model.bound else {}),
            "objective": self._objective(name, m, beta, step),
            "active_units": int((m.mu.var(0) > ACTIVE_VARIANCE).sum()) if n > 1 else None,
        }

    def _peeking(self, m: Measured) -> float | None:
        """-log p with sigma_x estimated from the very data it is judged on: a surrogate."""
        likelihood = self.trial.vae.likelihood
        if likelihood.measure is None:
            return float(m.distortion.mean())
        if likelihood.calibrated:
            return 0.5 * self.vae.pixels() * (math.log(2 * math.pi * float(m.mse.mean())) + 1)
        return None


def _mean(name: str, values: Tensor) -> dict[str, float]:
    """Mean over examples, nats, and its standard error."""
    se = float(values.std() / math.sqrt(len(values))) if len(values) > 1 else None
    return {f"{name}_nats": float(values.mean()), f"{name}_se": se}  # type: ignore[dict-item]


def _flat(m: Measured) -> list[Tensor]:
    return [m.distortion, m.divergence, m.rate, m.mse, m.mu, m.z, *m.q]


def joined(parts: Sequence[Measured]) -> Measured:
    """Consecutive examples as one, on the CPU."""
    columns = [torch.cat(column).cpu() for column in zip(*map(_flat, parts), strict=True)]
    return _unflat(columns, type(parts[0].q))


def _unflat(columns: list[Tensor], q: Any) -> Measured:
    distortion, divergence, rate, mse, mu, z, *rest = columns
    return Measured(distortion, divergence, rate, mse, mu, z, q(*rest))
