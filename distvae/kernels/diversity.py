"""Mean pairwise divergence of posteriors (DU-VAE, S2 Eqs. 2-3): the mean over pairs of examples of KL(q_i || q_j), a
measure of diversity.

    2 MPD = sum_d { E[(mu_1 - mu_2)^2 / var] + E[var] E[1/var] - 1 }

Erratum: the printed form subtracts 1 once; it is once per dimension (the authors' code has it so), and only then is
it the mean over all pairs. Over sums S this needs no pairs at all: with m = mu - mean(mu), v = var,

    sum_ij KL(q_i || q_j) = 1/2 sum_d [S(v) S(1/v) - N^2 + S(m^2) S(1/v) - 2 S(m) S(m/v) + N S(m^2/v)]

divided by N^2 for the V-statistic (all pairs, i = j included, as the paper) or by N (N - 1) for the U-statistic (pairs
of different examples, unbiased, as MAE)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from distvae.kernels.arguments import like, tensor


def mpd(mu: Tensor, logvar: Tensor, *, statistic: Literal["v", "u"] = "v") -> Tensor:
    """Mean pairwise divergence, nats, of N Gaussians `mu`, `logvar` `[..., N, D]` -> `[...]`. Exact, O(N D), summed in
    float64, differentiable. Raises ValueError for no examples, or for fewer than two with `statistic="u"`."""
    if statistic not in ("v", "u"):
        raise ValueError(f"statistic: {statistic!r} is not one of 'v', 'u'")
    tensor("mu", mu, dims=tuple(range(2, 9)))
    like("logvar", logvar, "mu", mu)
    n = mu.shape[-2]
    if n < (2 if statistic == "u" else 1):
        raise ValueError(f"mu: shape {list(mu.shape)} has {n} examples; the {statistic}-statistic needs more")
    m, lv = mu.double(), logvar.double()  # converted once: gradients that cancel must meet in float64
    m = m - m.detach().mean(-2, keepdim=True)  # a shift changes nothing but rounding
    v, p = lv.exp(), (-lv).exp()
    sv, sp, sm, smp, sm2, sm2p = (x.sum(-2) for x in (v, p, m, m * p, m * m, m * m * p))
    total = 0.5 * (sv * sp - n * n + sm2 * sp - 2.0 * sm * smp + n * sm2p).sum(-1)
    return (total / (n * n if statistic == "v" else n * (n - 1))).to(mu.dtype)
