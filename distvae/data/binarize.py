"""Dynamic binarisation (Salakhutdinov and Murray 2008): a pixel x in [0, 1] is 1 with probability x, drawn anew at
every step, by the example's id: the same bits on any worker, in any shard, at any batch size."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distvae.kernels.noise import bernoulli
from distvae.kernels.philox import Stream


def binarize(x: Tensor, *, seed: int, index: Tensor | NDArray[np.int64], step: int | Tensor) -> Tensor:
    """`x` `[B, *shape]` in [0, 1] of examples `index` `[B]` to {0, 1}, in the dtype of `x`: 1 where u < x, compared in
    float64 (0 never becomes 1, and 1 never 0)."""
    return bernoulli(x.flatten(1), seed, Stream.BINARIZE, torch.as_tensor(index), step=step).view(x.shape)
