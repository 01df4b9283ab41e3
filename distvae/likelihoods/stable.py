"""Two functions that are 0/0 where a net starts, to rounding in value and gradient: series near 0, closed form
elsewhere (`torch.where` with a harmless argument on the side that is not taken, so that gradients are finite)."""

from __future__ import annotations

import torch
from torch import Tensor

NEAR = 0.3  # the first dropped terms of the series are below 1e-16 here


def log_decay(a: Tensor) -> Tensor:
    """ln((1 - e^-a) / a) for a >= 0: 0 at 0, -ln a at infinity. = ln int_0^1 e^(-a t) dt."""
    near = a < NEAR
    s = torch.where(near, a, 0.0)
    t = s.square()
    series = -0.5 * s + t * (1 / 24 - t * (1 / 2880 - t * (1 / 181440 - t * (1 / 9676800 - t / 479001600))))
    far = torch.where(near, 1.0, a)
    return torch.where(near, series, torch.log(-torch.expm1(-far)) - far.log())


def langevin(t: Tensor) -> Tensor:
    """coth(t) - 1/t: odd, t/3 at 0, the sign of t at infinity."""
    near = t.abs() < NEAR
    s = torch.where(near, t, 0.0)
    u = s.square()
    series = s * (1 / 3 - u * (1 / 45 - u * (2 / 945 - u * (1 / 4725 - u * (2 / 93555 - u * (1382 / 638512875))))))
    far = torch.where(near, 1.0, t.abs())
    e = (-2.0 * far).exp()
    return torch.where(near, series, t.sign() * ((1.0 + e) / -torch.expm1(-2.0 * far) - 1.0 / far))
