"""Discretised logistic mixture (PixelCNN++, Salimans et al., ICLR 2017; a row of S4's table): the mass of a byte b is
what a mixture of M logistic densities has on [b - 1/2, b + 1/2], the bins of 0 and 255 open to -inf and inf, so that the
256 masses sum to 1.

    P(b) = sum_m pi_m [F_m(b + 1/2) - F_m(b - 1/2)]      F_m(t) = sigmoid((t - mu_m) / s_m)
    E[byte] = sum_{b=1..255} P(byte >= b)                = sum_b sum_m pi_m sigmoid((mu_m - b + 1/2) / s_m)

Per scalar pixel the decoder gives 3 M numbers: logits of pi, then means, then log scales, the latter two as in the paper
for pixels rescaled to [-1, 1] (0 is a mean of 127.5 and a scale of 127.5 bytes). With a, c = (b -+ 1/2 - mu)/s

    sigmoid(c) - sigmoid(a) = sigmoid(c) sigmoid(-a) (1 - e^(-1/s))

exactly, without a difference of nearly equal numbers: no special case for small masses, as in the paper's code.
Choices: channels are independent given z (the paper's are autoregressive within a pixel, and its weights shared by the
channels); the floor of log s is a softplus, not a clamp, so that its gradient never dies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from distvae.batch import Batch
from distvae.likelihoods.likelihood import LikelihoodPart, bytes_of
from distvae.likelihoods.stable import log_decay
from distvae.part import Hyper, hold

WINDOW = 8  # bytes on either side of a mean


@dataclass(frozen=True, kw_only=True)
class LogisticMixture(LikelihoodPart):
    """Discretised logistic mixture pixels, as in PixelCNN++ but without autoregression."""

    type: Literal["logistic_mixture"] = "logistic_mixture"
    components: Annotated[int, Hyper(low=1, high=256, symbol="M", doc="logistics in each pixel's mixture")] = 5
    log_scale_min: Annotated[
        float, Hyper(low=-20.0, high=0.0, doc="soft floor of the log scale, pixels in [-1, 1]")
    ] = -7.0

    measure: ClassVar[str] = "mass256"
    levels: ClassVar[int] = 256

    def width(self, x_shape: Sequence[int]) -> int:
        return 3 * self.components * math.prod(x_shape)

    def build(self, x_shape: Sequence[int]) -> LogisticMixtureLikelihood:
        return LogisticMixtureLikelihood(self)


class LogisticMixtureLikelihood(nn.Module):
    log_scale_min: Tensor

    def __init__(self, part: LogisticMixture):
        super().__init__()
        self.components = part.components
        hold(self, log_scale_min=part.log_scale_min)

    def nll(self, y: Tensor, x: Tensor, batch: Batch) -> Tensor:
        """-log p(x|z) `[B, S]` nats of the decoder's `y` `[B, S, 3 M P]` and pixels `x` `[B, P]`."""
        log_pi, mu, log_s = self._mixture(y)  # [B, S, M, P]
        byte = bytes_of(x)[:, None, None]  # [B, 1, 1, P]
        centred, per_s = byte.to(y.dtype) - mu, (-log_s).exp()
        below, above = logsigmoid((centred + 0.5) * per_s), logsigmoid((0.5 - centred) * per_s)
        inner = below + above - log_s + log_decay(per_s)  # 1 - e^(-1/s) = (1/s) e^log_decay(1/s)
        mass = torch.where(byte == 0, below, torch.where(byte == 255, above, inner))
        return -(log_pi + mass).logsumexp(-2).sum(-1)

    def mean(self, y: Tensor) -> Tensor:
        """E[x|z] `[..., P]`."""
        log_pi, mu, log_s = self._mixture(y)
        return (log_pi.exp() * expected_byte(mu, (-log_s).exp())).sum(-2) / 255.0

    def _mixture(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log pi, means and log scales `[..., M, P]`, the latter two in bytes."""
        logits, mean, raw = y.unflatten(-1, (3, self.components, -1)).unbind(-3)
        log_s = torch.logaddexp(raw, self.log_scale_min)  # = min + softplus(raw - min)
        return logits.log_softmax(-2), 127.5 * (1.0 + mean), log_s + math.log(127.5)


def expected_byte(mu: Tensor, per_s: Tensor) -> Tensor:
    """sum_{b=1..255} sigmoid((mu - b + 1/2) / s), `per_s` = 1/s, to 1e-7: the edges within WINDOW of mu one by one, the
    sum over the others, where the sigmoid is smooth, by the Euler-Maclaurin formula."""
    per_s = per_s.clamp_min(1e-20)  # as flat, and finite
    start = (mu.detach().floor() - WINDOW).clamp(0.0, 255.0 - 2 * WINDOW)
    total = _smooth(mu, per_s, torch.zeros_like(start), start)
    total = total + _smooth(mu, per_s, start + 2 * WINDOW, torch.full_like(start, 255.0))
    for k in range(2 * WINDOW):
        total = total + ((mu - start - (k + 0.5)) * per_s).sigmoid()
    return total


def _smooth(mu: Tensor, per_s: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """sum_{b=p+1..q} f(b - 1/2), f(t) = sigmoid((mu - t) / s), away from mu: int_p^q f - f'/24 |_p^q + 7 f'''/5760 |_p^q."""
    u, v, d = (mu - p) * per_s, (mu - q) * per_s, (q - p) * per_s
    # the integral of f, where its two ends are nearly equal and where it is nearly a step at mu
    even = torch.log1p(v.sigmoid() * torch.expm1(d.clamp_max(1.0))) / per_s
    step = torch.minimum(torch.maximum(mu, p), q) - p + (_tail(u) - _tail(v)) / per_s
    return torch.where(d < 1.0, even, step) + _correction(v, per_s) - _correction(u, per_s)


def _tail(u: Tensor) -> Tensor:
    """softplus(u) - max(u, 0)."""
    return torch.log1p((-u.abs()).exp())


def _correction(u: Tensor, per_s: Tensor) -> Tensor:
    slope = u.sigmoid() * (-u).sigmoid()  # sigmoid'; sigmoid''' = slope (1 - 6 slope)
    return slope * per_s / 24.0 - 7.0 * slope * (1.0 - 6.0 * slope) * per_s**3 / 5760.0
