"""KL of a Gaussian posterior to the binarized prior's mixture (S1; methods S1.4): the honest rate of a binarized VAE.

    KL(q || 1/2 N(-r, 1) + 1/2 N(+r, 1)) = KL(q || N(0, 1)) + r^2 / 2 - E_q[ln cosh(r z)]

from ln p(z) = ln N(z; 0, 1) - r^2/2 + ln cosh(r z), per dimension; the closed form at r = 0, never above KL_B + ln 2.
The expectation is Gauss-Hermite quadrature (40 nodes) while r sigma < 1. Beyond, the kink of ln cosh defeats it (64
nodes: 1e-4 off at r sigma = 3), so there E|z| is taken in closed form and only the bounded rest by Gauss-Laguerre (48
nodes),

    E[ln cosh(r z)] = r E|z| - ln 2 + 1/(2r) int_0^inf ln(1 + e^-s) [q(s/2r) + q(-s/2r)] ds

Both are within 1e-6 nats of adaptive integration. Gradients are expectations of the same kind:
d/dmu = mu - r E tanh(r z),   d/dvar = 1/2 (1 - 1/var) - 1/2 r^2 E sech^2(r z)   (Price's theorem)."""

from __future__ import annotations

import torch
from torch import Tensor

from distvae.kernels import backend
from distvae.kernels.arguments import like, per_trial, tensor
from distvae.kernels.library import Trials, define, strides_free


def gaussian_mixture_kl(mu: Tensor, logvar: Tensor, r: float | Tensor) -> Tensor:
    """KL(N(mu, e^logvar) || 1/2 N(-r, 1) + 1/2 N(+r, 1)) per dimension, nats, shaped like `mu`.

    `mu`, `logvar` `[B, D]` or `[K, B, D]`; `r` >= 0 a number, or a tensor `[]` or `[K]`, one per trial. Differentiable
    in `mu` and `logvar`; memory O(B D), whatever the number of nodes. Raises TypeError, ValueError."""
    tensor("mu", mu, dims=(2, 3))
    like("logvar", logvar, "mu", mu)
    one = mu.dim() == 2
    each = per_trial("r", r, 1 if one else mu.shape[0], mu, lambda x: x >= 0, "a number >= 0", _wide(mu))
    out = _mixture_kl(mu[None] if one else mu, logvar[None] if one else logvar, each)
    return out[0] if one else out


def _wide(mu: Tensor) -> torch.dtype:
    return torch.float64 if mu.dtype == torch.float64 else torch.float32


def _forward(mu: Tensor, logvar: Tensor, r: Tensor) -> Tensor:
    return backend.pick(mu).mixture_kl(mu.contiguous(), logvar.contiguous(), r)


def _backward(g: Tensor, mu: Tensor, logvar: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    return backend.pick(mu).mixture_kl_backward(g.contiguous(), mu.contiguous(), logvar.contiguous(), r)


def _save(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs)


def _grad(ctx, g: Tensor):
    return *_mixture_kl_backward(g, *ctx.saved_tensors), None


_mixture_kl = define(
    "mixture_kl(Tensor mu, Tensor logvar, Tensor r) -> Tensor",
    _forward,
    fake=lambda mu, *rest: strides_free(mu),
    trials=Trials(per_trial=(0, 1, 2)),
    save=_save,
    grad=_grad,
)
_mixture_kl_backward = define(
    "mixture_kl_backward(Tensor g, Tensor mu, Tensor logvar, Tensor r) -> (Tensor, Tensor)",
    _backward,
    fake=lambda g, mu, *rest: (strides_free(mu), strides_free(mu)),
    trials=Trials(per_trial=(0, 1, 2, 3), k_from=1),
)
