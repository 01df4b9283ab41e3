"""A net of the class of S1's L-ConvVAE, "a large-size convolutional VAE" for CelebA at 64 x 64.

**A guess throughout**: the paper gives no layer of it and its authors released none. This is `conv` with four times the
channels and one stride-1 convolution per scale: 3.8 million weights in the encoder at 3 x 64 x 64, against conv's 0.2.
Every width is a knob."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from torch import nn

from distvae.nets.conv import Channels, Conv, Depth, Hidden, Top
from distvae.nets.net import Activation, NetPart
from distvae.part import Hyper


@dataclass(frozen=True, kw_only=True)
class ConvLarge(NetPart):
    """A larger convolutional net, the class of S1's unreleased L-ConvVAE (a guess)."""

    type: Literal["conv_large"] = "conv_large"
    channels: Channels = (32, 64, 128, 256)
    top: Top = 512
    hidden: Hidden = 512
    depth: Depth = 1
    activation: Annotated[Activation, Hyper(doc="non-linearity after every layer but the last")] = "relu"

    def refusal(self, x_shape: Sequence[int]) -> str | None:
        return self._conv().refusal(x_shape)

    def encoder(self, x_shape: Sequence[int], width: int, *, head_bias: bool = True) -> nn.Sequential:
        return self._conv().encoder(x_shape, width, head_bias=head_bias)

    def decoder(self, code_dim: int, width: int, x_shape: Sequence[int]) -> nn.Sequential:
        return self._conv().decoder(code_dim, width, x_shape)

    def _conv(self) -> Conv:
        return Conv(
            channels=self.channels, top=self.top, hidden=self.hidden, depth=self.depth, activation=self.activation
        )
