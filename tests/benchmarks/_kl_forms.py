"""What `distvae bench kl` compares the kernels with: the log densities of distvae.kernels as a user would write them in
torch, as fast as we could make them. All take z `[N, D]`, mu and logvar `[M, D]`; marginals `[N, D]`, joint `[N]`.

Chunked forms work on `[dims, rows, M]` blocks of about `chunk` elements in one buffer that stays in cache. With s =
sqrt(1 / (2 var)) and c = -1/2 (logvar + ln 2 pi) a term is c - (s z - s mu)^2, bounded by max_j c_j, which is known
before: no pass for a maximum (and no answer for a z that float32 puts out of reach of all components: nan)."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

LOG_2PI = math.log(2.0 * math.pi)
LOG2E = math.log2(math.e)


def blocks(n: int, m: int, d: int, chunk: int, dims: int) -> Iterator[tuple[slice, slice]]:
    rows = max(1, min(n, chunk // (m * dims)))
    for d0, i0 in product(range(0, d, dims), range(0, n, rows)):
        yield slice(d0, min(d, d0 + dims)), slice(i0, min(n, i0 + rows))


def parts(z: Tensor, mu: Tensor, logvar: Tensor) -> tuple[Tensor, ...]:
    """z, mu, s, c minus its bound, the bound; `[D, N or M]`, the bound `[D, 1]`."""
    zt, mt, lt = (x.t().contiguous() for x in (z, mu, logvar))
    c = -0.5 * (lt + LOG_2PI)
    top = c.amax(1, keepdim=True)
    return zt, mt, math.sqrt(0.5) * (-0.5 * lt).exp(), c - top, top


# --- marginals, forward: one function per way to fill a block with exp(term - bound) ---------------------------------


def fill_direct(buf: Tensor, z: Tensor, mu: Tensor, s: Tensor, c: Tensor) -> Tensor:
    torch.sub(z[:, :, None], mu[:, None], out=buf).mul_(s[:, None])
    return torch.addcmul(c[:, None], buf, buf, value=-1, out=buf).exp_()


def fill_scaled(buf: Tensor, z: Tensor, ms: Tensor, s: Tensor, c: Tensor) -> Tensor:
    torch.addcmul(ms[:, None], z[:, :, None], s[:, None], out=buf)
    return torch.addcmul(c[:, None], buf, buf, value=-1, out=buf).exp_()


def fill_exp2(buf: Tensor, z: Tensor, ms: Tensor, s: Tensor, c: Tensor) -> Tensor:
    torch.addcmul(ms[:, None], z[:, :, None], s[:, None], out=buf)
    return torch.addcmul(c[:, None], buf, buf, value=-1, out=buf).exp2_()


def fill_gemm(buf: Tensor, z: Tensor, quadratic: Tensor) -> Tensor:
    """z and mu centred: the square multiplied out cancels."""
    return torch.bmm(torch.stack([z * z, z, torch.ones_like(z)], -1), quadratic, out=buf).exp_()


def marginals_chunked(z: Tensor, mu: Tensor, logvar: Tensor, *, way: str, chunk: int, dims: int) -> Tensor:
    n, d = z.shape
    m = mu.shape[0]
    dims = min(dims, d)
    zt, mt, s, c, top = parts(z, mu, logvar)
    if way == "gemm":
        middle = mt.mean(1, keepdim=True)
        zt, mt = zt - middle, mt - middle
        p = s * s
        operands: tuple[Tensor, ...] = (torch.stack([-p, 2.0 * p * mt, c - p * mt * mt], 1),)
        fill: Callable[..., Tensor] = fill_gemm
    elif way == "exp2":
        s = s * math.sqrt(LOG2E)
        operands, fill = (-mt * s, s, c * LOG2E), fill_exp2
    elif way == "scaled":
        operands, fill = (-mt * s, s, c), fill_scaled
    else:
        operands, fill = (mt, s, c), fill_direct
    out = torch.empty_like(zt)
    store = torch.empty(max(chunk, m * dims), dtype=z.dtype, device=z.device)
    for ds, rows in blocks(n, m, d, chunk, dims):
        zz = zt[ds, rows]
        buf = store[: zz.numel() * m].view(*zz.shape, m)
        torch.sum(fill(buf, zz, *(x[ds] for x in operands)), -1, out=out[ds, rows])
    return out.log_().add_(top - math.log(m)).t()


def marginals_logsumexp(z: Tensor, mu: Tensor, logvar: Tensor, *, chunk: int) -> Tensor:
    """The textbook form, rows at a time."""
    m, d = mu.shape
    rows = max(1, chunk // (m * d))
    return torch.cat([marginals_naive(part, mu, logvar) for part in z.split(rows)])


def marginals_naive(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    l = -0.5 * ((z[:, None] - mu).square() * (-logvar).exp() + logvar + LOG_2PI)
    return torch.logsumexp(l, 1) - math.log(mu.shape[0])


def marginals_naive_t(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """`[D, N, M]`: the sum is over the contiguous axis."""
    zt, mt, lt = z.t()[:, :, None], mu.t()[:, None], logvar.t()[:, None]
    return (torch.logsumexp(-0.5 * ((zt - mt).square() * (-lt).exp() + lt + LOG_2PI), 2) - math.log(mu.shape[0])).t()


def marginals_bound(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    c = -0.5 * (logvar + LOG_2PI)
    top = c.detach().amax(0)
    e = torch.exp(c - top - 0.5 * (z[:, None] - mu).square() * (-logvar).exp())
    return e.sum(1).log() + top - math.log(mu.shape[0])


def marginals_bound_t(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    zt, mt, lt = z.t().contiguous(), mu.t().contiguous(), logvar.t().contiguous()
    c = -0.5 * (lt + LOG_2PI)
    top = c.detach().amax(1, keepdim=True)
    p = 0.5 * (-lt).exp()
    e = torch.exp((c - top)[:, None] - (zt[:, :, None] - mt[:, None]).square() * p[:, None])
    return (e.sum(2).log() + top - math.log(mu.shape[0])).t()


# --- marginals, forward and backward: (out, dz, dmu, dlogvar) for a given d loss / d out -----------------------------


def both_autograd(forward: Callable[..., Tensor], z: Tensor, mu: Tensor, logvar: Tensor, g: Tensor):
    inputs = [x.detach().requires_grad_() for x in (z, mu, logvar)]
    out = forward(*inputs)
    return out.detach(), *torch.autograd.grad(out, inputs, g)


def both_chunked(
    z: Tensor, mu: Tensor, logvar: Tensor, g: Tensor, *, way: str, moments: bool, chunk: int
) -> tuple[Tensor, ...]:
    """Hand-written backward that computes a block's weights again, a dimension at a time. With e_ij the bounded
    exponential, h_i = g_i exp(bound - log sum) and w_ij = h_i e_ij: dz = -sum_j w t / var, dmu = sum_i w t / var,
    dlogvar = 1/2 sum_i w (t^2 / var - 1). Every sum is a matrix-vector product (skinny matrix products are several
    times slower). `moments`: dmu and dlogvar from sums of w, w z, w z^2, two passes over memory fewer; it cancels."""
    m, d = mu.shape
    n = z.shape[0]
    out = marginals_chunked(z, mu, logvar, way=way, chunk=chunk, dims=1)
    zt, mt, s, c, top = parts(z, mu, logvar)
    middle = mt.mean(1, keepdim=True)
    zt, mt = zt - middle, mt - middle
    p = 2.0 * s * s
    h = g.t() * (top - out.t() - math.log(m)).exp()
    if way == "direct":
        operands, fill = (mt, s, c), fill_direct
    else:
        s = s * math.sqrt(LOG2E)
        operands, fill = (-mt * s, s, c * LOG2E), fill_exp2
    dz, sums, pm = torch.empty_like(zt), mt.new_zeros(3, d, m), p * mt
    store, more = mt.new_empty(max(chunk, m)), mt.new_empty(0 if moments else max(chunk, m))
    for ds, rows in blocks(n, m, d, chunk, 1):
        k = ds.start
        zz, hh = zt[k, rows], h[k, rows]
        e = fill(store[: len(zz) * m].view(1, -1, m), zt[ds, rows], *(x[ds] for x in operands))[0]
        sums[0, k].addmv_(e.t(), hh)
        if moments:
            sums[1, k].addmv_(e.t(), hh * zz)
            sums[2, k].addmv_(e.t(), hh * zz * zz)
            dz[k, rows] = hh * (torch.mv(e, pm[k]) - zz * torch.mv(e, p[k]))
        else:
            t = torch.sub(zz[:, None], mt[k], out=more[: e.numel()].view_as(e))
            sums[1, k].addmv_(e.mul_(t).t(), hh)
            dz[k, rows] = -hh * torch.mv(e, p[k])
            sums[2, k].addmv_(e.mul_(t).t(), hh)
    one, first, second = sums
    if moments:
        first, second = first - mt * one, second - 2.0 * mt * first + mt * mt * one
    return out, dz.t(), (p * first).t(), 0.5 * (p * second - one).t()


def both_checkpoint(z: Tensor, mu: Tensor, logvar: Tensor, g: Tensor, *, chunk: int) -> tuple[Tensor, ...]:
    from torch.utils.checkpoint import checkpoint

    rows = max(1, chunk // mu.numel())

    def forward(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
        return torch.cat([checkpoint(marginals_bound, part, mu, logvar, use_reentrant=False) for part in z.split(rows)])

    return both_autograd(forward, z, mu, logvar, g)


def backward_t(g: Tensor, out: Tensor, z: Tensor, mu: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The backward's sums in one expression, for torch.compile to fuse."""
    zt, mt, lt, gt, ot = (x.t().contiguous() for x in (z, mu, logvar, g, out))
    p = (-lt).exp()[:, None]
    t = zt[:, :, None] - mt[:, None]
    c = (-0.5 * (lt + LOG_2PI))[:, None] - math.log(mu.shape[0])
    w = gt[:, :, None] * torch.exp(c - 0.5 * t.square() * p - ot[:, :, None])
    wtp = w * t * p
    return -wtp.sum(2).t(), wtp.sum(1).t(), 0.5 * (wtp * t - w).sum(1).t()


