"""What every likelihood p(x|z) says of itself, with the defaults of the simplest: one decoder output per pixel.

`build(x_shape)` returns a module with

    nll(y [B, S, W], x [B, P], batch) -> [B, S]     -log p(x|z) nats, every constant in it
    mean(y [..., W]) -> [..., P]                    E[x|z]

W = `width(x_shape)`, P = prod(x_shape). With k parameters per pixel y is parameter-major, `y.unflatten(-1, (k, P))`,
so that they are the k P/(H W) output channels of a convolutional decoder. Pixels of 8 bits arrive as byte / 255."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from distvae.part import Part


@dataclass(frozen=True, kw_only=True)
class LikelihoodPart(Part):
    """Base of the likelihoods."""

    measure: ClassVar[str | None] = "density"  # of what -log p is; None: not normalised, and every bound is null
    levels: ClassVar[int | None] = None  # 256: of 8-bit pixels only
    unit: ClassVar[bool] = False  # of pixels in [0, 1] only
    whole_batch: ClassVar[bool] = False  # a statistic of the whole batch
    calibrated: ClassVar[bool] = False  # evaluation needs something frozen from the training examples first

    def width(self, x_shape: Sequence[int]) -> int:
        """Decoder outputs per example."""
        return math.prod(x_shape)

    def build(self, x_shape: Sequence[int]) -> Any:
        raise NotImplementedError


def bytes_of(x: Tensor) -> Tensor:
    """The bytes 0..255 of pixels `x` = byte / 255, int64: exact in float32 and float64."""
    return (x * 255.0).round().long()
