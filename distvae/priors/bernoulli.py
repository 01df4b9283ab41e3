"""Bernoulli prior (S5): c independent bits, each 1 with probability p.

    KL(q || p) = sum_i q_i ln(q_i / p) + (1 - q_i) ln((1 - q_i) / (1 - p)),  at most c ln 2 at p = 1/2

S5 does not state its prior; Ber(1/2) is a guess, which is why p is a knob."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from torch import Tensor
from torch.nn.functional import logsigmoid

from distvae.batch import Noise
from distvae.part import Hyper, hold
from distvae.posteriors.bernoulli import BernoulliQ
from distvae.posteriors.posterior import Space
from distvae.priors.prior import PriorModule, PriorPart


@dataclass(frozen=True, kw_only=True)
class Bernoulli(PriorPart):
    """Independent bits, each 1 with probability p."""

    type: Literal["bernoulli"] = "bernoulli"
    p: Annotated[float, Hyper(above=0.0, below=1.0, symbol="pi", doc="probability of a 1 in every bit")] = 0.5

    space: ClassVar[Space] = "bits"

    def build(self, latent_dim: int, x_shape: Sequence[int] = ()) -> BernoulliPrior:
        return BernoulliPrior(self, latent_dim)


class BernoulliPrior(PriorModule):
    logit: Tensor

    def __init__(self, part: Bernoulli, latent_dim: int):
        super().__init__()
        self.latent_dim = latent_dim
        hold(self, logit=math.log(part.p) - math.log1p(-part.p))  # p = 1 - 1e-9 would round to 1 in float32

    def divergence(self, q: BernoulliQ, z: Tensor) -> Tensor:
        """KL(q || p) `[B, c]`, nats."""
        one, zero = logsigmoid(q.logits), logsigmoid(-q.logits)
        return one.exp() * (one - logsigmoid(self.logit)) + zero.exp() * (zero - logsigmoid(-self.logit))

    def rate(self, q: BernoulliQ, z: Tensor) -> Tensor:
        """The same thing."""
        return self.divergence(q, z)

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) `[...]` nats of bits `[..., c]`."""
        return (z * logsigmoid(self.logit) + (1.0 - z) * logsigmoid(-self.logit)).sum(-1)

    def sample(self, noise: Noise, like: Tensor) -> Tensor:
        """z `[B, c]`, one for each address."""
        return (noise.uniforms(1, self.latent_dim, like)[:, 0] < self.logit.double().sigmoid()).to(like.dtype)
