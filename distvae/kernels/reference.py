"""The kernels in readable torch: the truth that the C++ and CUDA back ends are held to, and what runs where neither
can. Any device, float64 inside whatever comes in, memory O((N + M) D) plus a chunk.

Every back end is a module with these functions, on contiguous tensors with a trial axis K."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

NAME = "reference"
CHUNK = 2**21  # pair-dimensions at a time
DROPOUT_STREAM = 1  # philox.Stream.DROPOUT

_MASK = 0xFFFFFFFF
_LOG_2PI = math.log(2.0 * math.pi)


# --- noise ---------------------------------------------------------------------------------------------------------


def _mul(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """High and low words of a 32 x 32 bit product (int64 wraps modulo 2^64, which keeps every bit)."""
    p = a * b
    return (p >> 32) & _MASK, p & _MASK


def words(seed: Tensor, step: Tensor, index: Tensor, *, stream: int, sample: int | Tensor, dim: int) -> Tensor:
    """Philox-4x32-10 words `[K, B, dim]` (int64 in [0, 2^32)) of seeds, steps (and samples) `[K]` and ids `index` `[B]` or `[K,
    B]`; see kernels/philox.py."""
    k, blocks = seed.shape[0], -(-dim // 4)
    index = index.expand(k, index.shape[-1]) if index.dim() == 1 else index
    shape = (k, index.shape[1], blocks)
    block = torch.arange(blocks, device=seed.device) + (stream << 24)
    a = (index & _MASK)[:, :, None].expand(shape)
    b = (step & _MASK)[:, None, None].expand(shape)
    c = torch.as_tensor(sample, device=seed.device).reshape(-1, 1, 1).expand(shape) & _MASK
    d = block.expand(shape) & _MASK
    k0, k1 = (seed & _MASK)[:, None, None], ((seed >> 32) & _MASK)[:, None, None]
    for _ in range(10):
        (h0, l0), (h1, l1) = _mul(0xD2511F53, a), _mul(0xCD9E8D57, c)
        a, b, c, d = h1 ^ b ^ k0, l1, h0 ^ d ^ k1, l0
        k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
    return torch.stack([a, b, c, d], dim=-1).flatten(2)[..., :dim]


def normals(w: Tensor) -> Tensor:
    """Box-Muller of word pairs (0, 1), (2, 3), ... of `[..., 4n]` words, float64."""
    u = (w.double() + 0.5) * 2.0**-32
    radius, angle = (-2.0 * u[..., 0::2].log()).sqrt(), 2.0 * math.pi * u[..., 1::2]
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1).flatten(-2)


def noise(
    seed: Tensor,
    step: Tensor,
    index: Tensor,
    stream: int,
    samples: int,
    dim: int,
    normal: bool,
    dtype: torch.dtype,
) -> Tensor:
    """Normals or uniforms `[K, B, samples, dim]` of seeds and steps `[K]` and ids `[B]` or `[K, B]`."""
    padded, k = -(-dim // 4) * 4, seed.shape[0]
    index = index.expand(k, index.shape[-1]) if index.dim() == 1 else index
    every = torch.arange(samples, device=seed.device).repeat(k)
    each = (t.repeat_interleave(samples, 0) for t in (seed, step, index))
    w = words(*each, stream=stream, sample=every, dim=padded).unflatten(0, (k, samples)).transpose(1, 2)
    u = normals(w) if normal else (w.double() + 0.5) * 2.0**-32
    return u[..., :dim].to(dtype).contiguous()


def bernoulli(seed: Tensor, step: Tensor, index: Tensor, p: Tensor, stream: int) -> Tensor:
    """1 where u < p, else 0, `[K, B, D]` in p's dtype, of `p` `[B, D]` or `[K, B, D]`."""
    u = noise(seed, step, index, stream, 1, p.shape[-1], False, torch.float64)[:, :, 0]
    return (u < p.double()).to(p.dtype)


