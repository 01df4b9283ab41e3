"""Diagonal Gaussian posterior q(z|x) = N(mu, diag var) (Kingma and Welling 2014), and `NormalQ`, what every Gaussian
head returns.

The head's output is `[B, D, 2]`, (mean, log variance) per dimension, so that the weights of a narrower model are the
first rows of a wider one's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from torch import Tensor, nn

from distvae.batch import Batch
from distvae.part import Part


class NormalQ(NamedTuple):
    """A batch of diagonal Gaussians."""

    mu: Tensor  # [B, D]
    var: Tensor  # [B, D]

    def rsample(self, eps: Tensor) -> Tensor:
        """z = mu + sigma eps, `eps` and result `[B, S, D]`."""
        return self.mu[:, None] + self.var.sqrt()[:, None] * eps


def split(h: Tensor) -> tuple[Tensor, Tensor]:
    """Head `[B, 2D]` to (mu, log var), each `[B, D]`."""
    h = h.unflatten(-1, (-1, 2))
    return h[..., 0], h[..., 1]


@dataclass(frozen=True, kw_only=True)
class Gaussian(Part):
    """Diagonal Gaussian q(z|x), mean and log variance from the encoder."""

    type: Literal["gaussian"] = "gaussian"

    head_bias: ClassVar[bool] = True
    whole_batch: ClassVar[bool] = False

    def width(self, latent_dim: int) -> int:
        return 2 * latent_dim

    def build(self, latent_dim: int) -> GaussianHead:
        return GaussianHead()


class GaussianHead(nn.Module):
    def forward(self, h: Tensor, batch: Batch) -> NormalQ:
        mu, logvar = split(h)
        return NormalQ(mu, logvar.exp())
