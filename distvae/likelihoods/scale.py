"""A scale sigma_x that is learned: log sigma_x = LOG_SIGMA_MIN + softplus(raw), the soft floor of sigma-VAE's code."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

LOG_SIGMA_MIN = -6.0


def raw_of(sigma: float) -> Tensor:
    """The `raw` at which sigma_x is `sigma`, float64 `[1]`: DeepSpeed cannot broadcast a 0-d parameter."""
    raw = math.log(math.expm1(math.log(sigma) - LOG_SIGMA_MIN))  # softplus^-1
    return torch.tensor([raw], dtype=torch.float64)


def log_sigma(raw: Tensor) -> Tensor:
    return LOG_SIGMA_MIN + softplus(raw)


def log_sigma_from(h: Tensor, sigma: Tensor) -> Tensor:
    """log sigma_x of a net's output `h`, in place of `raw` but counted from `sigma` (0-d): h = 0 means sigma_x =
    `sigma`, and far above the floor h is log(sigma_x / sigma)."""
    above = sigma.log() - LOG_SIGMA_MIN
    return log_sigma(h + above + torch.log(-torch.expm1(-above)))  # softplus^-1(a) = a + ln(1 - e^-a)


def check_start(mode: str, sigma: float) -> None:
    floor = math.exp(LOG_SIGMA_MIN)
    if sigma <= floor:
        raise ValueError(
            f"sigma: a {mode} sigma_x starts above {floor:.3g} "
            f"(log sigma > {LOG_SIGMA_MIN:g}), got {sigma:g}: raise it, or mode: fixed"
        )
