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

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from distvae.kernels import gaussian_mixture_kl
from distvae.kernels.reference import log_cosh
from distvae.part import Hyper, Part, hold
from distvae.posteriors.gaussian import NormalQ
from distvae.priors.normal import kl_standard_normal, log_normal


@dataclass(frozen=True, kw_only=True)
class Binarized(Part):
    """Two modes at -r and +r per dimension, trained by the nearest one (S1)."""

    type: Literal["binarized"] = "binarized"
    r: Annotated[
        float, Hyper(low=0.0, high=100.0, symbol="r", doc="distance of a mode from 0, in prior std (S1 Eq. 3)")
    ] = 0.5

    surrogate: ClassVar[bool] = True  # is `divergence` something else than the rate?

    def build(self, latent_dim: int) -> BinarizedPrior:
        return BinarizedPrior(self)


class BinarizedPrior(nn.Module):
    r: Tensor

    def __init__(self, part: Binarized):
        super().__init__()
        hold(self, r=part.r)

    def locate(self, mu: Tensor) -> Tensor:
        return torch.where(mu >= 0, mu, -mu) - self.r  # Eq. 3

    def divergence(self, q: NormalQ) -> Tensor:
        """The surrogate KL_B `[B, D]`, nats: what the objective weighs."""
        return kl_standard_normal(self.locate(q.mu), q.var)  # Eq. 4

    def rate(self, q: NormalQ) -> Tensor:
        """KL(q || 1/2 N(-r) + 1/2 N(+r)) `[B, D]`, nats."""
        mu, logvar = q.mu.reshape(1, -1), q.var.log().reshape(1, -1)
        return gaussian_mixture_kl(mu, logvar, self.r).reshape(q.mu.shape)

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) of the mixture `[..., D]`, nats."""
        return log_normal(z) - 0.5 * self.r.square() + log_cosh(self.r * z)

    def sample(self, eps: Tensor, u: Tensor) -> Tensor:
        """Reduced-bias sampling (S1 Section 4.4): either mode with probability 1/2. All `[N, D]`."""
        return eps + torch.where(u < 0.5, -self.r, self.r)
