"""Bernoulli likelihood p(x|z) = prod_i pi_i^x_i (1 - pi_i)^(1 - x_i), logits from the decoder.

On grey pixels x in (0, 1) its -log is the binary cross-entropy, which is the expectation of -log p(b|z) over b ~
Bernoulli(x): a statement about *binary* images (measure `binary`), not a density of grey ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from distvae.batch import Batch
from distvae.kernels.cross_entropy import bernoulli_nll
from distvae.likelihoods.likelihood import LikelihoodPart


@dataclass(frozen=True, kw_only=True)
class Bernoulli(LikelihoodPart):
    """Bernoulli pixels: summed binary cross-entropy, nats per image."""

    type: Literal["bernoulli"] = "bernoulli"

    @property
    def measure(self) -> str:
        return "binary"

    @property
    def unit(self) -> bool:
        return True

    def build(self, x_shape: Sequence[int]) -> BernoulliLikelihood:
        return BernoulliLikelihood()


class BernoulliLikelihood(nn.Module):
    def nll(self, y: Tensor, x: Tensor, batch: Batch) -> Tensor:
        """-log p(x|z) `[B, S]` nats of logits `y` `[B, S, P]` and pixels `x` `[B, P]`."""
        return bernoulli_nll(y, x)

    def mean(self, y: Tensor) -> Tensor:
        """E[x|z], the shape of `y`."""
        return y.sigmoid()
