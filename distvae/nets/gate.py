"""Gates of beta: Multi-Rate VAE (Bae et al., "Multi-Rate VAE: Train Once, Get the Full Rate-Distortion Curve", ICLR
2023). Per feature f (unit or channel), with its own slope a and offset b and u = a log beta + b,

    encoder    h' = sigmoid(u) h                     after every hidden layer
    decoder    h' = sqrt(relu(1 - exp(u))) h         on its input z and after every hidden layer, never on the pixels

The decoder's gate is what the linear beta-VAE does. With Gaussian pixels of variance s^2 and a principal component of
variance l and direction v (methods 5.2.1),

    decoder column  w v,  w^2 = (l - beta s^2)+ = l relu(1 - exp(log beta + log(s^2/l)))
    posterior mean  (w/l) v'x,  variance min(1, beta s^2/l)

so its u is log beta + log(s^2/l); the mean has the *same* gate, no sigmoid; and the log variance is min(0, u): linear in
log beta while the dimension lives, that of the prior after. Hence, beyond MR-VAE (which has no official code),

    head, mean           h' = sqrt(relu(1 - exp(u))) h
    head, log variance   h' = h + min(0, u)

each with its own a and b, and this family holds the exact optimum of every beta at once (test_gate.py). A head that is
not (mean, log variance) pairs, `pairs=False`, has the mean's gate on everything: closed, logits are those of a fair draw.

Initial values are numbers, not draws: u = log beta - 5 (square-root gates: 0.95 at beta = 10, open below), u = 3
(sigmoid: 0.95), u = log beta - log 12 (log variance: that of a dimension that dies at beta = 12). MR-VAE's own, torch's
law for a Linear(1, F), would start with half of the square-root gates closed. A gate closed at every beta that training
draws has no gradient and stays closed; one that is closed at large beta only keeps learning from small ones.

Where the linear optimum's slope is 1 (all but the sigmoids), it is 1 + slope_rate s with s learned. Slope and offset are
nearly collinear over a range of log beta and Adam moves both alike, so in the linear VAE the slopes overshoot to 3 and
creep back: after 600 steps the squared error at the smallest beta is 15% off at a rate of 1, 5% at 0.1, and 0.1% at 0,
where the slope is 1 for good (closed-form expectations, no sampling noise). A net with hidden layers wants them free:
on digits (mlp 64, d = 8, 1320 steps, seed 0) the loss at beta = 1 and 10 is 24.80 and 27.84 at a rate of 1, 24.94 and
29.27 at 0.1, 24.98 and 30.05 at 0. So 1, MR-VAE's own, is the default, and 0 is for linear nets.

Near its closing a square-root gate's slope goes to infinity. Where 1 - exp(u) is below 1e-6 the chord to 0 replaces the
root, so the slope is at most 1000 and no gradient is NaN or infinite; outside that sliver the value is exact."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from distvae.nets.conditioned import Conditioned, ConditioningPart, hidden, outputs, spread
from distvae.part import Hyper, hold

SLIVER = 1e-6


@dataclass(frozen=True, kw_only=True)
class Gate(ConditioningPart):
    """Every hidden unit, latent and head gated by its own function of log beta (Multi-Rate VAE)."""

    type: Literal["gate"] = "gate"
    slope_rate: Annotated[
        float, Hyper(low=0.0, doc="how fast slopes of log beta leave 1, against the other weights; 0 keeps them there")
    ] = 1.0

    def condition(
        self, net: nn.Sequential, role: Literal["encoder", "decoder"], features_in: Sequence[int], *, pairs: bool = True
    ) -> nn.Module:
        layers, rate = hidden(net), self.slope_rate
        if role == "decoder":
            return Conditioned(
                net, {-1: SqrtGate(features_in[0], rate)} | {i: SqrtGate(f, rate) for i, f in layers.items()}
            )
        head = PairGate(outputs(net) // 2, rate) if pairs else SqrtGate(outputs(net), rate)
        return Conditioned(net, {i: SigmoidGate(f) for i, f in layers.items()} | {len(net) - 1: head})


class Response(nn.Module):
    """u = a log beta + b per feature, `[N] -> [N, F]`; a = start + rate * slope."""

    rate: Tensor

    def __init__(self, features: int, *, start: float, rate: float, offset: float):
        super().__init__()
        self.start = start
        hold(self, rate=rate)
        self.slope = nn.Parameter(torch.zeros(features, dtype=torch.float64))
        self.offset = nn.Parameter(torch.full((features,), offset, dtype=torch.float64))

    def u(self, log_beta: Tensor) -> Tensor:
        return (self.start + self.rate * self.slope) * log_beta[:, None] + self.offset


class SqrtGate(Response):
    def __init__(self, features: int, rate: float):
        super().__init__(features, start=1.0, rate=rate, offset=-5.0)

    def forward(self, h: Tensor, log_beta: Tensor) -> Tensor:
        return spread(sqrt_gate(self.u(log_beta)), h) * h


class SigmoidGate(Response):
    def __init__(self, features: int):
        super().__init__(features, start=0.0, rate=1.0, offset=3.0)

    def forward(self, h: Tensor, log_beta: Tensor) -> Tensor:
        return spread(self.u(log_beta).sigmoid(), h) * h


class Floor(Response):
    """h + min(0, u): how the log variance follows log beta."""

    def __init__(self, features: int, rate: float):
        super().__init__(features, start=1.0, rate=rate, offset=-math.log(12.0))

    def forward(self, h: Tensor, log_beta: Tensor) -> Tensor:
        return h + self.u(log_beta).clamp(max=0.0)


class PairGate(nn.Module):
    """The Gaussian head `[N, 2D]`, (mean, log variance) per dimension."""

    def __init__(self, dims: int, rate: float):
        super().__init__()
        self.mean, self.log_var = SqrtGate(dims, rate), Floor(dims, rate)

    def forward(self, h: Tensor, log_beta: Tensor) -> Tensor:
        mean, log_var = h.unflatten(-1, (-1, 2)).unbind(-1)
        return torch.stack([self.mean(mean, log_beta), self.log_var(log_var, log_beta)], -1).flatten(-2)


def sqrt_gate(u: Tensor) -> Tensor:
    """sqrt(relu(1 - exp(u))), with the chord to 0 where the root's argument is below `SLIVER`."""
    y = -torch.expm1(u.clamp(max=0.0))  # clamped first: exp of a large u would overflow, and inf * 0 is NaN
    return y * y.clamp(min=SLIVER).rsqrt()
