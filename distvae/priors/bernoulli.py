"""Bernoulli prior (S5): c independent bits, each 1 with probability p.

    KL(q || p) = sum_i q_i ln(q_i / p) + (1 - q_i) ln((1 - q_i) / (1 - p)),  at most c ln 2 at p = 1/2

S5 does not state its prior; Ber(1/2) is a guess, which is why p is a knob."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from distvae.batch import Noise
from distvae.part import Hyper, hold
from distvae.posteriors.bernoulli import BernoulliQ
from distvae.priors.prior import PriorPart


@dataclass(frozen=True, kw_only=True)
class Bernoulli(PriorPart):
    """Independent bits, each 1 with probability p."""

    type: Literal["bernoulli"] = "bernoulli"
    p: Annotated[float, Hyper(above=0.0, below=1.0, symbol="pi", doc="probability of a 1 in every bit")] = 0.5

    space: ClassVar[str] = "bits"
    closed_form: ClassVar[bool] = True
    factorised: ClassVar[bool] = True

    def build(self, latent_dim: int, x_shape: Any = None) -> BernoulliPrior:
        return BernoulliPrior(self)


class BernoulliPrior(nn.Module):
    p: Tensor

    def __init__(self, part: Bernoulli):
        super().__init__()
        hold(self, p=part.p)

    def forward(self, encode: Any, batch: Any) -> BernoulliPrior:
        return self

    def divergence(self, q: BernoulliQ, z: Tensor) -> Tensor:
        """KL(q || p) `[B, c]`, nats."""
        one, zero = logsigmoid(q.logits), logsigmoid(-q.logits)
        return one.exp() * (one - self.p.log()) + zero.exp() * (zero - (-self.p).log1p())

    def rate(self, q: BernoulliQ, z: Tensor) -> Tensor:
        """The same thing."""
        return self.divergence(q, z)

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) `[...]` nats of bits `[..., c]`."""
        return (z * self.p.log() + (1.0 - z) * (-self.p).log1p()).sum(-1)

    def sample(self, noise: Noise, like: Tensor) -> Tensor:
        """z `[B, c]`; `like` has c entries."""
        return (noise.uniforms(1, like.shape[-1], like)[:, 0] < self.p.double()).to(like.dtype)

    def locate(self, z: Tensor) -> Tensor:
        return z
