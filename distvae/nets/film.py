"""Feature-wise linear modulation by beta: YOTO (Dosovitskiy and Djolonga, "You Only Train Once", ICLR 2020; FiLM is
Perez et al. 2018). After every hidden layer's non-linearity, per feature (unit or channel),

    h' = (1 + a scale(log beta)) h + a shift(log beta),

scale and shift from an MLP of one hidden layer; a = 0.1 and 512 units are YOTO's for CIFAR (0.01 and 256 for Shapes3D).

Choices. One MLP per layer gives both (YOTO: one for each), scale and shift interleaved, so that a narrower layer has the
first rows of a wider one's. Input log beta as it is (-4.6 to 2.3 for beta in [0.01, 10]). Initial weights have torch's
law, by address like every other: with a = 0.1 the net starts near the plain one, and with a = 0 it is the plain one.

A net without hidden layers has nothing to modulate and is refused; `gate` conditions it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from torch import Tensor, nn

from distvae.nets.conditioned import Conditioned, ConditioningPart, hidden, spread
from distvae.nets.net import NetPart
from distvae.part import Hyper, hold


@dataclass(frozen=True, kw_only=True)
class Film(ConditioningPart):
    """Every hidden layer scaled and shifted by a small MLP of log beta (YOTO)."""

    type: Literal["film"] = "film"
    a: Annotated[float, Hyper(low=0.0, symbol="a", doc="size of the modulation; 0 turns it off")] = 0.1
    hidden: Annotated[int, Hyper(low=1, high=65536, doc="hidden units of each modulating MLP")] = 512

    def refusal(self, net: NetPart) -> str | None:
        if not net.linear:
            return None
        return (
            "film modulates hidden layers, and a linear net has none (use {type: gate}, or give the net a hidden layer)"
        )

    def condition(
        self, net: nn.Sequential, role: Literal["encoder", "decoder"], features_in: Sequence[int], *, pairs: bool = True
    ) -> nn.Module:
        return Conditioned(net, {i: Modulation(self, features) for i, features in hidden(net).items()})


class Modulation(nn.Module):
    a: Tensor

    def __init__(self, part: Film, features: int):
        super().__init__()
        hold(self, a=part.a)
        self.mlp = nn.Sequential(nn.Linear(1, part.hidden), nn.ReLU(), nn.Linear(part.hidden, 2 * features))

    def forward(self, h: Tensor, log_beta: Tensor) -> Tensor:
        scale, shift = (self.a * self.mlp(log_beta[:, None]).unflatten(-1, (-1, 2))).unbind(-1)  # [N, F] each
        return (1 + spread(scale, h)) * h + spread(shift, h)
