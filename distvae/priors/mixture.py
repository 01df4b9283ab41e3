"""Mixture of K diagonal Gaussians (Dilokthanakul et al. 2016; class-conditional: van de Ven et al. 2020, the prior of S1's
BI-R(GMM)), and `GaussianMixture`, what every prior of Gaussian components conditions itself to.

    p(z) = sum_k w_k N(z; m_k, diag v_k)        KL(q || p) = E_q[log q(z|x) - log p(z)],  Monte Carlo over q's samples

by: none    trains on that Monte Carlo KL. Weights, means and log variances are learned.
by: label   an example of class y trains on KL(q || N(m_y, v_y)), in closed form: a surrogate, for the label says which
            component it was. The rate is to the marginal mixture, w_k = 1/K (no KL to a component could learn w):
            KL(q || p) <= KL(q || N(m_y, v_y)) + ln K.

Errata. The released code of van de Ven et al. leaves the 2 pi out of its log densities; here they are in, so the rate is
nats to a normalised density. Its means and log variances start as N(0, 1) draws; ours start at scale N(0, 1) and at
2 ln std, so that no component begins far too narrow.

Choices. `learned: false` is one and the same prior in every trial: its normals have an address without the trial's
seed. `means: circle` places the means on a circle of radius `scale` in the first two dimensions (evenly on [-scale, scale]
if there is one), 0 in the others. The densities are sums of squares, never expanded ones, which cancel."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from distvae.batch import Batch, Noise
from distvae.kernels import philox
from distvae.kernels.philox import Stream
from distvae.nets.init import address
from distvae.part import Hyper
from distvae.posteriors.gaussian import NormalQ
from distvae.priors.normal import kl_normal
from distvae.priors.prior import Encode, PriorPart, monte_carlo_kl

BLOCK = 2**22  # entries of [rows, K, D] at a time


class GaussianMixture(NamedTuple):
    """sum_k w_k N(m_k, diag v_k), and the prior p(z) of a step that is one. z, means and variances may differ in dtype:
    the wider one is computed in."""

    log_w: Tensor  # [K] sums to 1
    mean: Tensor  # [K, D]
    var: Tensor  # [K, D]

    def apart(self, z: Tensor) -> Tensor:
        """z - m_k `[..., K, D]` of z `[..., D]`."""
        return z[..., None, :] - self.mean

    def log_components(self, apart: Tensor) -> Tensor:
        """log w_k + log N(z; m_k, v_k) `[..., K]`, nats, of `apart` `[..., K, D]`."""
        return self.log_w - 0.5 * (apart.square() / self.var + (2.0 * math.pi * self.var).log()).sum(-1)

    def by_rows(self, f: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        """f(*tensors), a block of the first axis at a time, so that `[rows, K, D]` stays small."""
        n = max(1, BLOCK // max(1, tensors[0][:1].numel() * len(self.log_w)))
        return torch.cat([f(*some) for some in zip(*(t.split(n) for t in tensors), strict=True)])

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) `[...]`, nats, of z `[..., D]`."""
        flat = self.by_rows(lambda z: self.log_components(self.apart(z)).logsumexp(-1), z.reshape(-1, z.shape[-1]))
        return flat.reshape(z.shape[:-1])

    def responsibilities(self, z: Tensor) -> Tensor:
        """p(k|z) `[..., K]` of z `[..., D]`."""
        return self.log_components(self.apart(z)).softmax(-1)

    def choose(self, u: Tensor) -> Tensor:
        """The component `[B]` of uniforms `[B]`: its number by the inverse of the distribution function."""
        return torch.searchsorted(self.log_w.double().exp().cumsum(0), u).clamp(max=len(self.log_w) - 1)

    # --- as the prior of a step ---------------------------------------------------------------------------------------

    @property
    def base(self) -> GaussianMixture:
        return self

    def divergence(self, q: Any, z: Tensor) -> Tensor:
        """KL(q || p) by Monte Carlo `[B, 1]`, nats, of z `[B, S, D]` ~ q."""
        return monte_carlo_kl(q, z, self.log_prob(z))

    def rate(self, q: Any, z: Tensor) -> Tensor:
        return self.divergence(q, z)

    def sample(self, noise: Noise, like: Tensor) -> Tensor:
        """z `[B, D]`, one for each address."""
        k = self.choose(noise.uniform(Stream.CHOICE, 1, like)[:, 0])
        eps = noise.normal(1, self.mean.shape[-1], like)[:, 0]
        return (self.mean[k] + self.var[k].sqrt() * eps).to(like.dtype)

    def locate(self, z: Tensor) -> Tensor:
        return z


