"""Dynamic binarisation (Salakhutdinov and Murray 2008): pixels b ~ Bernoulli(x), drawn anew at every step, by address."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distvae.kernels import philox
from distvae.kernels.philox import Stream


def binarize(x: Tensor, *, seed: int, index: NDArray[np.int64], step: int) -> Tensor:
    """b `[B, *shape]` in {0, 1}, P(b = 1) = x, in the dtype of `x`; drawn by (seed, step, id `index` `[B]`, pixel)."""
    flat = x.flatten(1)
    u = philox.uniform(seed, Stream.BINARIZE, index=index, step=step, dim=flat.shape[1])[:, 0]
    return (torch.from_numpy(u).to(x.device) < flat).to(x.dtype).reshape(x.shape)
