"""Uniform prior on the sphere S^d in R^{d+1} (Davidson et al. 2018), for the von Mises-Fisher posterior.

    KL(vMF(mu, kappa) || uniform) = kappa A_d(kappa) + log C(kappa) + log|S^d|
                                  = -kappa (1 - A_d) - log_mass(kappa) + log_mass(0)

in the terms of `posteriors/polar.py`; its derivative in kappa is kappa Var[w]. It grows as d/2 ln kappa."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from distvae.batch import Noise
from distvae.posteriors import polar
from distvae.posteriors.posterior import Space
from distvae.posteriors.von_mises_fisher import VonMisesFisherQ
from distvae.priors.prior import PriorModule, PriorPart


@dataclass(frozen=True, kw_only=True)
class UniformSphere(PriorPart):
    """Uniform on the sphere S^d (Davidson et al. 2018)."""

    type: Literal["uniform_sphere"] = "uniform_sphere"

    space: ClassVar[Space] = "sphere"
    factorised: ClassVar[bool] = False

    def build(self, latent_dim: int, x_shape: Sequence[int] = ()) -> UniformSpherePrior:
        return UniformSpherePrior(latent_dim)


class UniformSpherePrior(PriorModule):
    def __init__(self, latent_dim: int):
        super().__init__()
        self.latent_dim = latent_dim

    def divergence(self, q: VonMisesFisherQ, z: Tensor) -> Tensor:
        """KL(q || p) `[B, 1]`, nats."""
        kappa, d = q.kappa.double(), q.d
        flat = 0.5 * math.log(math.pi) + math.lgamma(0.5 * d) - math.lgamma(0.5 * (d + 1))  # log_mass(0)
        log_mass, shortfall = polar.constants(kappa, d)
        kl = flat - log_mass - kappa * shortfall
        return kl.to(q.kappa.dtype)[:, None]

    def rate(self, q: VonMisesFisherQ, z: Tensor) -> Tensor:
        """The same thing."""
        return self.divergence(q, z)

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) = -log|S^d| `[...]` nats of unit z `[..., d + 1]`."""
        return torch.full_like(z[..., 0], -polar.log_area(z.shape[-1] - 1))

    def sample(self, noise: Noise, like: Tensor) -> Tensor:
        """z `[B, d + 1]`, unit, one for each address."""
        return normalize(noise.normal(1, self.latent_dim + 1, like)[:, 0], dim=-1)
