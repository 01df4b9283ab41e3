"""Point posterior: z = mu(x), the autoencoder. It has no density, so there is no rate and no bound (both null), and an
objective that weighs the divergence is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, NoReturn

from torch import Tensor, nn

from distvae.batch import Batch, Noise
from distvae.posteriors.posterior import PosteriorPart, Space, to_double


class DeltaQ(NamedTuple):
    """A batch of points."""

    mu: Tensor  # [B, D]

    def rsample(self, noise: Noise, samples: int) -> Tensor:
        """z = mu, `[B, samples, D]`: all samples are equal."""
        return self.mu[:, None].expand(-1, samples, -1)

    def log_prob(self, z: Tensor) -> NoReturn:
        raise TypeError("the delta posterior is a point: it has no density, so no log_prob, no rate and no ELBO")

    def double(self) -> DeltaQ:
        return to_double(self)


@dataclass(frozen=True, kw_only=True)
class Delta(PosteriorPart):
    """A point, z = mu(x): the autoencoder; no rate."""

    type: Literal["delta"] = "delta"

    space: ClassVar[Space] = "real"
    density: ClassVar[bool] = False

    def width(self, latent_dim: int) -> int:
        return latent_dim

    def build(self, latent_dim: int) -> DeltaHead:
        return DeltaHead()


class DeltaHead(nn.Module):
    def forward(self, h: Tensor, batch: Batch) -> DeltaQ:
        return DeltaQ(h)
