"""Standard normal prior, and the Gaussian KL every Gaussian prior uses (Kingma and Welling 2014, Appendix B).

S4's slide prints this KL with norms in place of squares; the closed form below is the correct one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from distvae.batch import Noise
from distvae.posteriors.gaussian import NormalQ
from distvae.priors.prior import PriorModule, PriorPart


def kl_standard_normal(location: Tensor, var: Tensor) -> Tensor:
    """KL(N(location, var) || N(0, 1)) per dimension, nats. Same shape as its arguments."""
    return 0.5 * (var + location.square() - 1.0 - var.log())


def kl_normal(location: Tensor, var: Tensor, prior_var: Tensor) -> Tensor:
    """KL(N(location, var) || N(0, prior_var)) per dimension, nats. Same shape as its arguments."""
    ratio = var / prior_var
    return 0.5 * (ratio + location.square() / prior_var - 1.0 - ratio.log())


def log_normal(z: Tensor, location: Tensor | float = 0.0) -> Tensor:
    """log N(z; location, 1) per dimension, nats."""
    return -0.5 * ((z - location).square() + math.log(2.0 * math.pi))


@dataclass(frozen=True, kw_only=True)
class Normal(PriorPart):
    """Standard normal p(z) = N(0, I)."""

    type: Literal["normal"] = "normal"

    def build(self, latent_dim: int, x_shape: Sequence[int] = ()) -> NormalPrior:
        return NormalPrior(latent_dim)


class NormalPrior(PriorModule):
    def __init__(self, latent_dim: int):
        super().__init__()
        self.latent_dim = latent_dim

    @property
    def offset(self) -> float:
        return 0.0

    def divergence(self, q: NormalQ, z: Tensor | None = None) -> Tensor:
        """What the objective weighs: KL(q || p) `[B, D]`, nats."""
        return kl_standard_normal(q.mu, q.var)

    def rate(self, q: NormalQ, z: Tensor | None = None) -> Tensor:
        """KL to the normalised prior `[B, D]`, nats: here the same thing."""
        return kl_standard_normal(q.mu, q.var)

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) `[...]`, nats, of z `[..., D]`."""
        return log_normal(z).sum(-1)

    def sample(self, noise: Noise, like: Tensor) -> Tensor:
        """z `[B, D]`, one for each address."""
        return noise.normal(1, self.latent_dim, like)[:, 0]
