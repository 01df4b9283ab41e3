"""Uniform categorical prior (S5): each of c classes with probability 1/c.

    KL(q || p) = sum_i q_i ln(q_i c) = ln c - H(q),  at most ln c

S5 does not state its prior; uniform is a guess."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from distvae.batch import Noise
from distvae.posteriors.categorical import CategoricalQ, one_hot
from distvae.posteriors.posterior import Space
from distvae.priors.prior import PriorModule, PriorPart


@dataclass(frozen=True, kw_only=True)
class Categorical(PriorPart):
    """Every class alike."""

    type: Literal["categorical"] = "categorical"

    space: ClassVar[Space] = "onehot"
    factorised: ClassVar[bool] = False

    def build(self, latent_dim: int, x_shape: Sequence[int] = ()) -> CategoricalPrior:
        return CategoricalPrior(latent_dim)


class CategoricalPrior(PriorModule):
    def __init__(self, latent_dim: int):
        super().__init__()
        self.latent_dim = latent_dim

    def divergence(self, q: CategoricalQ, z: Tensor) -> Tensor:
        """KL(q || p) `[B, 1]`, nats."""
        log_q = q.logits.log_softmax(-1)
        return (log_q.exp() * (log_q + math.log(log_q.shape[-1]))).sum(-1, keepdim=True)

    def rate(self, q: CategoricalQ, z: Tensor) -> Tensor:
        """The same thing."""
        return self.divergence(q, z)

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) = -ln c `[...]` nats of one-hots `[..., c]`."""
        return torch.full_like(z[..., 0], -math.log(z.shape[-1]))

    def sample(self, noise: Noise, like: Tensor) -> Tensor:
        """z `[B, c]` one-hot, one for each address."""
        k = (noise.uniforms(1, 1, like)[:, 0, 0] * self.latent_dim).long()
        return one_hot(k, like.new_empty(self.latent_dim))
