"""KL between diagonal Gaussians, plain and binarized, in closed form (Kingma and Welling 2014, Appendix B; S1 Eq. 4).

    gap  = logvar - prior_logvar
    KL_B = 1/2 [ exp(gap) - 1 - gap + (|mu - prior_mu| - r)^2 / prior_var ]          nats per dimension

Errata of S1. Eq. 4 prints + ln(sigma_q / sigma_p), unbounded below; a KL needs the other sign. The authors' code has
the sign right and forgets to divide the squared term by the prior's variance. Eq. 2 leaves mu = prior_mu undefined;
Eq. 5 takes s = +1 there, and so does the gradient here.

exp(gap) - 1 - gap cancels near a collapsed posterior: at gap = 1e-4 float32 leaves nothing of 5e-9. There it is its
Taylor series, so the KL and its gradient keep their relative accuracy down to 0.

A composite of torch operators, not an operator of its own: elementwise work of any broadcast shape, that
torch.compile fuses, vmap batches and autograd differentiates, twice if need be, in every argument. The fused kernel
of a training step is `sample_kl`."""

from __future__ import annotations

import torch
from torch import Tensor

from distvae.kernels.arguments import FLOATS, like, tensor


def gaussian_kl(
    mu: Tensor,
    logvar: Tensor,
    *,
    r: float | Tensor = 0.0,
    prior_mu: float | Tensor = 0.0,
    prior_logvar: float | Tensor = 0.0,
) -> Tensor:
    """KL(N(mu, e^logvar) || N(prior_mu, e^prior_logvar)), with r > 0 the binarized surrogate KL_B.

    `mu`, `logvar` `[..., D]`; r and the prior are numbers or tensors, broadcast over the *leading* axes: a tensor with
    fewer dimensions than `mu` gets trailing axes of size 1 (`r` `[K]` for `mu` `[K, B, D]` is one r per trial), one
    with as many broadcasts as it stands. Returns `[..., D]` nats per dimension, in mu's dtype (bfloat16 and float16
    are computed in float32). Differentiable in every tensor. KL_B is no KL to a fixed prior (the prior's sign follows
    mu): `gaussian_mixture_kl` is the rate. Raises TypeError, ValueError."""
    tensor("mu", mu, dims=tuple(range(1, 9)))
    like("logvar", logvar, "mu", mu)
    r, prior_mu, prior_logvar = (
        _leading(name, x, mu) for name, x in (("r", r), ("prior_mu", prior_mu), ("prior_logvar", prior_logvar))
    )
    wide = torch.float64 if mu.dtype == torch.float64 else torch.float32
    gap = logvar.to(wide) - prior_logvar
    apart = mu.to(wide) - prior_mu
    location = torch.where(apart >= 0, apart, -apart) - r
    scaled = location.square() * _exp_minus(prior_logvar)
    return (0.5 * (expm1_minus(gap) + scaled)).to(mu.dtype)


def expm1_minus(x: Tensor) -> Tensor:
    """exp(x) - 1 - x, >= 0, accurate near 0."""
    near = x.abs() < 0.25
    s = torch.where(near, x, torch.zeros_like(x))
    series = torch.full_like(s, 1.0 / 479001600.0)
    for factorial in (39916800.0, 3628800.0, 362880.0, 40320.0, 5040.0, 720.0, 120.0, 24.0, 6.0, 2.0):
        series = series * s + 1.0 / factorial
    return torch.where(near, series * s * s, torch.expm1(x) - x)


def _exp_minus(x: float | Tensor) -> float | Tensor:
    return (-x).exp() if isinstance(x, Tensor) else float(torch.tensor(-x, dtype=torch.float64).exp())


def _leading(name: str, x: float | Tensor, mu: Tensor) -> float | Tensor:
    if not isinstance(x, Tensor):
        if isinstance(x, bool) or not isinstance(x, int | float):
            raise TypeError(f"{name}: a number or a tensor is needed, not {type(x).__name__}")
        if name == "r" and not x >= 0:
            raise ValueError(f"r: {x} is not a number >= 0")
        return float(x)
    if x.dtype not in FLOATS:
        raise TypeError(f"{name}: dtype {str(x.dtype).removeprefix('torch.')} is not a floating type")
    if x.device != mu.device and x.dim():
        raise ValueError(f"{name}: on {x.device}, but mu is on {mu.device}: move one of them")
    shape = x.shape + (1,) * (mu.dim() - x.dim()) if x.dim() else x.shape
    try:
        fits = torch.broadcast_shapes(shape, mu.shape) == mu.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"{name}: shape {list(x.shape)} does not broadcast over the leading axes of mu {list(mu.shape)}"
        )
    wide = torch.float64 if mu.dtype == torch.float64 else torch.float32
    return x.to(wide).reshape(shape)
