"""log q(z) under the aggregated posterior q(z) = 1/M sum_j q(z | x_j), and its marginals log q(z_d): what mutual
information, total correlation and the dimension-wise KL need (Chen et al. 2018, "Isolating sources of disentanglement").

Sampling. With `sampling="mean"` the M components are the whole data set, or stand for it. When they are a minibatch
of a data set of `dataset_size` N and row i was drawn from component i + offset, Chen et al. give two estimators:
  weighted    q(z_i) ~ 1/(N M) sum_j q(z_i | x_j)                                        (minibatch-weighted, Eq. 5)
  stratified  q(z_i) ~ 1/N q(z_i | x_i) + (N - M + 1)/(N (M - 1)) q(z_i | x_i+1) + 1/(M - 1) sum_others q(z_i | x_j)
                                                    (minibatch-stratified, Appendix C.2; unbiased for a random batch)
The log-weight of a pair is added once: to the joint's sum over dimensions, or to each marginal, never once a dimension
inside the joint (a bug of well-known implementations: disentangling-vae issues 58 and 60).

Exponents are differences to the largest term, bounded beforehand where that is possible; a row so far from every
component that float32 would underflow is computed anew in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from distvae.kernels import backend
from distvae.kernels.arguments import like, tensor
from distvae.kernels.library import Trials, define, strides_free

Sampling = Literal["mean", "weighted", "stratified"]


def log_density(
    z: Tensor,
    mu: Tensor,
    logvar: Tensor,
    *,
    sampling: Sampling = "mean",
    dataset_size: int | None = None,
    exclude_self: bool = False,
    offset: int = 0,
) -> Tensor:
    """log q(z_i), nats: `z` `[N, D]` under the mean of the M Gaussians `mu`, `logvar` `[M, D]` -> `[N]`. With a trial
    axis in front of all three, `[K, N]`.

    `exclude_self` leaves out row i's own component, number i + `offset` (1/(M-1) sum over the others). `sampling`,
    `dataset_size`: see the module. Differentiable in z, mu and logvar; memory O((N + M) D), forward and backward. No
    rows give an empty result, no components -inf. bfloat16 and float16 accumulate in float32. Raises TypeError,
    ValueError."""
    args = _arguments(z, mu, logvar, sampling, dataset_size, exclude_self, offset)
    out, _ = _log_density(*args)
    return out[0] if z.dim() == 2 else out


def log_marginals(
    z: Tensor,
    mu: Tensor,
    logvar: Tensor,
    *,
    sampling: Sampling = "mean",
    dataset_size: int | None = None,
    exclude_self: bool = False,
    offset: int = 0,
) -> Tensor:
    """log q(z_id), nats, of every dimension by itself: `[N, D]` (with a trial axis `[K, N, D]`). The arguments are
    those of `log_density`."""
    args = _arguments(z, mu, logvar, sampling, dataset_size, exclude_self, offset)
    out, _ = _log_marginals(*args)
    return out[0] if z.dim() == 2 else out


def _arguments(z, mu, logvar, sampling, dataset_size, exclude_self, offset):
    tensor("z", z, dims=(2, 3))
    m = mu.shape[-2] if isinstance(mu, Tensor) and mu.dim() >= 2 else 0
    like("mu", mu, "z", z, shape=(*z.shape[:-2], m, z.shape[-1]))
    like("logvar", logvar, "mu", mu)
    base, own, nxt = log_weights(z.shape[-2], m, sampling, dataset_size, exclude_self, offset)
    if z.dim() == 2:
        z, mu, logvar = z[None], mu[None], logvar[None]
    return z, mu, logvar, base, own, nxt, offset


def log_weights(
    n: int, m: int, sampling: Sampling, dataset_size: int | None, exclude_self: bool, offset: int
) -> tuple[float, float, float]:
    """(base, own, next): log q(z_i) = base + ln sum_j exp(log q(z_i|x_j) + own [j = i'] + next [j = i' + 1 mod M]) with
    i' = i + offset. Raises ValueError."""
    if sampling not in ("mean", "weighted", "stratified"):
        raise ValueError(f"sampling: {sampling!r} is not one of 'mean', 'weighted', 'stratified'")
    if sampling == "mean" and dataset_size is not None:
        raise ValueError("dataset_size: only sampling 'weighted' and 'stratified' use it")
    size = 1 if sampling == "mean" else dataset_size
    if size is None or (sampling != "mean" and size < max(m, 1)):
        raise ValueError(f"dataset_size: {dataset_size} is not a number of examples >= the {m} of the minibatch")
    if sampling == "stratified" and exclude_self:
        raise ValueError("exclude_self: not with sampling 'stratified', which weighs a row's own component")
    if (exclude_self or sampling == "stratified") and n:
        if offset < 0 or offset + n > m:
            raise ValueError(f"offset: rows {offset} to {offset + n - 1} have no component of their own among mu's {m}")
        if m < 2:
            raise ValueError(f"mu: {m} component; leaving out or weighing a row's own needs at least 2")
    others = max(m - 1, 1)
    if sampling == "stratified":
        skipped = math.log((size - others) / size) if size > others else -math.inf
        return -math.log(others), math.log(others / size), skipped
    if exclude_self:
        return -math.log(others) - math.log(size), -math.inf, 0.0
    return -math.log(max(m, 1)) - math.log(size), 0.0, 0.0


# --- the operators: [K, N, D], [K, M, D] ----------------------------------------------------------------------------


def _define(name: str, joint: bool) -> Callable[..., tuple[Tensor, Tensor]]:
    args = "Tensor z, Tensor mu, Tensor logvar"
    tail = "float own, float next, int offset"

    def forward(z: Tensor, mu: Tensor, logvar: Tensor, base: float, own: float, nxt: float, offset: int):
        return getattr(backend.pick(z), name)(
            z.contiguous(), mu.contiguous(), logvar.contiguous(), base, own, nxt, offset
        )

    def backward(g: Tensor, z: Tensor, mu: Tensor, logvar: Tensor, lse: Tensor, own: float, nxt: float, offset: int):
        tensors = (x.contiguous() for x in (g, z, mu, logvar, lse))
        return getattr(backend.pick(z), f"{name}_backward")(*tensors, own, nxt, offset)

    def fake(z: Tensor, *rest: object) -> tuple[Tensor, Tensor]:
        shape = z.shape[:2] if joint else z.shape
        return z.new_empty(shape), z.new_empty(shape, dtype=torch.float64)

    def save(ctx, inputs, output) -> None:
        z, mu, logvar, _, *ctx.weights = inputs
        ctx.save_for_backward(z, mu, logvar, output[1])
        ctx.mark_non_differentiable(output[1])

    def grad(ctx, g: Tensor, _: Tensor):
        gradients = differentiate(g, *ctx.saved_tensors, *ctx.weights)
        return *gradients, None, None, None, None

    differentiate = define(
        f"{name}_backward(Tensor g, {args}, Tensor lse, {tail}) -> (Tensor, Tensor, Tensor)",
        backward,
        fake=lambda g, z, mu, logvar, *rest: (strides_free(z), strides_free(mu), strides_free(logvar)),
        trials=Trials(per_trial=(0, 1, 2, 3, 4), k_from=1),
    )
    return define(
        f"{name}({args}, float base, {tail}) -> (Tensor, Tensor)",
        forward,
        fake=fake,
        trials=Trials(per_trial=(0, 1, 2)),
        save=save,
        grad=grad,
    )


_log_density = _define("log_density", True)
_log_marginals = _define("log_marginals", False)
