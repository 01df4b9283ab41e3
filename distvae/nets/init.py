"""Initial weights by address: (trial seed, parameter name, row, column), so that a weight does not depend on the order
in which layers were built nor on how wide their neighbours are. The law is PyTorch's default for Linear, Conv2d and
ConvTranspose2d, U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for weights and biases, with PyTorch's own fan_in: the product of
all sizes of the weight but the first. For a ConvTranspose2d, whose weight is `[in, out, kH, kW]`, that is the fan
*out*; kept, since it is the law that published nets started from. A row of such a weight is an input channel.

A module that sets its own values has a method `initialize(seed, name)`, `name` being its dotted name; it is called
after the layers inside it have theirs."""

from __future__ import annotations

import math
import zlib
from typing import Any

import torch
from torch import nn

from distvae.kernels import philox
from distvae.kernels.philox import Stream


def address(name: str) -> int:
    """A parameter's 32-bit address: CRC-32 of its dotted name."""
    return zlib.crc32(name.encode())


@torch.no_grad()
def initialize(module: nn.Module, seed: int) -> None:
    """Set every weight and bias of `module`'s Linear, Conv2d and ConvTranspose2d layers, then call the modules that
    have an `initialize(seed, name)`; other parameters keep what their part gave them."""
    for prefix, layer in module.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            _uniform(layer, prefix, seed)
    own: Any
    for prefix, own in module.named_modules():
        if hasattr(own, "initialize"):
            own.initialize(seed, prefix)


def _uniform(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d, prefix: str, seed: int) -> None:
    fan_in = layer.weight[0].numel()
    bound = 1.0 / math.sqrt(fan_in) if fan_in else 0.0
    for name, p in layer.named_parameters(prefix=prefix, recurse=False):
        rows = p.shape[0]
        u = philox.uniform(
            seed, Stream.INIT, index=range(rows), step=address(name), dim=max(1, p.numel() // max(1, rows))
        )
        p.copy_(torch.from_numpy((2.0 * u - 1.0) * bound).reshape(p.shape))
