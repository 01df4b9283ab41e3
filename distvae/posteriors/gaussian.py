"""Diagonal Gaussian posterior q(z|x) = N(mu, diag var) (Kingma and Welling 2014), and `NormalQ`, what every Gaussian
head returns.

The head's output is `[B, D, 2]`, (mean, log variance) per dimension, so that the weights of a narrower model are the
first rows of a wider one's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from torch import Tensor, nn

from distvae.batch import Batch, Noise
from distvae.posteriors.posterior import PosteriorPart, to_double


class NormalQ(NamedTuple):
    """A batch of diagonal Gaussians."""

    mu: Tensor  # [B, D]
    var: Tensor  # [B, D]

    def rsample(self, noise: Noise, samples: int) -> Tensor:
        """z = mu + sigma eps `[B, S, D]`."""
        eps = noise.normal(samples, self.mu.shape[-1], self.mu)
        return self.mu[:, None] + self.var.sqrt()[:, None] * eps

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z|x) `[B, S]`, nats, of z `[B, S, D]`."""
        square = (z - self.mu[:, None]).square() / self.var[:, None]
        return -0.5 * (square + (2.0 * math.pi * self.var).log()[:, None]).sum(-1)

    def double(self) -> NormalQ:
        return to_double(self)


class Raw(NamedTuple):
    """What `kernels.sample_kl` makes a sample and a KL of: var = g exp(logvar) + floor, g ~ Bernoulli(p_keep) /
    p_keep."""

    mu: Tensor  # [B, D]
    logvar: Tensor  # [B, D]
    p_keep: Tensor | float = 1.0
    floor: float = 0.0


def split(h: Tensor) -> tuple[Tensor, Tensor]:
    """Head `[B, 2D]` to (mu, log var), each `[B, D]`."""
    h = h.unflatten(-1, (-1, 2))
    return h[..., 0], h[..., 1]


@dataclass(frozen=True, kw_only=True)
class Gaussian(PosteriorPart):
    """Diagonal Gaussian q(z|x), mean and log variance from the encoder."""

    type: Literal["gaussian"] = "gaussian"

    gaussian: ClassVar[bool] = True

    def width(self, latent_dim: int) -> int:
        return 2 * latent_dim

    def build(self, latent_dim: int) -> GaussianHead:
        return GaussianHead()


class GaussianHead(nn.Module):
    def raw(self, h: Tensor, batch: Batch) -> Raw:
        mu, logvar = split(h)
        return Raw(mu, logvar)

    def forward(self, h: Tensor, batch: Batch) -> NormalQ:
        mu, logvar, _, _ = self.raw(h, batch)
        return NormalQ(mu, logvar.exp())
