"""Straight-through estimator (Bengio, Leonard, Courville 2013): an exact sample forward, and backward as if it had been
its mean, z = stop(sample) + (q - stop(q)) with q = sigmoid(eta) or softmax(eta).

Biased unless l is linear in every bit alone (multilinear l is enough where one bit is all there is): it follows dl/dz at
the sample instead of l(1) - l(0). The paper passes the gradient to the sigmoid's input as it is, or times the sigmoid's
slope; here the slope is kept, so that a linear l gets its exact gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from distvae.batch import Batch
from distvae.estimators.discrete import DiscretePart
from distvae.estimators.estimator import EstimatorModule, PerSample


@dataclass(frozen=True, kw_only=True)
class StraightThrough(DiscretePart):
    """Exact codes forward, their probabilities backward (Bengio et al. 2013): biased."""

    type: Literal["straight_through"] = "straight_through"

    def build(self) -> StraightThroughEstimator:
        return StraightThroughEstimator()


class StraightThroughEstimator(EstimatorModule):
    def forward(self, q: Any, p: Any, nll: PerSample, batch: Batch) -> tuple[Tensor, Tensor]:
        mean = q.mu[:, None]
        z = q.rsample(batch.noise, batch.samples) + (mean - mean.detach())
        return nll(z).mean(1), z