# --- joint -----------------------------------------------------------------------------------------------------------


def joint_chunked(z: Tensor, mu: Tensor, logvar: Tensor, *, chunk: int) -> Tensor:
    """A dimension at a time into `[rows, M]`, direct differences."""
    zt, mt, s, _, _ = parts(z, mu, logvar)
    ms = -mt * s
    c = -0.5 * (logvar + LOG_2PI).sum(1)
    n, m = z.shape[0], mu.shape[0]
    out = torch.empty(n, dtype=z.dtype, device=z.device)
    rows = max(1, min(n, chunk // m))
    t = torch.empty(rows, m, dtype=z.dtype, device=z.device)
    for i in range(0, n, rows):
        part = zt[:, i : i + rows]
        acc, u = c.repeat(part.shape[1], 1), t[: part.shape[1]]
        for k in range(z.shape[1]):
            torch.addcmul(ms[k], part[k][:, None], s[k], out=u)
            acc.addcmul_(u, u, value=-1)
        torch.logsumexp(acc, 1, out=out[i : i + rows])
    return out - math.log(m)


def joint_naive(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    l = -0.5 * ((z[:, None] - mu).square() * (-logvar).exp() + logvar + LOG_2PI).sum(-1)
    return torch.logsumexp(l, 1) - math.log(mu.shape[0])


def joint_broadcast(z: Tensor, mu: Tensor, logvar: Tensor, *, chunk: int) -> Tensor:
    rows = max(1, chunk // mu.numel())
    return torch.cat([joint_naive(part, mu, logvar) for part in z.split(rows)])


def joint_naive_t(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """`[D, N, M]` summed over the first axis: vectors along M."""
    zt, mt, lt = z.t().contiguous()[:, :, None], mu.t().contiguous()[:, None], logvar.t().contiguous()[:, None]
    l = -0.5 * ((zt - mt).square() * (-lt).exp() + lt + LOG_2PI).sum(0)
    return torch.logsumexp(l, 1) - math.log(mu.shape[0])


def joint_gemm(z: Tensor, mu: Tensor, logvar: Tensor, *, chunk: int) -> Tensor:
    """The square multiplied out, means centred: two matrix products. Cancels where sigma is small."""
    middle = mu.mean(0)
    z, mu = z - middle, mu - middle
    p = 0.5 * (-logvar).exp()
    c = -0.5 * (logvar + LOG_2PI).sum(1) - (mu * mu * p).sum(1)
    right = torch.cat([-p, 2.0 * mu * p], 1).t().contiguous()
    rows = max(1, chunk // mu.shape[0])
    out = [torch.logsumexp(torch.addmm(c, torch.cat([x * x, x], 1), right), 1) for x in z.split(rows)]
    return torch.cat(out) - math.log(mu.shape[0])


# --- KeOps, where it is installed --------------------------------------------------------------------------------------


def keops() -> str:
    """ "" where KeOps can be used, else why not."""
    try:
        with redirect_stdout(sys.stderr):  # stdout is for the result
            import pykeops  # type: ignore[import-not-found]

        pykeops.set_verbose(False)
    except Exception as e:
        return f"pykeops: {type(e).__name__}: {str(e).splitlines()[0]}"
    return ""


def _lazy(z: Tensor, mu: Tensor, logvar: Tensor) -> tuple[Any, Any, Any]:
    from pykeops.torch import LazyTensor  # type: ignore[import-not-found]

    return LazyTensor(z[:, None, :]), LazyTensor(mu[None]), LazyTensor((0.5 * (-logvar).exp())[None])


def marginals_keops(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    from pykeops.torch import LazyTensor  # type: ignore[import-not-found]

    zi, mj, pj = _lazy(z, mu, logvar)
    c = -0.5 * (logvar + LOG_2PI)
    top = c.detach().amax(0)
    e = (LazyTensor((c - top)[None]) - (zi - mj) ** 2 * pj).exp()
    return e.sum(dim=1).log() + top - math.log(mu.shape[0])


def joint_keops(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    from pykeops.torch import LazyTensor  # type: ignore[import-not-found]

    zi, mj, pj = _lazy(z, mu, logvar)
    c = LazyTensor((-0.5 * (logvar + LOG_2PI)).sum(1)[None, :, None])
    return (c - ((zi - mj) ** 2 * pj).sum(-1)).logsumexp(dim=1)[:, 0] - math.log(mu.shape[0])


# --- sample_kl ---------------------------------------------------------------------------------------------------------


def sample_kl_eager(mu: Tensor, logvar: Tensor, r: Tensor, p_keep: Tensor, floor: Tensor, generator=None):
    """(z, kl) of `[K, B, D]`, hyper-parameters `[K, 1, 1]`, noise from torch's generator."""
    eps = torch.randn(mu.shape, generator=generator, device=mu.device)
    g = (torch.rand(mu.shape, generator=generator, device=mu.device) < p_keep) / p_keep
    var = g * logvar.exp() + floor
    z = mu + var.sqrt() * eps
    return z, 0.5 * (var + (mu.abs() - r).square() - 1.0 - var.log())


# --- menus: name -> settings to try ------------------------------------------------------------------------------------

CHUNKS = (2**15, 2**16, 2**17, 2**18, 2**20)


def marginals_eager(chunks: tuple[int, ...] = CHUNKS) -> dict[str, list[Callable[..., Tensor]]]:
    """Ways to write it, each with the settings to choose from."""
    menu: dict[str, list[Callable[..., Tensor]]] = {
        f"eager, {way}": [partial(marginals_chunked, way=way, chunk=c, dims=d) for c in chunks for d in (1, 10**6)]
        for way in ("direct", "scaled", "exp2", "gemm")
    }
    return menu | {"eager, logsumexp": [partial(marginals_logsumexp, chunk=c) for c in chunks]}


def both_eager(chunks: tuple[int, ...] = CHUNKS) -> dict[str, list[Callable[..., tuple[Tensor, ...]]]]:
    menu: dict[str, list[Callable[..., tuple[Tensor, ...]]]] = {
        f"eager, {name}": [partial(both_chunked, way="exp2", moments=moments, chunk=c) for c in chunks]
        for name, moments in (("own backward", False), ("own backward by moments", True))
    }
    return menu | {"eager, checkpoint": [partial(both_checkpoint, chunk=c) for c in chunks]}


def joint_eager(chunks: tuple[int, ...] = CHUNKS) -> dict[str, list[Callable[..., Tensor]]]:
    return {
        "eager, by dimension": [partial(joint_chunked, chunk=c) for c in chunks],
        "eager, broadcast": [partial(joint_broadcast, chunk=c) for c in chunks],
        "eager, gemm": [partial(joint_gemm, chunk=c) for c in chunks],
    }
