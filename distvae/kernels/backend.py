"""Which back end a kernel runs on.

    DISTVAE_KERNELS = auto       C++ for CPU tensors, CUDA C++ for CUDA tensors, torch where neither can (the default)
                      cpu        C++ for CPU tensors, or an error; the reference elsewhere
                      cuda       CUDA C++ for CUDA tensors, or an error; the reference elsewhere
                      reference  torch, everywhere

float64 tensors always take the reference: it is float64 inside, and the others are float32 by design."""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any

from torch import Tensor, float64

from distvae.kernels import cpu, cuda, reference

CHOICES = ("auto", "cpu", "cuda", "reference")


class KernelsUnavailable(RuntimeError):
    """The back end that DISTVAE_KERNELS asks for cannot run here."""


def choice() -> str:
    asked = os.environ.get("DISTVAE_KERNELS", "auto")
    if asked not in CHOICES:
        raise KernelsUnavailable(f"DISTVAE_KERNELS: {asked!r} is not one of {', '.join(CHOICES)}")
    return asked


def pick(x: Tensor) -> ModuleType | Any:
    """The module whose functions run on `x`. Raises KernelsUnavailable."""
    asked = choice()
    if asked == "reference" or x.dtype == float64:
        return reference
    native = cpu if x.is_cpu else cuda if x.is_cuda else None
    if native is None or (asked != "auto" and asked != native.NAME):
        return reference
    why = native.unavailable()
    if why and asked == native.NAME:
        raise KernelsUnavailable(f"DISTVAE_KERNELS={asked}: {why}")
    return reference if why else native


def require() -> None:
    """Raises KernelsUnavailable now if DISTVAE_KERNELS asks for what is not there, rather than in every trial."""
    asked = choice()
    for native in (cpu, cuda):
        if asked == native.NAME and (why := native.unavailable()):
            raise KernelsUnavailable(f"DISTVAE_KERNELS={asked}: {why}")


def describe() -> str:
    """What `distvae doctor` prints: the back end of each device and why."""
    asked = choice()
    parts = []
    for native in (cpu, cuda):
        if asked not in ("auto", native.NAME):
            parts.append(f"{native.NAME}: reference (DISTVAE_KERNELS={asked})")
        else:
            why = native.unavailable()
            parts.append(f"{native.NAME}: reference ({why})" if why else f"{native.NAME}: {native.describe()}")
    return "; ".join(parts)
