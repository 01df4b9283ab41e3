"""`NetPart`, what every encoder and decoder answers to, and the non-linearities they choose from.

A net is a pure chain: one `nn.Sequential` of affine layers, reshapes and the `ACTIVATIONS` below. That is what lets
`film` and `gate` condition any of them on beta by walking it. Weights are set later, by address (`init.py`), so nothing
here draws a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from distvae.part import Part

Activation = Literal["relu", "tanh", "gelu", "silu", "elu"]
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
}


@dataclass(frozen=True, kw_only=True)
class NetPart(Part):
    """Base of the nets."""

    @property
    def linear(self) -> bool:
        """No hidden layer."""
        return False

    def refusal(self, x_shape: Sequence[int]) -> str | None:
        """Why this net cannot serve x of this shape, what it can serve and the likely fix; None if it can."""
        return None

    def check(self, x_shape: Sequence[int]) -> None:
        """`ValueError` of the refusal, for who builds a net without a config."""
        if why := self.refusal(x_shape):
            raise ValueError(why)

    def encoder(self, x_shape: Sequence[int], width: int, *, head_bias: bool = True) -> nn.Sequential:
        """`[N, *x_shape] -> [N, width]`; `head_bias=False` drops the last layer's bias (a batch norm follows)."""
        raise NotImplementedError

    def decoder(self, code_dim: int, width: int, x_shape: Sequence[int]) -> nn.Sequential:
        """`[N, code_dim] -> [N, width]`, the encoder's mirror. `width` is what the likelihood asks for: k numbers per
        pixel of x_shape, parameter-major (`[k, *x_shape]`, flattened)."""
        raise NotImplementedError
