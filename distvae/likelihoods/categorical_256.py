"""256-way categorical pixels: a softmax over the values of every scalar pixel (S4's table; van den Oord et al., 2016).

    -log p = sum_i ln sum_k exp(y_ki) - y_(byte i),i      E[x|z] = sum_k k/255 softmax(y)_k

It knows no order of the values. 256 decoder outputs per pixel: 200,704 for 28 x 28, and as many numbers per example
and sample in the softmax, so mind the batch size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from distvae.batch import Batch
from distvae.likelihoods.likelihood import LikelihoodPart, bytes_of


@dataclass(frozen=True, kw_only=True)
class Categorical256(LikelihoodPart):
    """Categorical pixels: a softmax over the 256 values of each."""

    type: Literal["categorical_256"] = "categorical_256"

    measure: ClassVar[str] = "mass256"
    levels: ClassVar[int] = 256

    def width(self, x_shape: Sequence[int]) -> int:
        return 256 * math.prod(x_shape)

    def build(self, x_shape: Sequence[int]) -> Categorical256Likelihood:
        return Categorical256Likelihood()


class Categorical256Likelihood(nn.Module):
    def nll(self, y: Tensor, x: Tensor, batch: Batch) -> Tensor:
        """-log p(x|z) `[B, S]` nats of logits `y` `[B, S, 256 P]` and pixels `x` `[B, P]`."""
        logits = y.unflatten(-1, (256, -1))  # [B, S, 256, P]
        byte = bytes_of(x)[:, None].expand(-1, logits.shape[1], -1)  # [B, S, P]
        each = cross_entropy(logits.flatten(0, 1), byte.flatten(0, 1), reduction="none")
        return each.sum(-1).unflatten(0, byte.shape[:2])

    def mean(self, y: Tensor) -> Tensor:
        """E[x|z] `[..., P]`."""
        values = torch.arange(256, dtype=y.dtype, device=y.device) / 255.0
        return (y.unflatten(-1, (256, -1)).softmax(-2) * values[:, None]).sum(-2)
