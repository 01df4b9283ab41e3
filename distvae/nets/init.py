"""Initial weights by address: (trial seed, parameter name, row, column), so that a weight does not depend on the order
in which layers were built nor on how wide their neighbours are. The law is PyTorch's default for Linear and Conv,
U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for weights and biases."""

from __future__ import annotations

import math
import zlib

import torch
from torch import nn

from distvae.kernels import philox
from distvae.kernels.philox import Stream


def address(name: str) -> int:
    """A parameter's 32-bit address: CRC-32 of its dotted name."""
    return zlib.crc32(name.encode())


@torch.no_grad()
def initialize(module: nn.Module, seed: int) -> None:
    """Set every Linear and Conv2d weight and bias of `module`. A module with an `initialize(seed, name)` of its own does
    that; other parameters keep what their part gave them."""
    for prefix, layer in module.named_modules():
        if prefix and hasattr(layer, "initialize"):
            layer.initialize(seed, prefix)  # type: ignore[operator]
        if not isinstance(layer, nn.Linear | nn.Conv2d):
            continue
        fan_in = layer.weight[0].numel()
        bound = 1.0 / math.sqrt(fan_in) if fan_in else 0.0
        for name, p in layer.named_parameters(prefix=prefix, recurse=False):
            rows = p.shape[0]
            u = philox.uniform(
                seed, Stream.INIT, index=range(rows), step=address(name), dim=max(1, p.numel() // max(1, rows))
            )
            p.copy_(torch.from_numpy((2.0 * u - 1.0) * bound).reshape(p.shape))
