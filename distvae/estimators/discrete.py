"""What the biased estimators for discrete latents share: they differentiate l(z) through z, so they need one that a
relaxation exists for."""

from __future__ import annotations

from dataclasses import dataclass

from distvae.estimators.estimator import EstimatorPart
from distvae.posteriors.posterior import PosteriorPart


@dataclass(frozen=True, kw_only=True)
class DiscretePart(EstimatorPart):
    """For bits and one-hots only."""

    def refusal(self, posterior: PosteriorPart, latent_dim: int) -> str | None:
        if posterior.space in ("bits", "onehot"):
            return None
        return (
            "it is for discrete latents, and this posterior's are continuous "
            "(use pathwise, or posterior: {type: bernoulli} or {type: categorical})"
        )
