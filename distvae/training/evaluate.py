"""Evaluation passes: the rows of a trial. Over a whole split, dropout off, running statistics, addressed noise that is
the same in every epoch (so curves over epochs are not blurred by it). Every figure is a mean over examples, gathered
in the order of their ids: the number of workers does not change it.

A valid bound or null: `elbo_nats` = -(rate + distortion), where rate is the KL to the normalised prior and the
likelihood has a measure; what training weighed is in the columns called surrogate and in `objective`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distvae.batch import Batch, Noise
from distvae.data import Split
from distvae.kernels.philox import Stream
from distvae.training.world import World
from distvae.trial import Trial
from distvae.vae import Measured, Vae

CHUNK = 1000
ACTIVE_VARIANCE = 0.01  # a unit is active if its posterior mean varies by more over the examples (Burda et al. 2016)


def pixels(split: Split, device: str) -> Tensor:
    """A split's examples on the device, as stored (uint8 stays uint8)."""
    return torch.from_numpy(np.ascontiguousarray(split.x)).to(device)


def as_input(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Stored pixels to [0, 1]; float data as they are."""
    return x.to(dtype) / 255 if x.dtype == torch.uint8 else x.to(dtype)


class Evaluator:
    """Evaluates one model on the splits of one data set."""

    def __init__(self, trial: Trial, vae: Vae, objective: torch.nn.Module, splits: dict[str, Split], world: World):
        self.trial, self.vae, self.objective, self.world = trial, vae, objective, world
        n = trial.evaluate.train_examples
        self.splits = {name: Split(s.x[:n], None, s.index[:n]) if name == "train" else s for name, s in splits.items()}
        self.x = {name: pixels(s, world.device) for name, s in self.splits.items()}

    def rows(self, *, epoch: int, step: int) -> list[dict[str, Any]]:
        """One row per split, train first; metrics that have no valid value are None."""
        training = self.vae.training
        self.vae.eval()
        try:
            if self.trial.vae.likelihood.calibrated:
                self.vae.likelihood.calibrate(self._measure("train").mse.mean())
            return [self._row(name, epoch, step) for name in self.splits]
        finally:
            self.vae.train(training)

    def _measure(self, name: str) -> Measured:
        """The whole split, every rank's shard gathered: float64 `[N]` (and `mu` `[N, D]`) on the CPU."""
        split, parts = self.splits[name], []
        mine = self.world.shard(np.arange(len(split)))
        for rows in np.split(mine, range(CHUNK, len(mine), CHUNK)):
            noise = Noise(self.trial.seed, 0, split.index[rows], Stream.EVALUATE)
            x = as_input(self.x[name][rows[0] : rows[-1] + 1] if len(rows) else self.x[name][:0], self.vae.dtype)
            batch = Batch(x=x, noise=noise, total=len(split), samples=self.trial.evaluate.samples)
            parts.append(self.vae.measure(batch))
        local = [torch.cat(column).cpu() for column in zip(*parts, strict=True)]
        ranks = self.world.collect(local)
        return Measured(*(torch.cat(column) for column in zip(*ranks, strict=True)))

    def _row(self, name: str, epoch: int, step: int) -> dict[str, Any]:
        m, likelihood = self._measure(name), self.trial.vae.likelihood
        n = len(m.rate)
        batch = Batch(x=m.mu, noise=Noise(0, 0, np.arange(0)), total=n, step=step)
        objective = self.objective(m.distortion, m.divergence, batch)
        bound = likelihood.measure is not None
        row = {
            "split": name,
            "n_examples": n,
            "epoch": epoch,
            "step": step,
            "point": 0,
            "measure": likelihood.measure,
            **_mean("rate", m.rate),
            "rate_surrogate_nats": float(m.divergence.mean()) if self.trial.vae.prior.surrogate else None,
            **(_mean("distortion", m.distortion) if bound else {}),
            "distortion_surrogate_nats": self._peeking(m),
            "distortion_mse": float(m.mse.mean()),
            **(_mean("elbo", -(m.rate + m.distortion)) if bound else {}),
            "objective": float(objective.mean()),
            "active_units": int((m.mu.var(0) > ACTIVE_VARIANCE).sum()) if n > 1 else None,
        }
        return row

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
