"""Bitwise-categorical pixels (a row of S4's table): the eight bits of every scalar pixel, b_7 (128) first,

    p(x|z) = prod_i prod_k Bernoulli(b_k(x_i); sigmoid(y_ki))      E[x|z] = sum_k 2^k sigmoid(y_ki) / 255

Choice: S4 prints the row and not the definition. The bits are independent given z, 8 outputs a pixel, which is what
makes it the cheap relative of the 256-way softmax; conditional bits (a binary tree) would take 255 outputs and are that
softmax again. A product of eight Bernoullis over the 256 bytes sums to 1. Neighbouring values may differ in every bit
(127 and 128), so a narrow belief around such a value is beyond it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from distvae.batch import Batch
from distvae.likelihoods.likelihood import LikelihoodPart, bytes_of

BITS = 8


@dataclass(frozen=True, kw_only=True)
class BitwiseCategorical(LikelihoodPart):
    """Categorical pixels by bits: eight independent Bernoullis for each."""

    type: Literal["bitwise_categorical"] = "bitwise_categorical"

    measure: ClassVar[str] = "mass256"
    levels: ClassVar[int] = 256

    def width(self, x_shape: Sequence[int]) -> int:
        return BITS * math.prod(x_shape)

    def build(self, x_shape: Sequence[int]) -> BitwiseCategoricalLikelihood:
        return BitwiseCategoricalLikelihood()


class BitwiseCategoricalLikelihood(nn.Module):
    def nll(self, y: Tensor, x: Tensor, batch: Batch) -> Tensor:
        """-log p(x|z) `[B, S]` nats of logits `y` `[B, S, 8 P]` and pixels `x` `[B, P]`."""
        logits = y.unflatten(-1, (BITS, -1))  # [B, S, 8, P]
        place = torch.arange(BITS - 1, -1, -1, device=x.device)[:, None]  # b_7 first
        bits = (bytes_of(x)[:, None] >> place & 1).to(y.dtype)  # [B, 8, P]
        return binary_cross_entropy_with_logits(logits, bits[:, None].expand_as(logits), reduction="none").sum((-1, -2))

    def mean(self, y: Tensor) -> Tensor:
        """E[x|z] `[..., P]`."""
        value = 2.0 ** torch.arange(BITS - 1, -1, -1, dtype=y.dtype, device=y.device)[:, None] / 255.0
        return (y.unflatten(-1, (BITS, -1)).sigmoid() * value).sum(-2)
