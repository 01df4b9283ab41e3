"""What every gradient estimator states about itself, and evaluation, which is the same for most."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from distvae.batch import Batch
from distvae.part import Part
from distvae.posteriors.posterior import PosteriorPart

PerSample = Callable[[Tensor], Tensor]  # z [B, S, Z] -> [B, S]: -log p(x|z), nats


@dataclass(frozen=True, kw_only=True)
class EstimatorPart(Part):
    """How the gradient of E_q[-log p(x|z)] is estimated."""

    whole_batch: ClassVar[bool] = True  # may -log p(x|z) of one example depend on the z of others?

    def refusal(self, posterior: PosteriorPart, latent_dim: int) -> str | None:
        """Why it cannot be used with this posterior, and the likely fix; None if it can."""
        return None

    def samples(self, posterior: PosteriorPart, latent_dim: int, asked: int) -> int:
        """Latent samples per example that evaluation decodes at once, where `asked` are asked for."""
        return asked

    def build(self) -> nn.Module:
        raise NotImplementedError


class EstimatorModule(nn.Module):
    def forward(self, q: Any, p: Any, nll: PerSample, batch: Batch) -> tuple[Tensor, Tensor]:
        """(E_q[nll] `[B]` nats, with the estimator's gradient; the z `[B, S, Z]` it looked at)."""
        raise NotImplementedError

    def measure(self, q: Any, f: PerSample, batch: Batch) -> tuple[Tensor, Tensor]:
        """(E_q[f] `[B, ...]` of f(z) `[B, S, ...]`, z `[B, S, Z]`) on samples of q itself, never relaxed ones."""
        z = q.rsample(batch.noise, batch.samples)
        return f(z).mean(1), z
