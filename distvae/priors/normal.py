"""Standard normal prior, and the Gaussian KL every Gaussian prior uses (Kingma and Welling 2014, Appendix B).

S4's slide prints this KL with norms in place of squares; the closed form below is the correct one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from distvae.part import Part
from distvae.posteriors.gaussian import NormalQ


def kl_standard_normal(location: Tensor, var: Tensor) -> Tensor:
    """KL(N(location, var) || N(0, 1)) per dimension, nats. Same shape as its arguments."""
    return 0.5 * (var + location.square() - 1.0 - var.log())


def log_normal(z: Tensor, location: Tensor | float = 0.0) -> Tensor:
    """log N(z; location, 1) per dimension, nats."""
    return -0.5 * ((z - location).square() + math.log(2.0 * math.pi))


@dataclass(frozen=True, kw_only=True)
class Normal(Part):
    """Standard normal p(z) = N(0, I)."""

    type: Literal["normal"] = "normal"

    surrogate: ClassVar[bool] = False  # is `divergence` something else than the rate?

    def build(self, latent_dim: int) -> NormalPrior:
        return NormalPrior()


class NormalPrior(nn.Module):
    def divergence(self, q: NormalQ) -> Tensor:
        """What the objective weighs: KL(q || p) `[B, D]`, nats."""
        return kl_standard_normal(q.mu, q.var)

    def rate(self, q: NormalQ) -> Tensor:
        """KL to the normalised prior `[B, D]`, nats: here the same thing."""
        return kl_standard_normal(q.mu, q.var)

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) `[..., D]`, nats."""
        return log_normal(z)

    def sample(self, eps: Tensor, u: Tensor) -> Tensor:
        """z from standard normals `eps` and uniforms `u`, all `[N, D]`."""
        return eps