class LabelledMixture(NamedTuple):
    """A mixture whose component is known by the example's label."""

    mixture: GaussianMixture
    y: Tensor | None  # [B]; None where only the marginal is asked for

    def apart(self, mu: Tensor) -> Tensor:
        """mu - m_y `[B, D]`"""
        return mu - self.mixture.mean[self._labels()]

    def kl(self, apart: Tensor, var: Tensor) -> Tensor:
        """KL(N(mu, var) || N(m_y, v_y)) `[B, D]`, nats, of `apart` = mu - m_y."""
        return kl_normal(apart, var, self.mixture.var[self._labels()])

    def _labels(self) -> Tensor:
        assert self.y is not None, "the data have no labels"
        return self.y

    @property
    def base(self) -> LabelledMixture:
        return self

    def divergence(self, q: NormalQ, z: Tensor) -> Tensor:
        """KL to the label's component `[B, D]`, nats: a surrogate."""
        return self.kl(self.apart(q.mu), q.var)

    def rate(self, q: NormalQ, z: Tensor) -> Tensor:
        """KL to the marginal mixture by Monte Carlo `[B, 1]`, nats."""
        return self.mixture.rate(q, z)

    def log_prob(self, z: Tensor) -> Tensor:
        return self.mixture.log_prob(z)

    def sample(self, noise: Noise, like: Tensor) -> Tensor:
        return self.mixture.sample(noise, like)

    def locate(self, z: Tensor) -> Tensor:
        return z


@dataclass(frozen=True, kw_only=True)
class Mixture(PriorPart):
    """K diagonal Gaussians, learned or fixed; class-conditional with `by: label`."""

    type: Literal["mixture"] = "mixture"
    components: Annotated[int, Hyper(low=1, high=65536, symbol="K", doc="Gaussians; by label: one for each class")] = 10
    learned: Annotated[bool, Hyper(doc="learn weights, means and variances (else they stay as placed)")] = True
    by: Annotated[
        Literal["none", "label"],
        Hyper(doc="label: the class says the component, the rate is to the marginal (van de Ven et al. 2020)"),
    ] = "none"
    means: Annotated[
        Literal["normals", "circle"], Hyper(doc="where the means are placed: by addressed normals, or on a circle")
    ] = "normals"
    scale: Annotated[float, Hyper(low=0.0, doc="std of the placed means by normals, or radius of their circle")] = 1.0
    std: Annotated[float, Hyper(above=0.0, doc="std of every component, as placed")] = 1.0

    closed_form: ClassVar[bool] = False  # the rate takes samples, by label too

    @property
    def factorised(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.by == "label"

    @property
    def surrogate(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.by == "label"

    @property
    def labels(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.by == "label"

    def build(self, latent_dim: int, x_shape: Sequence[int] = ()) -> MixturePrior:
        return MixturePrior(self, latent_dim)

    def place(self, latent_dim: int, seed: int, name: str) -> Tensor:
        """The means `[K, D]` as placed, float64."""
        k, d = self.components, latent_dim
        if self.means == "normals":
            unit = torch.from_numpy(philox.normal(seed, Stream.INIT, index=range(k), step=address(name), dim=d)[:, 0])
        elif d == 1:
            unit = torch.linspace(-1, 1, k, dtype=torch.float64)[:, None]
        else:
            angle = 2.0 * math.pi * torch.arange(k, dtype=torch.float64) / k
            unit = torch.stack([angle.cos(), angle.sin(), *(torch.zeros_like(angle),) * (d - 2)], -1)
        return self.scale * unit


class MixturePrior(nn.Module):
    mean: Tensor
    logvar: Tensor
    logits: Tensor

    def __init__(self, part: Mixture, latent_dim: int):
        super().__init__()
        self.part, self.latent_dim = part, latent_dim
        k = part.components
        state = {
            "mean": part.place(latent_dim, 0, "mixture.mean"),
            "logvar": torch.full((k, latent_dim), 2.0 * math.log(part.std), dtype=torch.float64),
            "logits": torch.zeros(k, dtype=torch.float64),
        }
        for name, value in state.items():
            if part.learned and not (name == "logits" and part.by == "label"):
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value, persistent=False)

    @torch.no_grad()
    def initialize(self, seed: int, name: str) -> None:
        """Learned means start where (trial seed, parameter name) says; under `binarized`, where they would alone."""
        if self.part.learned:
            self.mean.copy_(self.part.place(self.latent_dim, seed, f"{name.removesuffix('.over')}.mean"))

    def forward(self, encode: Encode, batch: Batch) -> GaussianMixture | LabelledMixture:
        mixture = GaussianMixture(self.logits.log_softmax(0), self.mean, self.logvar.exp())
        return LabelledMixture(mixture, batch.y) if self.part.by == "label" else mixture
