"""Uniform categorical prior (S5): each of c classes with probability 1/c.

    KL(q || p) = sum_i q_i ln(q_i c) = ln c - H(q),  at most ln c

S5 does not state its prior; uniform is a guess."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from distvae.batch import Noise
from distvae.posteriors.categorical import CategoricalQ
from distvae.priors.prior import PriorPart


@dataclass(frozen=True, kw_only=True)
class Categorical(PriorPart):
    """Every class alike."""

    type: Literal["categorical"] = "categorical"

    space: ClassVar[str] = "onehot"
    closed_form: ClassVar[bool] = True
    factorised: ClassVar[bool] = False

    def build(self, latent_dim: int, x_shape: Any = None) -> CategoricalPrior:
        return CategoricalPrior()


class CategoricalPrior(nn.Module):
    def forward(self, encode: Any, batch: Any) -> CategoricalPrior:
        return self

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
        """z `[B, c]` one-hot; `like` has c entries."""
        c = like.shape[-1]
        return one_hot((noise.uniforms(1, 1, like)[:, 0, 0] * c).long(), c).to(like.dtype)

    def locate(self, z: Tensor) -> Tensor:
        return z
