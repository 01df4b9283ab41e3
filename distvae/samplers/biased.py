"""Biased sampling (S1 Section 4.4): each mode of a binarized prior as often as the data set goes there, per dimension,

    z_d ~ p(z_d > mu_p|X) N(mu_p + r, sigma_p^2) + p(z_d < mu_p|X) N(mu_p - r, sigma_p^2)

"to restore the distribution of an imbalanced data set". The frequencies are counted over one z ~ q(z|x) of each training
example, or over the means (`of`); S1 does not say which. The dimensions stay independent: what the data set says of two
dimensions together is lost. Over a mixture of Gaussians mu_p is the mean of the component that most likely drew z, and
one frequency per dimension serves all components (S1 has no formula there)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from distvae.kernels.philox import Stream
from distvae.samplers.sampler import Fitted, Of, SamplerPart, codes, drawn, posterior
from distvae.samplers.unbinarized import only_binarized
from distvae.vae import Vae


@dataclass(frozen=True, kw_only=True)
class Biased(SamplerPart):
    """z from a binarized prior, each mode as often as the training examples take it (S1)."""

    type: Literal["biased"] = "biased"
    of: Of = "draws"

    examples: ClassVar[bool] = True

    def refusal(self, vae: Vae) -> str | None:
        return only_binarized(vae)

    @torch.no_grad()
    def _fit(self, vae: Vae, x: Tensor, seed: int) -> BiasedSampler:
        z = codes(posterior(vae, x), self.of, seed)
        above = z > vae.prior_for(drawn(0, seed)).locate(z)  # Eq. 3 moves z >= mu_p down by r
        return BiasedSampler(vae, above.double().mean(0))


class BiasedSampler(Fitted):
    def __init__(self, vae: Vae, up: Tensor):
        super().__init__(vae)
        self.up = up  # [D] frequency of the upper mode, float64

    @torch.no_grad()
    def latents(self, n: int, seed: int = 0) -> Tensor:
        noise, like = drawn(n, seed), next(self.vae.encoder.parameters())
        p = self.vae.prior_for(noise)
        u = drawn(n, seed, step=1).uniform(Stream.CHOICE, len(self.up), like)  # the base may choose at step 0
        r = self.vae.prior.r
        return p.base.sample(noise, like) + torch.where(u < self.up, r, -r)
