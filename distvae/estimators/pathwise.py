"""Pathwise gradient: z = g(noise; phi), differentiated through (Kingma and Welling 2014; Rezende et al. 2014)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from distvae.batch import Batch
from distvae.estimators.estimator import EstimatorModule, EstimatorPart, PerSample
from distvae.posteriors.posterior import PosteriorPart


@dataclass(frozen=True, kw_only=True)
class Pathwise(EstimatorPart):
    """Reparameterisation: the gradient passes through z."""

    type: Literal["pathwise"] = "pathwise"

    def refusal(self, posterior: PosteriorPart, latent_dim: int) -> str | None:
        if posterior.reparameterized:
            return None
        kind = getattr(posterior, "type", "this")
        return f"no gradient passes through a sample of the {kind} posterior (use score, or leave the estimator out)"

    def build(self) -> PathwiseEstimator:
        return PathwiseEstimator()


class PathwiseEstimator(EstimatorModule):
    def forward(self, q: Any, p: Any, nll: PerSample, batch: Batch) -> tuple[Tensor, Tensor]:
        return self.measure(q, nll, batch)
