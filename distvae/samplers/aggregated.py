"""A Gaussian mixture fitted to the aggregated posterior of the training examples (Ghosh et al., "From Variational to
Deterministic Autoencoders", 2020): ex-post density estimation, which gives any autoencoder a sampler.

    q(z) = 1/N sum_i q(z|x_i)  ~  sum_k w_k N(m_k, C_k)

Theirs has 10 components with full covariances. scikit-learn's expectation maximisation fits it, from a k-means start
whose seed is ours; the draws are ours, by address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from distvae.kernels.philox import Stream
from distvae.part import Hyper
from distvae.samplers.sampler import Fitted, Of, SamplerError, SamplerPart, codes, drawn, only_real, posterior
from distvae.vae import Vae

ITERATIONS = 300  # of expectation maximisation, at most


@dataclass(frozen=True, kw_only=True)
class Aggregated(SamplerPart):
    """z from a Gaussian mixture fitted to the training examples' z (Ghosh et al. 2020)."""

    type: Literal["aggregated"] = "aggregated"
    components: Annotated[int, Hyper(low=1, high=10_000, doc="components of the mixture")] = 10
    covariance: Annotated[Literal["full", "diag"], Hyper(doc="covariance of a component")] = "full"
    of: Of = "draws"

    examples: ClassVar[bool] = True

    def refusal(self, vae: Vae) -> str | None:
        return only_real(vae)

    def _fit(self, vae: Vae, x: Tensor, seed: int) -> AggregatedSampler:
        from sklearn.mixture import GaussianMixture

        if len(x) < max(2, self.components):
            raise SamplerError(f"sampler.components: {self.components} is too many for {len(x)} examples")
        z = codes(posterior(vae, x), self.of, seed)
        start = seed % 2**32  # as much as scikit-learn takes
        model = GaussianMixture(
            self.components, covariance_type=self.covariance, max_iter=ITERATIONS, random_state=start
        )
        model.fit(z.double().cpu().numpy())
        weights, means, covariances = (
            torch.from_numpy(a).to(z.device) for a in (model.weights_, model.means_, model.covariances_)
        )
        factors = torch.linalg.cholesky(covariances) if self.covariance == "full" else covariances.sqrt().diag_embed()
        return AggregatedSampler(vae, weights, means, factors)


class AggregatedSampler(Fitted):
    def __init__(self, vae: Vae, weights: Tensor, means: Tensor, factors: Tensor):
        super().__init__(vae)
        self.weights, self.means, self.factors = weights, means, factors  # [K], [K, D], [K, D, D], float64

    def latents(self, n: int, seed: int = 0) -> Tensor:
        noise = drawn(n, seed)
        u, eps = noise.uniform(Stream.CHOICE, 1, self.means)[:, 0], noise.normal(1, self.means.shape[-1], self.means)
        k = torch.searchsorted(self.weights.cumsum(0), u).clamp_max(len(self.weights) - 1)
        z = self.means[k] + (self.factors[k] @ eps[:, 0, :, None])[..., 0]
        return z.to(self.vae.dtype)
