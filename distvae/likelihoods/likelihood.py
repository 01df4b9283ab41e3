"""What every likelihood states about itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from distvae.part import Part


@dataclass(frozen=True, kw_only=True)
class LikelihoodPart(Part):
    """Defaults: one decoder output per pixel, nothing of the whole batch."""

    @property
    def measure(self) -> str | None:
        """What -log p is the -log of: `binary`, `mass256`, `density`; None: of nothing, and every bound is null."""
        return "density"

    @property
    def whole_batch(self) -> bool:
        """Does training need the global batch? Refused with gradient accumulation."""
        return False

    @property
    def calibrated(self) -> bool:
        """Does evaluation need sigma_x frozen from the training examples first?"""
        return False

    @property
    def levels(self) -> int | None:
        """Levels a pixel must have: 256, or None for any."""
        return None

    @property
    def unit(self) -> bool:
        """Must pixels lie in [0, 1]?"""
        return False

    def width(self, x_shape: Sequence[int]) -> int:
        """Decoder outputs: k parameters of P pixels, parameter-major (`y.unflatten(-1, (k, P))`)."""
        return math.prod(x_shape)

    def build(self, x_shape: Sequence[int]) -> nn.Module:
        """A module with `nll(y [B, S, width], x [B, P], batch) -> [B, S]` nats and `mean(y) -> [..., P]`."""
        raise NotImplementedError


def bytes_of(x: Tensor) -> Tensor:
    """The bytes 0..255 of pixels `x` = byte / 255, int64: exact in float32 and float64."""
    return (x * 255.0).round().long()
