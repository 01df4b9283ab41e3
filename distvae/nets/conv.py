"""ConvVAE of S1 (file model/ConvVAE.py of its authors, as read; formulas and sizes only).

At 64 x 64: convolutions of kernel 4, stride 2, padding 1 with 8, 16, 32, 64 channels (to 4 x 4), one with 128 channels,
kernel 4 and no padding (to 1 x 1), a dense layer of 128, the head; the decoder mirrors it with transposed convolutions.
A non-linearity after every layer but the last (that the dense layer of 128 has one too is a guess); no batch norm.

32 x 32 drops the 64-channel block (a guess: the paper uses 32 x 32 and does not print the net). 28 x 28 is nowhere
stated either, and kernel 4 has no exact mirror on an odd side (7 -> 3 -> 6); here the odd step has kernel 3, which does:
28 -> 14 -> 7 -> 4 -> 1 and back, with the channels of 32 x 32. The same rule, halve until no side exceeds 4 and then take
the map whole, serves every size up to 4 * 2^len(channels); `channels` beyond those it needs are dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from torch import nn

from distvae.nets.net import ACTIVATIONS, Activation, NetPart
from distvae.nets.strided import Step, down, halve, maps, not_an_image, up, whole
from distvae.part import Hyper

Channels = Annotated[
    tuple[int, ...],
    Hyper(low=1, high=65536, doc="channels of the halving blocks, encoder order; the first that the images need"),
]
Top = Annotated[int, Hyper(low=1, high=65536, doc="channels of the convolution to one pixel")]
Hidden = Annotated[int, Hyper(low=1, high=65536, doc="width of the dense layer beside the latents")]
Depth = Annotated[int, Hyper(low=0, high=64, doc="3 x 3 convolutions of stride 1 after each halving")]


@dataclass(frozen=True, kw_only=True)
class Conv(NetPart):
    """Convolutional net of S1 (ConvVAE), for images of up to 64 pixels a side."""

    type: Literal["conv"] = "conv"
    channels: Channels = (8, 16, 32, 64)
    top: Top = 128
    hidden: Hidden = 128
    depth: Depth = 0
    activation: Annotated[Activation, Hyper(doc="non-linearity after every layer but the last")] = "relu"

    def refusal(self, x_shape: Sequence[int]) -> str | None:
        return not_an_image(x_shape) or self._too_large(x_shape)

    def encoder(self, x_shape: Sequence[int], width: int, *, head_bias: bool = True) -> nn.Sequential:
        self.check(x_shape)
        act = ACTIVATIONS[self.activation]
        steps, channels = self._blocks(x_shape)
        convs = down(steps, channels, x_shape[0], self.activation, self.depth)
        dense = [nn.Linear(self.top, self.hidden), act(), nn.Linear(self.hidden, width, bias=head_bias)]
        return nn.Sequential(*convs, nn.Flatten(), *dense)

    def decoder(self, code_dim: int, width: int, x_shape: Sequence[int]) -> nn.Sequential:
        self.check(x_shape)
        act = ACTIVATIONS[self.activation]
        steps, channels = self._blocks(x_shape)
        dense = [nn.Linear(code_dim, self.hidden), act(), nn.Linear(self.hidden, self.top), act()]
        convs = up(steps, channels, maps(width, x_shape), self.activation, self.depth)
        return nn.Sequential(*dense, nn.Unflatten(1, (self.top, 1, 1)), *convs, nn.Flatten())

    def _blocks(self, x_shape: Sequence[int]) -> tuple[list[Step], list[int]]:
        """Steps down to one pixel, and the channels after each."""
        steps = to_one_pixel(x_shape)
        return steps, [*self.channels[: len(steps) - 1], self.top]

    def _too_large(self, x_shape: Sequence[int]) -> str | None:
        need, have = len(to_one_pixel(x_shape)) - 1, len(self.channels)
        if need <= have:
            return None
        return (
            f"images of {x_shape[1]} x {x_shape[2]} take {need} halvings to 4 x 4, and `channels` names {have}: sides up "
            f"to {4 * 2**have} are allowed; name {need} channels, or resize the images"
        )


def to_one_pixel(x_shape: Sequence[int]) -> list[Step]:
    """Halvings (kernel 4; 3 on an odd side) until no side exceeds 4, then the map whole."""
    size = (x_shape[1], x_shape[2])
    steps: list[Step] = []
    while max(size) > 4:
        steps.append(halve(size, even=4))
        size = steps[-1].small
    return [*steps, whole(size)]
