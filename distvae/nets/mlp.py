"""Fully connected nets; the decoder mirrors the encoder.

hidden: [256, 128]   784-256-128-d, the toyVAE of S1 Table 1 (deduced: the paper does not print it; it is the net of
                     the S-VAE example that S1 compares with)
hidden: [1024]       784-1024-c, the fully connected net of S5 Table I
hidden: []           the linear VAE"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

from torch import nn

from distvae.nets.net import ACTIVATIONS, Activation, NetPart
from distvae.part import Hyper


@dataclass(frozen=True, kw_only=True)
class Mlp(NetPart):
    """Multi-layer perceptron (S1: toyVAE)."""

    type: Literal["mlp"] = "mlp"
    hidden: Annotated[tuple[int, ...], Hyper(low=1, high=65536, doc="widths of the hidden layers, encoder order")] = (
        256,
        128,
    )
    activation: Annotated[Activation, Hyper(doc="non-linearity after each hidden layer")] = "relu"

    @property
    def linear(self) -> bool:
        return not self.hidden

    def encoder(self, x_shape: Sequence[int], width: int, *, head_bias: bool = True) -> nn.Sequential:
        return nn.Sequential(nn.Flatten(), *self._layers([math.prod(x_shape), *self.hidden, width], head_bias))

    def decoder(self, code_dim: int, width: int, x_shape: Sequence[int]) -> nn.Sequential:
        return nn.Sequential(*self._layers([code_dim, *reversed(self.hidden), width]))

    def _layers(self, widths: Sequence[int], head_bias: bool = True) -> list[nn.Module]:
        act = ACTIVATIONS[self.activation]
        layers: list[nn.Module] = []
        for n, (a, b) in enumerate(pairwise(widths), start=2):
            last = n == len(widths)
            layers += [nn.Linear(a, b, bias=head_bias or not last)] + ([] if last else [act()])
        return layers
