"""Addressed noise as tensors, for K trials at once: what `philox` gives (its streams, its address), drawn where the
tensors live.

A draw depends on (seed, stream, example, step, sample, dimension) and nothing else: not on K, the trial's slot, or who
holds the example. Uniforms, and so Bernoulli draws, are the same bits on every back end; float32 normals are within
4 ulp + 1e-6 of the correctly rounded ones, and those of `sample_kl` bit for bit on the same back end."""

from __future__ import annotations

import torch
from torch import Tensor

from distvae.kernels import backend, reference
from distvae.kernels.arguments import on_device, per_trial, tensor
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
    """Uniforms in (0, 1), (word + 1/2) / 2^32, float64; shapes and arguments are those of `normals`."""
    return _draw(seed, stream, index, step, samples, dim, False, torch.float64)


def bernoulli(p: Tensor, seed: int | Tensor, stream: int, index: Tensor, *, step: int | Tensor = 0) -> Tensor:
    """1 where u < p, else 0, with the uniforms of one sample, compared in float64 (p = 0 never gives 1, and p = 1 never
    0): `[B, D]` for `p` `[B, D]`, `[K, B, D]` for K seeds, in the dtype of `p`. No gradient flows to `p`."""
    tensor("p", p, dims=(2,))
    many, k = _check(seed, stream, index)
    on_device("p", p, "index", index)
    if len(p) != len(index):
        raise ValueError(f"p: shape {list(p.shape)} has not the {len(index)} rows of index {list(index.shape)}")
    out = _bernoulli(*_each(seed, step, k, index), index, p.detach(), int(stream))
    return out if many else out[0]


def _draw(seed, stream, index, step, samples, dim, normal, dtype) -> Tensor:
    many, k = _check(seed, stream, index)
    if samples < 0 or dim < 0:
        name, n = ("samples", samples) if samples < 0 else ("dim", dim)
        raise ValueError(f"{name}: {n} is not a number of draws >= 0")
    out = _noise(*_each(seed, step, k, index), index, int(stream), samples, dim, normal, dtype)
    return out if many else out[0]


def _check(seed: int | Tensor, stream: int, index: Tensor) -> tuple[bool, int]:
    """(is there a trial axis?, K)"""
    if not isinstance(index, Tensor) or index.dtype != torch.int64 or index.dim() != 1:
        raise TypeError("index: an int64 tensor [B] is needed, one id per example")
    if not 0 <= stream < 256:
        raise ValueError(f"stream: {stream} is not in [0, 256)")
    many = isinstance(seed, Tensor) and seed.dim() == 1
    return many, seed.shape[0] if many else 1  # type: ignore[union-attr]


def _each(seed: int | Tensor, step: int | Tensor, k: int, index: Tensor) -> tuple[Tensor, Tensor]:
    """Seeds and steps `[K]`."""
    return (
        per_trial("seed", seed, k, index, lambda x: True, "an integer", torch.int64),
        per_trial("step", step, k, index, lambda x: x >= 0, "an integer >= 0", torch.int64),
    )


# --- the operators: seeds and steps [K], ids [B] or [K, B] ------------------------------------------------------------


def _forward(seed: Tensor, step: Tensor, index: Tensor, stream: int, samples: int, dim: int, normal: bool, dtype):
    exact = normal and dtype == torch.float64
    module = reference if exact else backend.pick(index)
    return module.noise(seed, step, index, stream, samples, dim, normal, dtype)


def _forward_bernoulli(seed: Tensor, step: Tensor, index: Tensor, p: Tensor, stream: int) -> Tensor:
    return backend.pick(p).bernoulli(seed, step, index, p.contiguous(), stream)


_noise = define(
    "noise(Tensor seed, Tensor step, Tensor index, int stream, int samples, int dim, bool normal, ScalarType dtype)"
    " -> Tensor",
    _forward,
    fake=lambda seed, step, index, stream, samples, dim, normal, dtype: torch.empty(
        (seed.shape[0], index.shape[-1], samples, dim), dtype=dtype, device=index.device
    ),
    trials=Trials(per_trial=(0, 1), both={2: 1}),
)
_bernoulli = define(
    "bernoulli(Tensor seed, Tensor step, Tensor index, Tensor p, int stream) -> Tensor",
    _forward_bernoulli,
    fake=lambda seed, step, index, p, stream: p.new_empty((seed.shape[0], *p.shape[-2:])),
    trials=Trials(per_trial=(0, 1), both={2: 1, 3: 2}),
)
