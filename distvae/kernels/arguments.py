"""Checks of the kernels' arguments, and the trial axis: every kernel works on `[K, ...]`; one trial is K = 1. Errors name
the argument, its shape and what it must be."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def tensor(name: str, x: object, *, dims: tuple[int, ...]) -> Tensor:
    """`x` if it is a floating tensor of one of these numbers of dimensions. Raises TypeError or ValueError."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: a tensor is needed, not {type(x).__name__}")
    if x.dtype not in FLOATS:
        raise TypeError(f"{name}: dtype {_dtype(x)} is not one of float32, float64, bfloat16, float16 ({_shape(x)})")
    if x.dim() not in dims:
        raise ValueError(f"{name}: shape {_shape(x)} has {x.dim()} dimensions, not {' or '.join(map(str, dims))}")
    return x


def like(name: str, x: object, other_name: str, other: Tensor, *, shape: tuple[int, ...] | None = None) -> Tensor:
    """`x` if its dtype, device and shape (default: `other`'s) go with `other`."""
    shape = tuple(other.shape) if shape is None else shape
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: a tensor is needed, not {type(x).__name__}")
    if tuple(x.shape) != shape:
        raise ValueError(f"{name}: shape {_shape(x)} is not {list(shape)}, which {other_name} {_shape(other)} asks for")
    if x.dtype != other.dtype:
        raise TypeError(f"{name}: dtype {_dtype(x)} is not that of {other_name}, {_dtype(other)}")
    on_device(name, x, other_name, other)
    return x


def on_device(name: str, x: Tensor, other_name: str, other: Tensor) -> None:
    if x.device != other.device:
        raise ValueError(f"{name}: on {x.device}, but {other_name} is on {other.device}: move one of them")


def per_trial(
    name: str,
    x: float | Tensor,
    k: int,
    mu: Tensor,
    allowed: Callable[[float], bool],
    what: str,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """A hyper-parameter as `[K]` on mu's device: from a number (checked), a 0-d tensor or `[K]` (values not looked at,
    which would wait for the device)."""
    if isinstance(x, Tensor):
        if x.dtype == dtype and (x.shape == (k,) or (k == 1 and not x.dim())) and x.device == mu.device:
            return x.detach().reshape(k)
        if x.dim() > 1 or (x.dim() == 1 and x.shape[0] not in (1, k)):
            raise ValueError(f"{name}: shape {_shape(x)} is neither [] nor [{k}], one per trial of mu {_shape(mu)}")
        on_device(name, x, "mu", mu)
        if dtype == torch.int64 and x.dtype != torch.int64:
            raise TypeError(f"{name}: dtype {_dtype(x)} is not int64")
        return x.detach().to(dtype).expand(k).contiguous()
    if not isinstance(x, int if dtype == torch.int64 else int | float) or isinstance(x, bool):
        raise TypeError(f"{name}: {what} or a tensor of them is needed, not {type(x).__name__}")
    if not allowed(x) or not math.isfinite(x):
        raise ValueError(f"{name}: {x} is not {what}")
    if dtype == torch.int64:
        x = (int(x) + 2**63) % 2**64 - 2**63  # seeds may use all 64 bits
    return torch.full((k,), x, dtype=dtype, device=mu.device)  # a fill: no copy from the host, so it can be captured


def _shape(x: Tensor) -> str:
    return str(list(x.shape))


def _dtype(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")
