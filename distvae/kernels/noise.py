"""Addressed noise as tensors, for K trials at once: what `philox` gives (its streams, its address), drawn where the
tensors live.

A draw depends on (seed, stream, example, step, sample, dimension) and nothing else: not on K, the trial's slot, or who
holds the example."""

from __future__ import annotations

import torch
from torch import Tensor

from distvae.kernels import reference
from distvae.kernels.arguments import per_trial
from distvae.kernels.library import Trials, define


def normals(
    seed: int | Tensor,
    stream: int,
    index: Tensor,
    *,
    step: int | Tensor = 0,
    samples: int = 1,
    dim: int = 1,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Standard normals `[B, samples, dim]` of `dtype`, on the device of `index`; `[K, B, samples, dim]` for K seeds.

    `seed`, `step`: a number or an int64 tensor `[]` or `[K]` (read on the device, so a captured CUDA graph sees its new
    values). `index` int64 `[B]`: the examples' ids. Raises TypeError, ValueError."""
    return _draw(seed, stream, index, step, samples, dim, True, dtype)


def uniforms(
    seed: int | Tensor, stream: int, index: Tensor, *, step: int | Tensor = 0, samples: int = 1, dim: int = 1
) -> Tensor:
    """Uniforms in (0, 1), (word + 1/2) / 2^32, float64; shapes and arguments are those of `normals`. The same bits on
    every back end."""
    return _draw(seed, stream, index, step, samples, dim, False, torch.float64)


def _draw(seed, stream, index, step, samples, dim, normal, dtype) -> Tensor:
    if not isinstance(index, Tensor) or index.dtype != torch.int64 or index.dim() != 1:
        raise TypeError("index: an int64 tensor [B] is needed, one id per example")
    if not 0 <= stream < 256:
        raise ValueError(f"stream: {stream} is not in [0, 256)")
    for name, n in (("samples", samples), ("dim", dim)):
        if n < 0:
            raise ValueError(f"{name}: {n} is not a number of draws >= 0")
    many = isinstance(seed, Tensor) and seed.dim() == 1
    k = seed.shape[0] if many else 1  # type: ignore[union-attr]
    seeds = per_trial("seed", seed, k, index, lambda x: True, "an integer", torch.int64)
    steps = per_trial("step", step, k, index, lambda x: x >= 0, "an integer >= 0", torch.int64)
    out = _noise(seeds, steps, index, int(stream), samples, dim, normal, dtype)
    return out if many else out[0]


def _forward(seed: Tensor, step: Tensor, index: Tensor, *rest: object) -> Tensor:
    return reference.noise(seed, step, index, *rest)


_noise = define(
    "noise(Tensor seed, Tensor step, Tensor index, int stream, int samples, int dim, bool normal, ScalarType dtype)"
    " -> Tensor",
    _forward,
    fake=lambda seed, step, index, stream, samples, dim, normal, dtype: torch.empty(
        (seed.shape[0], index.shape[-1], samples, dim), dtype=dtype, device=index.device
    ),
    trials=Trials(per_trial=(0, 1), both=(2,), k_from=0),
)
