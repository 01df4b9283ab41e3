"""Hyperspherical posterior q(z|x) = vMF(mu, kappa) on S^d in R^{d+1} (Davidson et al. 2018; the S-VAE of S1 Table 1).

    q(z|x) = exp(kappa mu.z) / C,   log q = - kappa |z - mu|^2 / 2 - log_mass(kappa) - log|S^{d-1}|

with `log_mass` of `polar.py` (the Bessel function, stable) and with respect to surface measure; |z - mu|^2 / 2 = 1 -
mu.z keeps its digits in float32 where kappa is large. A draw is z = cos(theta) mu + sin(theta) v, theta by Wood's
rejection, v uniform among the unit vectors orthogonal to mu.

Gradients of z. In kappa: the implicit one of theta (`polar.velocity`), exact, so no correction for the rejection. In
mu: the rotation that takes mu to mu + eta takes one vMF to the other, and its velocity is

    dz = (mu.z) eta - (eta.z) mu,     |dz| <= |eta|

which we use instead of the derivative of a map noise -> z: every such map has a pole somewhere (no smooth frame on a
sphere), at one mu for the Householder reflection of the paper, and with infinite variance at d = 2 for a projected
Gaussian. Both are unbiased; a finite difference at fixed noise therefore does not see these gradients, an expectation
does (`tests/posteriors`).

Choices. `latent_dim` d is the dimension of the *sphere*: z has d + 1 entries, as in the authors' code. kappa =
softplus(.) + offset, offset 1 as there: below about 1 the posterior is nearly uniform and mu gets no gradient. The
direction is h / |h|, the first axis where h = 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, softplus

from distvae.batch import Batch, Noise
from distvae.kernels.philox import Stream
from distvae.part import Hyper, hold
from distvae.posteriors import polar
from distvae.posteriors.posterior import PosteriorPart, Space


class VonMisesFisherQ(NamedTuple):
    """A batch of von Mises-Fisher distributions on S^d."""

    direction: Tensor  # [B, d + 1], unit
    kappa: Tensor  # [B]

    @property
    def d(self) -> int:
        return self.direction.shape[-1] - 1

    @property
    def mu(self) -> Tensor:
        """E[z] = A_d(kappa) mu `[B, d + 1]`, inside the ball."""
        return self.direction * (1.0 - polar.shortfall(self.kappa, self.d)).to(self.direction.dtype)[:, None]

    def rsample(self, noise: Noise, samples: int) -> Tensor:
        """z `[B, samples, d + 1]`, unit, with gradients."""
        mu, kappa = normalize(self.direction.double(), dim=-1)[:, None], self.kappa.double()[:, None]
        moving_mu, moving_kappa = mu - mu.detach(), kappa - kappa.detach()  # 0, with a gradient
        mu, kappa = mu.detach(), kappa.detach()
        u = noise.uniforms(samples, 3 * polar.PROPOSALS, mu, Stream.PROPOSAL)
        theta = polar.draw(kappa, self.d, u)[..., None]
        v = noise.normal(samples, self.d + 1, mu)
        for _ in range(2):  # orthogonal to rounding, even where the noise is nearly along mu
            v = normalize(v - (v * mu).sum(-1, keepdim=True) * mu, dim=-1)
        z = theta.cos() * mu + theta.sin() * v
        if torch.is_grad_enabled():
            z = z + theta.cos() * moving_mu - (moving_mu * z).sum(-1, keepdim=True) * mu
            speed = polar.velocity(theta[..., 0], kappa, self.d)[..., None]
            z = z + moving_kappa[..., None] * speed * (theta.cos() * v - theta.sin() * mu)
        return z.to(self.direction.dtype)

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z|x) `[B, S]` nats of unit z `[B, S, d + 1]`, surface measure."""
        constant = polar.log_mass(self.kappa, self.d) + polar.log_area(self.d - 1)
        return -0.5 * self.kappa[:, None] * (z - self.direction[:, None]).square().sum(-1) - constant.to(z)[:, None]

    def double(self) -> VonMisesFisherQ:
        return VonMisesFisherQ(normalize(self.direction.double(), dim=-1), self.kappa.double())


@dataclass(frozen=True, kw_only=True)
class VonMisesFisher(PosteriorPart):
    """von Mises-Fisher q(z|x) on the sphere S^d in R^{d+1} (Davidson et al. 2018)."""

    type: Literal["von_mises_fisher"] = "von_mises_fisher"
    offset: Annotated[
        float, Hyper(low=0.0, doc="kappa = softplus(.) + offset, the least concentration (the authors' code: 1)")
    ] = 1.0

    space: ClassVar[Space] = "sphere"

    def width(self, latent_dim: int) -> int:
        return latent_dim + 2

    def code_dim(self, latent_dim: int) -> int:
        return latent_dim + 1

    def build(self, latent_dim: int) -> VonMisesFisherHead:
        return VonMisesFisherHead(self)


class VonMisesFisherHead(nn.Module):
    """Head `[B, d + 2]`: the concentration first, so that a narrower model's weights are a wider one's first rows."""

    offset: Tensor

    def __init__(self, part: VonMisesFisher):
        super().__init__()
        hold(self, offset=part.offset)

    def forward(self, h: Tensor, batch: Batch) -> VonMisesFisherQ:
        kappa, v = softplus(h[..., 0]) + self.offset, h[..., 1:]
        axis = torch.zeros_like(v[:1])
        axis[:, 0] = 1.0
        zero = (v == 0).all(-1, keepdim=True)
        return VonMisesFisherQ(normalize(torch.where(zero, axis, v), dim=-1, eps=1e-30), kappa)
