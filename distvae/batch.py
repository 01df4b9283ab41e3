"""One step's input: the examples, who they are, and the randomness and the neighbours they are entitled to.

Model code is written for one trial and one shard: noise comes in by address (`Noise`), and losses over the whole batch
ask `batch.gather` for the other workers' rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distvae.kernels.noise import normals, uniforms
from distvae.kernels.philox import Stream
from distvae.part import gather_nothing


@dataclass(frozen=True)
class Noise:
    """Addressed noise of one trial at one step. `latent` is `Stream.LATENT` in training, `Stream.EVALUATE`
    otherwise."""

    seed: int | Tensor  # int64 0-d
    step: int | Tensor
    index: NDArray[np.int64] | Tensor  # [B] example ids
    latent: Stream = Stream.LATENT

    def normal(self, samples: int, dim: int, like: Tensor) -> Tensor:
        """Standard normals `[B, samples, dim]`, in the dtype and on the device of `like`."""
        ids = self.ids(like)
        kind = like.dtype if like.is_floating_point() else torch.float32
        return normals(self.seed, self.latent, ids, step=self.step, samples=samples, dim=dim, dtype=kind)

    def uniforms(self, samples: int, dim: int, like: Tensor, stream: Stream | None = None) -> Tensor:
        """Uniforms in (0, 1), float64 `[B, samples, dim]` on the device of `like`. The default stream is that of
        `normal`, which must not be drawn from as well: both are made of the same words."""
        stream = self.latent if stream is None else stream
        return uniforms(self.seed, stream, self.ids(like), step=self.step, samples=samples, dim=dim)

    def uniform(self, stream: Stream, dim: int, like: Tensor) -> Tensor:
        """Uniforms in (0, 1), `[B, dim]`, on the device of `like`; float64 whatever its dtype: in float32 a draw within
        2^-25 of 1 rounds to 1, and decisions `u <= p` would not be those of `kernels.sample_kl`."""
        return self.uniforms(1, dim, like, stream)[:, 0]

    def ids(self, like: Tensor) -> Tensor:
        """`index` on the device of `like`."""
        return torch.as_tensor(self.index, device=like.device)


@dataclass(frozen=True)
class Batch:
    """This worker's shard of a global batch."""

    x: Tensor  # [B, C, H, W] pixels in [0, 1] (or [B, D] vectors)
    noise: Noise
    total: int  # examples in the global batch, all workers together
    samples: int = 1  # latent samples per example
    warm: float | Tensor = 1.0  # 1 once the objective's warm-up is at full weight, else 0
    step: int = 0  # optimizer step, for schedules
    factor: Tensor | None = None  # 0-d: the objective's schedule at this step, where the trainer gives it
    gather: Callable[[Tensor], Tensor] = field(default=gather_nothing)  # [B, ...] -> [total, ...]
    y: Tensor | None = None  # [B] int64 class labels
    beta: Tensor | None = None  # [B] the beta of each example, for beta-input models
    dataset: int = 0  # training examples; in evaluation, the split's