def _noise(mu: Tensor, seed: Tensor, step: Tensor, index: Tensor, p_keep: Tensor, stream: int, sample: int):
    """(eps, g) `[K, B, D]` float64: a standard normal, and Bernoulli(p_keep) / p_keep."""
    dim = mu.shape[-1]
    padded = -(-dim // 4) * 4
    eps = normals(words(seed, step, index, stream=stream, sample=sample, dim=padded))[..., :dim]
    u = (words(seed, step, index, stream=DROPOUT_STREAM, sample=0, dim=dim).double() + 0.5) * 2.0**-32
    p = p_keep.double()[:, None, None]
    return eps, (u <= p) / p


# --- sample_kl -----------------------------------------------------------------------------------------------------


def sample_kl(
    mu: Tensor,
    logvar: Tensor,
    seed: Tensor,
    step: Tensor,
    index: Tensor,
    r: Tensor,
    p_keep: Tensor,
    floor: Tensor,
    mask: Tensor | None,
    stream: int,
    sample: int,
) -> tuple[Tensor, Tensor]:
    """(z, kl) `[K, B, D]`; `seed`, `step` int64 `[K]`, `r`, `p_keep`, `floor` `[K]` float32 (float64
    with a float64 `mu`), `mask` bool `[K, D]`."""
    eps, g = _noise(mu, seed, step, index, p_keep, stream, sample)
    m, lv = mu.double(), logvar.double()
    var = g * lv.exp() + floor.double()[:, None, None]
    plain = (g == 1.0) & (floor == 0.0)[:, None, None]
    z = m + var.sqrt() * eps
    location = m.abs() - r.double()[:, None, None]
    gap = torch.where(plain, torch.expm1(lv) - lv, var - 1.0 - var.log())
    kl = 0.5 * (location.square() + gap)
    if mask is not None:
        out = ~mask[:, None, :]
        z, kl = z.masked_fill(out, 0.0), kl.masked_fill(out, 0.0)
    return z.to(mu.dtype), kl.to(mu.dtype)


def sample_kl_backward(
    gz: Tensor,
    gkl: Tensor,
    mu: Tensor,
    logvar: Tensor,
    seed: Tensor,
    step: Tensor,
    index: Tensor,
    r: Tensor,
    p_keep: Tensor,
    floor: Tensor,
    mask: Tensor | None,
    stream: int,
    sample: int,
) -> tuple[Tensor, Tensor]:
    """Gradients with respect to mu and logvar."""
    eps, g = _noise(mu, seed, step, index, p_keep, stream, sample)
    m, lv, gz, gkl = mu.double(), logvar.double(), gz.double(), gkl.double()
    dropped = g * lv.exp()
    var = dropped + floor.double()[:, None, None]
    sign = torch.where(m >= 0, 1.0, -1.0)
    dmu = gz + gkl * sign * (m.abs() - r.double()[:, None, None])
    # d var / d logvar = dropped; where a variance was dropped nothing flows, whatever 1 / var is
    dlogvar = torch.where(dropped == 0, 0.0, 0.5 * dropped * (gz * eps * var.rsqrt() + gkl * (1.0 - 1.0 / var)))
    if mask is not None:
        out = ~mask[:, None, :]
        dmu, dlogvar = dmu.masked_fill(out, 0.0), dlogvar.masked_fill(out, 0.0)
    return dmu.to(mu.dtype), dlogvar.to(mu.dtype)


# --- bernoulli_nll -------------------------------------------------------------------------------------------------


def _less_likely(y: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(y, the target's share of the less likely side, e^-|y|) float64 `[K, B, S, P]`."""
    y, x = y.double(), x.double().unsqueeze(-2)
    return y, torch.where(y > 0, 1.0 - x, x), (-y.abs()).exp()


def bernoulli_nll(y: Tensor, x: Tensor) -> Tensor:
    """`[K, B, S]` in x's dtype of `y` `[K, B, S, P]` and `x` `[B, P]` or `[K, B, P]`."""
    y, share, e = _less_likely(y, x)
    return (y.abs() * share + e.log1p()).sum(-1).to(x.dtype)


def bernoulli_nll_backward(g: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """g (sigmoid(y) - x)."""
    wide, share, e = _less_likely(y, x)
    slope = share - e / (1.0 + e)
    return (g.double()[..., None] * torch.where(wide > 0, slope, -slope)).to(y.dtype)


# --- gaussian_mixture_kl -------------------------------------------------------------------------------------------

HERMITE = np.polynomial.hermite_e.hermegauss(40)
HERMITE = HERMITE[0], HERMITE[1] / HERMITE[1].sum()
_S, _V = np.polynomial.laguerre.laggauss(48)
LAGUERRE = _S, _V * np.exp(_S)  # in float64, here: e^s overflows float32 (nodes reach 180)


def log_cosh(t: Tensor) -> Tensor:
    """ln cosh(t) without overflow: |t| + ln(1 + exp(-2|t|)) - ln 2."""
    return t.abs() + torch.log1p(torch.exp(-2.0 * t.abs())) - math.log(2.0)


def _expectations(mu: Tensor, sigma: Tensor, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """E ln cosh(r z), E tanh(r z), E sech^2(r z) for z ~ N(mu, sigma^2); 1-d float64 tensors."""
    x, w = (mu.new_tensor(a) for a in HERMITE)
    t = r[:, None] * (mu[:, None] + sigma[:, None] * x)
    tanh = t.tanh()
    hermite = (log_cosh(t) @ w, tanh @ w, (1.0 - tanh.square()) @ w)

    s, v = (mu.new_tensor(a) for a in LAGUERRE)
    two_r = 2.0 * r.clamp_min(1e-30)[:, None]
    at = s / two_r
    above = torch.exp(-0.5 * ((at - mu[:, None]) / sigma[:, None]).square())
    below = torch.exp(-0.5 * ((at + mu[:, None]) / sigma[:, None]).square())
    scale = 1.0 / (two_r * sigma[:, None] * math.sqrt(2.0 * math.pi))  # q(t) dt = scale * above * ds
    a = mu / sigma
    erf = torch.erf(a / math.sqrt(2.0))
    mean_abs = 2.0 * sigma * torch.exp(-0.5 * a.square() - 0.5 * _LOG_2PI) + mu * erf  # folded normal
    e = torch.exp(-s)
    laguerre = (
        r * mean_abs - math.log(2.0) + ((above + below) * scale) @ (v * torch.log1p(e)),
        erf - ((above - below) * scale) @ (v * 2.0 * e / (1.0 + e)),
        ((above + below) * scale) @ (v * 4.0 * e / (1.0 + e).square()),
    )
    easy = r * sigma < 1.0
    return tuple(torch.where(easy, h, l) for h, l in zip(hermite, laguerre, strict=True))  # type: ignore[return-value]


def _flat(mu: Tensor, logvar: Tensor, r: Tensor) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """Chunks of (mu, logvar, r) as 1-d float64."""
    size = mu[0].numel()
    m, lv = mu.reshape(-1), logvar.reshape(-1)
    every = r.double().repeat_interleave(size)
    for at in range(0, m.numel(), CHUNK // 64):
        part = slice(at, at + CHUNK // 64)
        yield part, m[part].double(), lv[part].double(), every[part]


def mixture_kl(mu: Tensor, logvar: Tensor, r: Tensor) -> Tensor:
    """KL(N(mu, e^logvar) || 1/2 N(-r, 1) + 1/2 N(r, 1)) elementwise; `mu` `[K, ...]`, `r` `[K]`."""
    out = torch.empty(mu.numel(), dtype=mu.dtype, device=mu.device)
    for part, m, lv, each_r in _flat(mu, logvar, r) if mu.numel() else ():
        log_cosh_, _, _ = _expectations(m, (0.5 * lv).exp(), each_r)
        out[part] = (0.5 * (torch.expm1(lv) - lv + m.square() + each_r.square()) - log_cosh_).to(mu.dtype)
    return out.reshape(mu.shape)


def mixture_kl_backward(g: Tensor, mu: Tensor, logvar: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """d/dmu = mu - r E tanh(r z),  d/dvar = 1/2 (1 - 1/var) - 1/2 r^2 E sech^2(r z)  (Price's theorem)."""
    dmu, dlogvar = (torch.empty(mu.numel(), dtype=mu.dtype, device=mu.device) for _ in range(2))
    g = g.reshape(-1)
    for part, m, lv, each_r in _flat(mu, logvar, r) if mu.numel() else ():
        _, tanh, sech2 = _expectations(m, (0.5 * lv).exp(), each_r)
        dmu[part] = (g[part].double() * (m - each_r * tanh)).to(mu.dtype)
        slope = 0.5 * (torch.expm1(lv) - lv.exp() * each_r.square() * sech2)
        dlogvar[part] = (g[part].double() * slope).to(mu.dtype)
    return dmu.reshape(mu.shape), dlogvar.reshape(mu.shape)


# --- log_density, log_marginals ------------------------------------------------------------------------------------
#
#     l_ij(d) = -1/2 [(z_id - mu_jd)^2 / var_jd + logvar_jd + ln 2 pi] + own [j = i + offset] + next [j = i + offset + 1]
#     out_i = base + ln sum_j exp(sum_d l_ij(d)),        or per d: the weights are added once, not once a dimension


def _chunks(n: int, m: int, d: int) -> Iterator[slice]:
    rows = max(1, CHUNK // max(1, m * d))
    return (slice(at, min(n, at + rows)) for at in range(0, n, rows))


def _log_weights(rows: slice, m: int, own: float, nxt: float, offset: int, device: torch.device) -> Tensor:
    """`[rows, M]` additive log-weights (of a chunk: nothing is N x M)."""
    weights = torch.zeros(rows.stop - rows.start, m, dtype=torch.float64, device=device)
    i = torch.arange(rows.start, rows.stop, device=device)
    for value, column in ((own, i + offset), (nxt, (i + offset + 1) % max(m, 1))):
        there = (column >= 0) & (column < m)
        weights[(i - rows.start)[there], column[there]] += value
    return weights


def _logs(z: Tensor, mu: Tensor, logvar: Tensor, weights: Tensor, joint: bool) -> Tensor:
    """l `[rows, M]` or `[rows, M, D]`, float64."""
    t = z[:, None, :] - mu[None]
    l = -0.5 * (t.square() * (-logvar).exp() + logvar + _LOG_2PI)
    if joint:
        return torch.where(weights == -math.inf, -math.inf, l.sum(-1) + weights)
    return torch.where((weights == -math.inf)[..., None], -math.inf, l + weights[..., None])


def density(
    z: Tensor, mu: Tensor, logvar: Tensor, base: float, own: float, nxt: float, offset: int, joint: bool
) -> tuple[Tensor, Tensor]:
    k, n, d = z.shape
    m = mu.shape[1]
    lse = torch.full((k, n) if joint else (k, n, d), -math.inf, dtype=torch.float64, device=z.device)
    for trial in range(k):
        zz, mm, lv = z[trial].double(), mu[trial].double(), logvar[trial].double()
        for rows in _chunks(n, m, d):
            weights = _log_weights(rows, m, own, nxt, offset, z.device)
            lse[trial, rows] = torch.logsumexp(_logs(zz[rows], mm, lv, weights, joint), dim=1)
    return (lse + base).to(z.dtype), lse


def density_backward(
    g: Tensor, z: Tensor, mu: Tensor, logvar: Tensor, lse: Tensor, own: float, nxt: float, offset: int, joint: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """With w_ij = g_i exp(l_ij - lse_i), t = z - mu, p = 1 / var:
    dz = -sum_j w t p,   dmu = sum_i w t p,   dlogvar = 1/2 sum_i w (t^2 p - 1)."""
    k, n, d = z.shape
    m = mu.shape[1]
    dz, dmu, dlv = (torch.zeros_like(x, dtype=torch.float64) for x in (z, mu, logvar))
    for trial in range(k):
        zz, mm, lv = z[trial].double(), mu[trial].double(), logvar[trial].double()
        for rows in _chunks(n, m, d):
            weights = _log_weights(rows, m, own, nxt, offset, z.device)
            l = _logs(zz[rows], mm, lv, weights, joint)
            out = (weights == -math.inf)[..., None]
            w = g[trial, rows].double()[:, None] * torch.exp(l - lse[trial, rows][:, None])
            w = (w[..., None] if joint else w).masked_fill(out, 0.0)  # [rows, M, 1 or D]
            t = (zz[rows][:, None] - mm).masked_fill(out, 0.0)
            tp = (t * (-lv).exp()).masked_fill(out, 0.0)
            dz[trial, rows] = -(w * tp).sum(1)
            dmu[trial] += (w * tp).sum(0)
            dlv[trial] += 0.5 * (w * (t * tp - 1.0)).sum(0)
    return dz.to(z.dtype), dmu.to(mu.dtype), dlv.to(logvar.dtype)


def log_density(
    z: Tensor, mu: Tensor, logvar: Tensor, base: float, own: float, nxt: float, offset: int
) -> tuple[Tensor, Tensor]:
    """(out `[K, N]`, lse float64 `[K, N]`) of `z` `[K, N, D]` and `mu`, `logvar` `[K, M, D]`; out = lse + base."""
    return density(z, mu, logvar, base, own, nxt, offset, True)


def log_density_backward(
    g: Tensor, z: Tensor, mu: Tensor, logvar: Tensor, lse: Tensor, own: float, nxt: float, offset: int
) -> tuple[Tensor, Tensor, Tensor]:
    return density_backward(g, z, mu, logvar, lse, own, nxt, offset, True)


def log_marginals(
    z: Tensor, mu: Tensor, logvar: Tensor, base: float, own: float, nxt: float, offset: int
) -> tuple[Tensor, Tensor]:
    """(out `[K, N, D]`, lse float64 `[K, N, D]`)."""
    return density(z, mu, logvar, base, own, nxt, offset, False)


def log_marginals_backward(
    g: Tensor, z: Tensor, mu: Tensor, logvar: Tensor, lse: Tensor, own: float, nxt: float, offset: int
) -> tuple[Tensor, Tensor, Tensor]:
    return density_backward(g, z, mu, logvar, lse, own, nxt, offset, False)
