"""Exact expectation over a small discrete latent space: E_q[l] = sum_z q(z|x) l(z), all codes decoded for every example.

No noise at all, so gradient and evaluation are exact: the reference of every other estimator. The decoder runs on
B 2^c codes (bits, c <= 12) or B c (one-hots)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from distvae.batch import Batch
from distvae.estimators.discrete import DiscretePart
from distvae.estimators.estimator import EstimatorModule, PerSample
from distvae.posteriors.bernoulli import BITS_MAX
from distvae.posteriors.posterior import PosteriorPart


@dataclass(frozen=True, kw_only=True)
class Enumerate(DiscretePart):
    """Exact sum over all codes: up to 12 bits, or any number of classes."""

    type: Literal["enumerate"] = "enumerate"

    whole_batch: ClassVar[bool] = False  # every example's codes by themselves, not all tuples of the batch's

    def refusal(self, posterior: PosteriorPart, latent_dim: int) -> str | None:
        if posterior.space == "bits" and latent_dim > BITS_MAX:
            return f"{latent_dim} bits have 2^{latent_dim} codes to decode (use latent_dim <= {BITS_MAX}, or score)"
        return super().refusal(posterior, latent_dim)

    def samples(self, posterior: PosteriorPart, latent_dim: int, asked: int) -> int:
        return 2**latent_dim if posterior.space == "bits" else latent_dim

    def build(self) -> EnumerateEstimator:
        return EnumerateEstimator()


class EnumerateEstimator(EstimatorModule):
    def forward(self, q: Any, p: Any, nll: PerSample, batch: Batch) -> tuple[Tensor, Tensor]:
        return self.measure(q, nll, batch)

    def measure(self, q: Any, f: PerSample, batch: Batch) -> tuple[Tensor, Tensor]:
        z = q.support().expand(len(q.logits), -1, -1)  # [B, M, Z]
        values = f(z)
        weights = q.log_prob(z).exp()
        mean = (weights.reshape(*weights.shape, *(1,) * (values.dim() - 2)) * values).sum(1)
        return mean, q.rsample(batch.noise, batch.samples)
