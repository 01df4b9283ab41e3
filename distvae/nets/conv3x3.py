"""Convolutional net of S5, Table I: 3 x 3 kernels, stride 2, ReLU, then one dense layer.

The text says four convolutions on each side. The table prints three in the encoder (32, 64, 128) and four transposed
ones in the decoder (64, 64, 32, 1). A decoder with those outputs mirrors an encoder of 32, 64, 64, 128 (28 -> 14 -> 7 ->
4 -> 2), so the missing convolution is taken to be the second of the two rows with 64 channels; `channels: [32, 64, 128,
128]` repeats the last row instead.

The decoder's dense layer is printed as "FC c, ReLU", which no c makes a map of 2 x 2; here it has the 512 units that
the encoder's last map has. Padding is not stated; 1 is, and the transposed convolution gets the output padding that
returns the size it came from. So any image size works: 8 -> 4 -> 2 -> 1 -> 1 too. No batch norm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from torch import nn

from distvae.nets.net import ACTIVATIONS, Activation, NetPart
from distvae.nets.strided import Step, down, halve, maps, not_an_image, up
from distvae.part import Hyper


@dataclass(frozen=True, kw_only=True)
class Conv3x3(NetPart):
    """Convolutional net of S5 Table I, with its missing fourth layer."""

    type: Literal["conv3x3"] = "conv3x3"
    channels: Annotated[
        tuple[int, ...], Hyper(low=1, high=65536, doc="channels of the halving convolutions, encoder order")
    ] = (32, 64, 64, 128)
    activation: Annotated[Activation, Hyper(doc="non-linearity after every layer but the last")] = "relu"

    def __post_init__(self) -> None:
        if not self.channels:
            raise ValueError("channels: at least one convolution is needed (a linear net is mlp with hidden: [])")

    def refusal(self, x_shape: Sequence[int]) -> str | None:
        return not_an_image(x_shape)

    def encoder(self, x_shape: Sequence[int], width: int, *, head_bias: bool = True) -> nn.Sequential:
        self.check(x_shape)
        steps = self._steps(x_shape)
        convs = down(steps, self.channels, x_shape[0], self.activation)
        features = self.channels[-1] * math.prod(steps[-1].small)
        return nn.Sequential(*convs, nn.Flatten(), nn.Linear(features, width, bias=head_bias))

    def decoder(self, code_dim: int, width: int, x_shape: Sequence[int]) -> nn.Sequential:
        self.check(x_shape)
        steps = self._steps(x_shape)
        top = (self.channels[-1], *steps[-1].small)
        dense = [nn.Linear(code_dim, math.prod(top)), ACTIVATIONS[self.activation](), nn.Unflatten(1, top)]
        convs = up(steps, self.channels, maps(width, x_shape), self.activation)
        return nn.Sequential(*dense, *convs, nn.Flatten())

    def _steps(self, x_shape: Sequence[int]) -> list[Step]:
        size = (x_shape[1], x_shape[2])
        steps: list[Step] = []
        for _ in self.channels:
            steps.append(halve(size, even=3))
            size = steps[-1].small
        return steps
