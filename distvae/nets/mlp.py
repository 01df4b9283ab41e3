"""Fully connected nets. `hidden: [256, 128]` on 784 pixels is the 784-256-128-d toyVAE of S1 Table 1 (deduced: the
paper does not print it; it is the net of the S-VAE example that S1 compares with). `hidden: []` is the linear VAE.

The decoder mirrors the encoder. Weights are set later, by address (`init.py`), so nothing here draws a number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

from torch import nn

from distvae.part import Hyper, Part

Activation = Literal["relu", "tanh", "gelu", "silu", "elu"]
_ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "silu": nn.SiLU, "elu": nn.ELU}


@dataclass(frozen=True, kw_only=True)
class Mlp(Part):
    """Multi-layer perceptron (S1: toyVAE)."""

    type: Literal["mlp"] = "mlp"
    hidden: Annotated[tuple[int, ...], Hyper(low=1, high=65536, doc="widths of the hidden layers, encoder order")] = (
        256,
        128,
    )
    activation: Annotated[Activation, Hyper(doc="non-linearity after each hidden layer")] = "relu"

    def encoder(self, x_shape: Sequence[int], width: int, *, head_bias: bool = True) -> nn.Module:
        """`[B, *x_shape] -> [B, width]`; `head_bias=False` drops the last layer's bias (a batch norm follows)."""
        return nn.Sequential(nn.Flatten(), *self._layers([math.prod(x_shape), *self.hidden, width], head_bias))

    def decoder(self, latent_dim: int, width: int, x_shape: Sequence[int]) -> nn.Module:
        """`[..., latent_dim] -> [..., width]`"""
        return nn.Sequential(*self._layers([latent_dim, *reversed(self.hidden), width]))

    def _layers(self, widths: Sequence[int], head_bias: bool = True) -> list[nn.Module]:
        act = _ACTIVATIONS[self.activation]
        layers: list[nn.Module] = []
        for n, (a, b) in enumerate(pairwise(widths), start=2):
            last = n == len(widths)
            layers += [nn.Linear(a, b, bias=head_bias or not last)] + ([] if last else [act()])
        return layers
