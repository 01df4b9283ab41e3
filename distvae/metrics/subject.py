"""A trained model under measurement: what metrics and pictures may ask of it. Whole splits, in batches, O(N) memory;
what several metrics need is computed once. Noise is addressed, so a value does not depend on chunks, threads or
workers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from distvae.batch import Batch
from distvae.data import Dataset, Split
from distvae.data import load as load_data
from distvae.training.evaluate import Evaluator
from distvae.training.world import World
from distvae.trial import Trial
from distvae.vae import Measured, Vae


class Subject:
    """`vae`, whole and in evaluation mode, of `trial`, at one point: `beta` for a beta-input model."""

    def __init__(self, trial: Trial, vae: Vae, *, beta: float | None = None, device: str = "cpu"):
        self.trial, self.vae, self.beta, self.device = trial, vae.to(device).eval(), beta, device
        self.vae.beta = beta
        self._measured: dict[str, Measured] = {}

    @cached_property
    def data(self) -> Dataset:
        return load_data(self.trial.data)

    @cached_property
    def evaluator(self) -> Evaluator:
        objective = self.trial.objective.build().to(self.device, self.trial.dtype)
        return Evaluator(self.trial, self.vae, objective, self.data.splits(), World(device=self.device))

    def split(self, name: str) -> Split:
        """A split as it is evaluated: `train` is its first `evaluate.train_examples`. Raises KeyError if the data have
        none of that name."""
        return self.evaluator.splits[name]

    def has(self, name: str) -> bool:
        return name in self.evaluator.splits

    def labels(self, name: str) -> NDArray[np.int64] | None:
        """`[N]`, or None."""
        return self.split(name).y

    def factors(self, name: str) -> NDArray[np.int64] | None:
        """Generating factors `[N, F]`, each 0..size-1, or None."""
        return self.split(name).factors

    def measured(self, name: str) -> Measured:
        """What the evaluation pass measures of each example of a split: float64 `[N]`, ... on the CPU."""
        if name not in self._measured:
            self._measured[name] = self.evaluator.measure(name, self.beta)
        return self._measured[name]

    def means(self, name: str) -> Tensor:
        """Posterior means `[N, Z]`, float64."""
        return self.measured(name).mu

    def latents(self, name: str) -> Tensor:
        """One z ~ q(z|x) an example, `[N, Z]`, float64: the same that the evaluation pass drew first."""
        return self.measured(name).z

    def posterior(self, name: str) -> Any:
        """q(z|x) of every example: its family's NamedTuple, float64 `[N, ...]` (`NormalQ(mu, var)` if Gaussian)."""
        return self.measured(name).q

    def batches(self, name: str, size: int | None = None) -> Iterator[Batch]:
        """The split in order, `size` examples at a time, as evaluation sees them: addressed noise, binarised by
        address."""
        n, size = len(self.split(name)), size or self.evaluator.chunk
        for start in range(0, n, size):
            yield self.evaluator.batch(name, np.arange(start, min(start + size, n)), self.beta)

    def pixels(self, name: str, rows: NDArray[np.int64] | slice | None = None) -> Tensor:
        """Examples `[B, *x_shape]` as the model sees them (a slice, row numbers, or all)."""
        n = len(self.split(name))
        rows = np.arange(n) if rows is None else np.arange(n)[rows]
        return self.evaluator.batch(name, rows, self.beta).x
