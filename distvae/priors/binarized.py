"""Binarized prior (S1, Eqs. 3-5): two symmetric unit Gaussians per latent dimension, at -r and +r.

    location = |mu| - r                                                            Eq. 3
    KL_B     = ln(sigma_p / sigma_q) + [sigma_q^2 + (|mu| - r)^2] / (2 sigma_p^2) - 1/2        Eq. 4, sigma_p = 1

Errata. Eq. 4 prints + ln(sigma_q / sigma_p), which is unbounded below as sigma_q -> 0; a KL needs ln(sigma_p /
sigma_q). Eq. 2 leaves mu = 0 undefined; Eq. 5 takes s = +1 there, and so does the gradient here (torch's own |.| has
gradient 0 at 0 and would stay there).

KL_B is the KL to the *nearest* mode, a prior that depends on x: a surrogate, never a rate. The reported rate is the KL
to the normalised mixture p = prod_d [1/2 N(-r, 1) + 1/2 N(+r, 1)]. From ln p(z) = ln N(z; 0, 1) - r^2/2 + ln cosh(r
z), per dimension,

    KL(q || p) = KL(q || N(0, 1)) + r^2 / 2 - E_q[ln cosh(r z)]

which is the closed form at r = 0 and never above KL_B + ln 2: `kernels.gaussian_mixture_kl`, within 1e-6 nats of
adaptive integration (tests/priors)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from distvae.batch import Noise
from distvae.kernels import gaussian_mixture_kl
from distvae.kernels.philox import Stream
from distvae.kernels.reference import log_cosh
from distvae.part import Hyper, hold
from distvae.posteriors.gaussian import NormalQ
from distvae.priors.normal import kl_standard_normal, log_normal
from distvae.priors.prior import PriorModule, PriorPart


@dataclass(frozen=True, kw_only=True)
class Binarized(PriorPart):
    """Two modes at -r and +r per dimension, trained by the nearest one (S1)."""

    type: Literal["binarized"] = "binarized"
    r: Annotated[
        float, Hyper(low=0.0, high=100.0, symbol="r", doc="distance of a mode from 0, in prior std (S1 Eq. 3)")
    ] = 0.5

    surrogate: ClassVar[bool] = True

    def build(self, latent_dim: int, x_shape: Sequence[int] = ()) -> BinarizedPrior:
        return BinarizedPrior(self, latent_dim)


class BinarizedPrior(PriorModule):
    r: Tensor

    def __init__(self, part: Binarized, latent_dim: int):
        super().__init__()
        self.latent_dim = latent_dim
        hold(self, r=part.r)

    def locate(self, z: Tensor) -> Tensor:
        return torch.where(z >= 0, z - self.r, z + self.r)  # Eq. 3, with the sign it came with

    def divergence(self, q: NormalQ, z: Tensor | None = None) -> Tensor:
        """The surrogate KL_B `[B, D]`, nats: what the objective weighs."""
        return kl_standard_normal(self.locate(q.mu), q.var)  # Eq. 4

    def rate(self, q: NormalQ, z: Tensor | None = None) -> Tensor:
        """KL(q || 1/2 N(-r) + 1/2 N(+r)) `[B, D]`, nats."""
        mu, logvar = q.mu.reshape(1, -1), q.var.log().reshape(1, -1)
        return gaussian_mixture_kl(mu, logvar, self.r).reshape(q.mu.shape)

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) of the mixture `[...]`, nats, of z `[..., D]`."""
        return (log_normal(z) - 0.5 * self.r.square() + log_cosh(self.r * z)).sum(-1)

    def sample(self, noise: Noise, like: Tensor) -> Tensor:
        """Reduced-bias sampling (S1 Section 4.4): either mode with probability 1/2. `[B, D]`, one for each address."""
        eps, u = noise.normal(1, self.latent_dim, like)[:, 0], noise.uniform(Stream.CHOICE, self.latent_dim, like)
        return eps + torch.where(u < 0.5, -self.r, self.r)
