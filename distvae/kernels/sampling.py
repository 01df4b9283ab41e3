"""Variance dropout, floor, reparameterisation and KL in one pass, for K trials at once.

    var = g exp(logvar) + floor,   g ~ Bernoulli(p_keep) / p_keep                  S2 Eq. 6 (p is a KEEP probability)
    z   = mu + sqrt(var) eps,      eps ~ N(0, 1)
    kl  = 1/2 [var + (|mu| - r)^2 - 1 - ln var]                                    S1 Eq. 4, nats per dimension

eps is Philox by address (kernels/philox.py), the dropout's uniform its own stream: the numbers depend on (seed, step,
example, sample, dimension), never on K, the trial's slot or who holds the example. Backward draws them again instead
of storing them."""

from __future__ import annotations

import torch
from torch import Tensor

from distvae.kernels import backend
from distvae.kernels.arguments import like, on_device, per_trial, tensor
from distvae.kernels.library import Trials, define
from distvae.kernels.philox import Stream


def sample_kl(
    mu: Tensor,
    logvar: Tensor,
    *,
    seed: int | Tensor,
    step: int | Tensor,
    index: Tensor,
    stream: int = 0,
    sample: int = 0,
    r: float | Tensor = 0.0,
    p_keep: float | Tensor = 1.0,
    floor: float | Tensor = 0.0,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """(z, kl), both shaped like `mu`, kl in nats per dimension.

    `mu`, `logvar` `[B, D]` or `[K, B, D]`. `seed`, `step`, `r`, `p_keep`, `floor`: a number or a tensor `[]` or `[K]`,
    one per trial (`seed`, `step` int64; tensors are read on the device, so a captured CUDA graph sees their new
    values). `index` int64 `[B]`: the examples' ids. `stream`, `sample`: the rest of the noise's address. `mask` bool
    `[K, D]` (`[D]` for one trial): False where a trial has no such dimension; z, kl and gradients are 0 there.

    Differentiable in `mu` and `logvar`. bfloat16 and float16 are computed in float32. A variance that is dropped
    needs `floor` > 0: at floor = 0 its KL is infinite. Raises TypeError, ValueError."""
    tensor("mu", mu, dims=(2, 3))
    like("logvar", logvar, "mu", mu)
    one = mu.dim() == 2
    b, d = mu.shape[-2:]
    k = 1 if one else mu.shape[0]
    if not isinstance(index, Tensor) or index.dtype != torch.int64:
        raise TypeError(f"index: an int64 tensor is needed, not {getattr(index, 'dtype', type(index).__name__)}")
    if tuple(index.shape) != (b,):
        raise ValueError(f"index: shape {list(index.shape)} is not [{b}], one id per example of mu {list(mu.shape)}")
    on_device("index", index, "mu", mu)
    if mask is not None:
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            raise TypeError(f"mask: a bool tensor is needed, not {getattr(mask, 'dtype', type(mask).__name__)}")
        if tuple(mask.shape) not in ((k, d), *([(d,)] if one else [])):
            raise ValueError(f"mask: shape {list(mask.shape)} is not [{k}, {d}], which mu {list(mu.shape)} asks for")
        on_device("mask", mask, "mu", mu)
        mask = mask.reshape(k, d)
    if not 0 <= stream < 256 or stream == Stream.DROPOUT:
        raise ValueError(f"stream: {stream} is not a stream of normals (0 to 255, {int(Stream.DROPOUT)} is dropout's)")
    if not 0 <= sample < 2**32:
        raise ValueError(f"sample: {sample} is not in [0, 2^32)")
    if not isinstance(p_keep, Tensor) and not isinstance(floor, Tensor) and p_keep < 1 and floor == 0:
        raise ValueError(f"floor: 0.0 with p_keep {p_keep} < 1: a dropped variance would be 0 and its KL infinite")
    wide = torch.float64 if mu.dtype == torch.float64 else torch.float32
    z, kl = _sample_kl(
        mu[None] if one else mu,
        logvar[None] if one else logvar,
        per_trial("seed", seed, k, mu, lambda x: True, "an integer", torch.int64),
        per_trial("step", step, k, mu, lambda x: x >= 0, "an integer >= 0", torch.int64),
        index,
        per_trial("r", r, k, mu, lambda x: x >= 0, "a number >= 0", wide),
        per_trial("p_keep", p_keep, k, mu, lambda x: 0 < x <= 1, "a number in (0, 1]", wide),
        per_trial("floor", floor, k, mu, lambda x: x >= 0, "a number >= 0", wide),
        mask,
        stream,
        sample,
    )
    return (z[0], kl[0]) if one else (z, kl)


# --- the operator: [K, B, D], hyper-parameters [K] ------------------------------------------------------------------

_ARGS = (
    "Tensor mu, Tensor logvar, Tensor seed, Tensor step, Tensor index, Tensor r, Tensor p_keep, Tensor floor, "
    "Tensor? mask, int stream, int sample"
)


def _forward(mu: Tensor, logvar: Tensor, *rest: object) -> tuple[Tensor, Tensor]:
    return backend.pick(mu).sample_kl(mu.contiguous(), logvar.contiguous(), *rest)


def _backward(gz: Tensor, gkl: Tensor, mu: Tensor, logvar: Tensor, *rest: object) -> tuple[Tensor, Tensor]:
    return backend.pick(mu).sample_kl_backward(*(x.contiguous() for x in (gz, gkl, mu, logvar)), *rest)


def _pair(mu: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(mu, memory_format=torch.contiguous_format), torch.empty_like(
        mu, memory_format=torch.contiguous_format
    )


def _save(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs[:9])
    ctx.stream, ctx.sample = inputs[9:]


def _grad(ctx, gz: Tensor, gkl: Tensor):
    dmu, dlogvar = _sample_kl_backward(gz, gkl, *ctx.saved_tensors, ctx.stream, ctx.sample)
    return dmu, dlogvar, *([None] * 9)


_sample_kl = define(
    f"sample_kl({_ARGS}) -> (Tensor, Tensor)",
    _forward,
    fake=lambda mu, *rest: _pair(mu),
    trials=Trials(per_trial=(0, 1, 2, 3, 5, 6, 7, 8), both={4: 1}, k_from=0),
    save=_save,
    grad=_grad,
)
_sample_kl_backward = define(
    f"sample_kl_backward(Tensor gz, Tensor gkl, {_ARGS}) -> (Tensor, Tensor)",
    _backward,
    fake=lambda gz, gkl, mu, *rest: _pair(mu),
    trials=Trials(per_trial=(0, 1, 2, 3, 4, 5, 7, 8, 9, 10), both={6: 1}, k_from=2),
)
