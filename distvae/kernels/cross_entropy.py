"""Binary cross-entropy of logits, summed over pixels: -ln p(x|z) of a Bernoulli likelihood, nats.

    l(y, x) = -x ln sigmoid(y) - (1 - x) ln(1 - sigmoid(y)) = |y| h + ln(1 + e^-|y|),   h = 1 - x where y > 0, else x
    dl/dy   = sigmoid(y) - x

The second form has no negative term, so neither a pixel nor the sum over pixels cancels, and nothing overflows. Backward
computes e^-|y| again: to keep sigmoid(y) - x would cost another tensor of the size of y, and is no faster."""

from __future__ import annotations

import torch
from torch import Tensor

from distvae.kernels import backend
from distvae.kernels.arguments import on_device, tensor
from distvae.kernels.library import Trials, define


def bernoulli_nll(y: Tensor, x: Tensor) -> Tensor:
    """-ln p(x|z) in nats, `[B, S]` (`[K, B, S]`) of logits `y` `[B, S, P]` (`[K, B, S, P]`) and pixels `x` `[B, P]` in
    [0, 1]; for K trials `x` may be `[K, B, P]` too.

    float64 for float64 logits, else float32 (half precision is computed and summed in float32). Differentiable in `y`,
    once. Raises TypeError, ValueError."""
    tensor("y", y, dims=(3, 4))
    tensor("x", x, dims=(2, 3) if y.dim() == 4 else (2,))
    k, b, p = y.shape[:-3], y.shape[-3], y.shape[-1]
    if x.shape != (b, p) and x.shape != (*k, b, p):
        allowed = " or ".join(str(list(a)) for a in dict.fromkeys([(b, p), (*k, b, p)]))
        raise ValueError(f"x: shape {list(x.shape)} is not {allowed}, which y {list(y.shape)} asks for")
    on_device("x", x, "y", y)
    if x.requires_grad:
        raise ValueError("x: it requires a gradient, and only y has one: pass x.detach()")
    x = x.to(torch.float64 if y.dtype == torch.float64 else torch.float32)
    return _nll(y, x) if k else _nll(y[None], x)[0]


# --- the operator: y [K, B, S, P], x [B, P] or [K, B, P], float64 with a float64 y, else float32 ----------------------


def _forward(y: Tensor, x: Tensor) -> Tensor:
    return backend.pick(y).bernoulli_nll(y.contiguous(), x.contiguous())


def _backward(g: Tensor, y: Tensor, x: Tensor) -> Tensor:
    return backend.pick(y).bernoulli_nll_backward(g.contiguous(), y.contiguous(), x.contiguous())


def _save(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs)


def _grad(ctx, g: Tensor):
    return _nll_backward(g, *ctx.saved_tensors), None


_nll = define(
    "bernoulli_nll(Tensor y, Tensor x) -> Tensor",
    _forward,
    fake=lambda y, x: torch.empty(y.shape[:-1], dtype=x.dtype, device=y.device),
    trials=Trials(per_trial=(0,), both={1: 2}),
    save=_save,
    grad=_grad,
)
_nll_backward = define(
    "bernoulli_nll_backward(Tensor g, Tensor y, Tensor x) -> Tensor",
    _backward,
    fake=lambda g, y, x: torch.empty(y.shape, dtype=y.dtype, device=y.device),
    trials=Trials(per_trial=(0, 1), both={2: 2}),
)
