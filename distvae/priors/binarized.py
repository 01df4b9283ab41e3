"""Binarized prior (S1, Eqs. 3-5): two symmetric Gaussians per latent dimension in place of each of another prior's,
r to either side of its mean. Over the standard normal, the default, they are unit Gaussians at -r and +r.

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
adaptive integration (tests/priors).

Over a mixture sum_k w_k N(m_k, v_k) (methods S1.7: the paper has no formula). Training shifts every component's mean
towards the posterior's, as Eq. 5 does the one: m_kd + r s_kd, s_kd = +1 if mu_d >= m_kd else -1, and then does what the
base does: Monte Carlo, or the closed form to the label's component. The reported rate is the KL to the normalised

    p(z) = sum_k w_k prod_d [1/2 N(z_d; m_kd - r, v_kd) + 1/2 N(z_d; m_kd + r, v_kd)]
         = sum_k w_k prod_d N(a_d - r; 0, v_kd) 1/2 (1 + exp(-2 r a_d / v_kd)),      a_d = |z_d - m_kd|

by Monte Carlo. r is added to means as it stands (Eqs. 3 and 5), not in units of a component's std; r = 0 is the base bit
for bit. `locate` is relative to the component most likely to have z."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from distvae.batch import Batch, Noise
from distvae.kernels import gaussian_mixture_kl
from distvae.kernels.philox import Stream
from distvae.kernels.reference import log_cosh
from distvae.part import Hyper, hold
from distvae.posteriors.gaussian import NormalQ
from distvae.priors.mixture import GaussianMixture, LabelledMixture, Mixture
from distvae.priors.normal import Normal, NormalPrior, kl_standard_normal, log_normal
from distvae.priors.prior import Encode, PriorModule, PriorPart, monte_carlo_kl
from distvae.priors.vamp import Vamp


def located(apart: Tensor, r: Tensor) -> Tensor:
    """Eq. 3, with the sign it came with: `apart` = mu - mu_p, relative to the nearer mode."""
    return torch.where(apart >= 0, apart - r, apart + r)


@dataclass(frozen=True, kw_only=True)
class Binarized(PriorPart):
    """Two modes, r below and above the mean, per dimension and component, trained by the nearest one (S1)."""

    type: Literal["binarized"] = "binarized"
    r: Annotated[
        float,
        Hyper(low=0.0, high=100.0, symbol="r", doc="distance of a mode from its mean (S1 Eq. 3)"),
    ] = 0.5
    over: Annotated[Normal | Mixture | Vamp, Hyper(doc="the prior whose Gaussians become two modes a dimension")] = (
        Normal()  # noqa: RUF009
    )

    surrogate: ClassVar[bool] = True

    @property
    def closed_form(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.over.closed_form

    @property
    def factorised(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.over.factorised

    @property
    def labels(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.over.labels

    def build(self, latent_dim: int, x_shape: Sequence[int] = ()) -> nn.Module:
        if isinstance(self.over, Normal):
            return BinarizedPrior(self, latent_dim)
        return BinarizedOver(self, self.over.build(latent_dim, x_shape))


class BinarizedPrior(PriorModule):
    """Over the standard normal."""

    r: Tensor

    def __init__(self, part: Binarized, latent_dim: int):
        super().__init__()
        self.latent_dim = latent_dim
        hold(self, r=part.r)

    @property
    def offset(self) -> Tensor:
        return self.r

    def locate(self, z: Tensor) -> Tensor:
        return located(z, self.r)

    @property
    def base(self) -> Any:
        return NormalPrior(self.latent_dim)

    def divergence(self, q: NormalQ, z: Tensor | None = None) -> Tensor:
        """The surrogate KL_B `[B, D]`, nats: what the objective weighs."""
        return kl_standard_normal(self.locate(q.mu), q.var)  # Eq. 4

    def rate(self, q: NormalQ, z: Tensor | None = None) -> Tensor:
        """KL(q || 1/2 N(-r) + 1/2 N(+r)) `[B, D]`, nats; the quadrature in the trial's own dtype."""
        mu, logvar = (t.to(self.r.dtype).reshape(1, -1) for t in (q.mu, q.var.log()))
        return gaussian_mixture_kl(mu, logvar, self.r).reshape(q.mu.shape)

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) of the mixture `[...]`, nats, of z `[..., D]`."""
        return (log_normal(z) - 0.5 * self.r.square() + log_cosh(self.r * z)).sum(-1)

    def sample(self, noise: Noise, like: Tensor) -> Tensor:
        """Reduced-bias sampling (S1 Section 4.4): either mode with probability 1/2. `[B, D]`, one for each address."""
        eps, u = noise.normal(1, self.latent_dim, like)[:, 0], noise.uniform(Stream.CHOICE, self.latent_dim, like)
        return eps + torch.where(u < 0.5, -self.r, self.r)


class BinarizedOver(nn.Module):
    """Over a mixture: the module of that prior, conditioned on the batch as it would be alone."""

    r: Tensor

    def __init__(self, part: Binarized, over: nn.Module):
        super().__init__()
        self.over = over
        hold(self, r=part.r)

    def forward(self, encode: Encode, batch: Batch) -> BinarizedMixture:
        return BinarizedMixture(self.over(encode, batch), self.r)


class BinarizedMixture:
    """p(z) of a step, over a mixture."""

    def __init__(self, base: GaussianMixture | LabelledMixture, r: Tensor):
        self.base, self.r = base, r
        self.mixture = base.mixture if isinstance(base, LabelledMixture) else base

    def divergence(self, q: NormalQ, z: Tensor) -> Tensor:
        """What the base trains on, with every mean shifted by r towards q's: `[B, 1]`, or `[B, D]` by label, nats."""
        if isinstance(self.base, LabelledMixture):
            return self.base.kl(located(self.base.apart(q.mu), self.r), q.var)
        return monte_carlo_kl(q, z, self.mixture.by_rows(self._log_nearest, z, q.mu))

    def _log_nearest(self, z: Tensor, mu: Tensor) -> Tensor:
        """log sum_k w_k N(z; m_k + r s_k, v_k) `[B, S]` of z `[B, S, D]`, the signs s_k of mu `[B, D]`."""
        shift = torch.where(self.mixture.apart(mu) >= 0, self.r, -self.r)[:, None]  # Eq. 5, [B, 1, K, D]
        return self.mixture.log_components(self.mixture.apart(z) - shift).logsumexp(-1)

    def rate(self, q: NormalQ, z: Tensor) -> Tensor:
        """KL(q || p) by Monte Carlo `[B, 1]`, nats, to the normalised mixture of modes."""
        return monte_carlo_kl(q, z, self.log_prob(z))

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) `[...]`, nats, of z `[..., D]`."""
        return self.mixture.by_rows(self._log_modes, z.reshape(-1, z.shape[-1])).reshape(z.shape[:-1])

    def _log_modes(self, z: Tensor) -> Tensor:
        far = self.mixture.apart(z).abs()
        both = (torch.exp(-2.0 * self.r * far / self.mixture.var).log1p() - math.log(2.0)).sum(-1)
        return (self.mixture.log_components(far - self.r) + both).logsumexp(-1)

    def sample(self, noise: Noise, like: Tensor) -> Tensor:
        """Reduced-bias sampling: the base's draw, moved to either mode with probability 1/2. `[B, D]`"""
        z = self.base.sample(noise, like)
        u = noise.uniform(Stream.CHOICE, 1 + z.shape[-1], like)[:, 1:]  # the first one chose the component
        return z + torch.where(u < 0.5, -self.r, self.r)

    def locate(self, z: Tensor) -> Tensor:
        with torch.no_grad():
            nearest = self.mixture.by_rows(
                lambda z: self.mixture.responsibilities(z).argmax(-1), z.reshape(-1, z.shape[-1])
            )
        mean = self.mixture.mean[nearest].reshape(z.shape)
        return torch.where(z >= mean, z - self.r, z + self.r)
