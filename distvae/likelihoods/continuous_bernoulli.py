"""Continuous Bernoulli (Loaiza-Ganem and Cunningham, NeurIPS 2019): the Bernoulli of grey pixels made a density on
[0, 1] by its normaliser. With logit l = ln(lambda / (1 - lambda)) from the decoder

    p(x|l) = C(lambda) lambda^x (1 - lambda)^(1-x) = e^(l x) l / (e^l - 1)
    C(lambda) = 2 artanh(1 - 2 lambda) / (1 - 2 lambda) = l / tanh(l / 2),  C(1/2) = 2

    -log p = g(-l) - l x = g(l) + l (1 - x)      g(a) = ln((1 - e^-a) / a)
    E[x|l] = 1/2 + (coth(l/2) - 2/l) / 2

The paper computes C by lambda and replaces it by a Taylor series on 0.499 < lambda < 0.501; by logits nothing is lost
at either end, and the series (`stable.py`) is to rounding. The mean is not lambda. Knows no other scale: the density
of grey pixels is at most that of a truncated exponential."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from distvae.batch import Batch
from distvae.likelihoods.likelihood import LikelihoodPart
from distvae.likelihoods.stable import langevin, log_decay


@dataclass(frozen=True, kw_only=True)
class ContinuousBernoulli(LikelihoodPart):
    """Continuous Bernoulli pixels: cross-entropy with its normaliser, a density of grey images."""

    type: Literal["continuous_bernoulli"] = "continuous_bernoulli"

    unit: ClassVar[bool] = True

    def build(self, x_shape: Sequence[int]) -> ContinuousBernoulliLikelihood:
        return ContinuousBernoulliLikelihood()


class ContinuousBernoulliLikelihood(nn.Module):
    def nll(self, y: Tensor, x: Tensor, batch: Batch) -> Tensor:
        """-log p(x|z) `[B, S]` nats of logits `y` `[B, S, P]` and pixels `x` `[B, P]` in [0, 1]."""
        up = y >= 0  # the two forms are equal: by the sign of l neither is a difference of large numbers
        a = torch.where(up, y, -y)  # not y.abs(), whose gradient at 0 is 0
        x = x[:, None]
        return (log_decay(a) + a * torch.where(up, 1.0 - x, x)).sum(-1)

    def mean(self, y: Tensor) -> Tensor:
        """E[x|z], the shape of `y`."""
        return 0.5 + 0.5 * langevin(0.5 * y)
