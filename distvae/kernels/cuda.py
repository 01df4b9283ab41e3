"""The kernels in CUDA C++ (csrc/*.cu): the functions of reference.py for CUDA tensors, float32 inside, compiled at
first use (nvrtc.py) and launched on the current stream (driver.py). Nothing waits for the device and nothing but
`torch.empty` allocates, so all of it can be captured into a CUDA graph after one call outside. Shapes alone decide how
work is split, so the same inputs give the same bits on every run and every GPU of one kind."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distvae.kernels import driver, nvrtc
from distvae.kernels.reference import HERMITE, LAGUERRE

NAME = "cuda"
SOURCES = ("sample_kl.cu", "noise.cu", "bernoulli_nll.cu", "mixture_kl.cu", "log_marginals.cu", "log_density.cu")
LOG2E = math.log2(math.e)


@cache
def unavailable() -> str | None:
    """Why these kernels cannot run here, or None."""
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    try:
        nvrtc.library()
        driver.library()
    except (nvrtc.CompileError, OSError) as e:
        return str(e)
    return None


def describe() -> str:
    return "CUDA C++ for {}, NVRTC {}.{}".format(driver.arch(torch.cuda.current_device()), *nvrtc.version())


# --- sources and launches ------------------------------------------------------------------------------------------


@cache
def sources() -> dict[str, str]:
    """Every .cu and .h by name, the quadrature's nodes among them."""
    folder = Path(__file__).with_name("csrc")
    files = (*SOURCES, "device.h", "fours.h", "math.h", "kl.h", "nll.h", "sums.h")
    return {name: (folder / name).read_text() for name in files} | {"nodes.h": nodes()}


def nodes() -> str:
    """The quadratures of reference.py as float32 tables. The Laguerre weights hold their functions of s already, all
    of which fall like e^-s: the nodes below 1e-16 of a sum of order 1 are left out."""
    (x, w), (s, v) = HERMITE, LAGUERRE
    e = np.exp(-s)
    weights = {"log": v * np.log1p(e), "tanh": v * 2.0 * e / (1.0 + e), "sech2": v * 4.0 * e / (1.0 + e) ** 2}
    count = int((weights["sech2"] > 1e-16).sum())
    tables = {"hermite_x": x, "hermite_w": w, "laguerre_x": s[:count]}
    tables |= {f"laguerre_{name}": values[:count] for name, values in weights.items()}
    lines = [f"#define HERMITE {len(x)}", f"#define LAGUERRE {count}"]
    for name, values in tables.items():
        numbers = ", ".join(f"{value:.9e}f" for value in values.tolist())
        lines.append(f"static __constant__ float {name}[{len(values)}] = {{{numbers}}};")
    return "\n".join(lines) + "\n"


def _cubin(source: str, arch: str) -> bytes:
    return nvrtc.cubin(source, sources(), arch)


def _launch(x: Tensor, source: str, kernel: str, blocks: int, threads: int, *args: Tensor | float | None) -> None:
    driver.launch(x, _cubin, source, kernel, blocks, threads, args)


def _empty(x: Tensor, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=x.device)


def _over(a: int, b: int) -> int:
    return -(-a // b)


def _fours(*tensors: Tensor | None) -> int:
    """1 if the rows of these may be taken four elements at an access, else 0."""
    there = [x for x in tensors if x is not None]
    return int(all(x.shape[-1] % 4 == 0 and x.data_ptr() % (4 * x.element_size()) == 0 for x in there))


def _dtype(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


# --- sample_kl -----------------------------------------------------------------------------------------------------

_SAMPLE_THREADS = 128


def _sample(kernel: str, gz: Tensor | None, gkl: Tensor | None, mu: Tensor, logvar: Tensor, rest: tuple):
    seed, step, index, r, p_keep, floor, mask, stream, sample = rest
    k, b, d = mu.shape
    first, second = torch.empty_like(mu), torch.empty_like(mu)
    if not mu.numel():
        return first, second
    vector = _fours(gz, gkl, mu, logvar, first, second)
    index, mask = index.contiguous(), None if mask is None else mask.contiguous()
    blocks = _over(b * _over(d, 4), _SAMPLE_THREADS)
    _launch(
        mu, "sample_kl.cu", f"{kernel}_{_dtype(mu)}", k * blocks, _SAMPLE_THREADS,
        gz, gkl, mu, logvar, first, second, seed, step, index, r, p_keep, floor, mask,
        b, d, b if index.dim() == 2 else 0, blocks, vector, stream, sample,
    )  # fmt: skip
    return first, second


def sample_kl(mu: Tensor, logvar: Tensor, *rest) -> tuple[Tensor, Tensor]:
    return _sample("sample_kl", None, None, mu, logvar, rest)


def sample_kl_backward(gz: Tensor, gkl: Tensor, mu: Tensor, logvar: Tensor, *rest) -> tuple[Tensor, Tensor]:
    return _sample("sample_kl_backward", gz, gkl, mu, logvar, rest)


# --- noise ---------------------------------------------------------------------------------------------------------


def _drawn(
    kernel: str, seed: Tensor, step: Tensor, index: Tensor, p: Tensor | None, stream: int, out: Tensor
) -> Tensor:
    """Fills `out` `[K, B, samples, D]`."""
    k, b, samples, d = out.shape
    if out.numel():
        seed, step, index = seed.contiguous(), step.contiguous(), index.contiguous()
        strides = b if index.dim() == 2 else 0, b if p is not None and p.dim() == 3 else 0
        blocks = _over(b * samples * _over(d, 4), _SAMPLE_THREADS)
        _launch(
            out, "noise.cu", f"{kernel}_{_dtype(out)}", k * blocks, _SAMPLE_THREADS,
            seed, step, index, p, out, b, samples, d, *strides, blocks, _fours(p, out), stream,
        )  # fmt: skip
    return out


def noise(
    seed: Tensor, step: Tensor, index: Tensor, stream: int, samples: int, dim: int, normal: bool, dtype: torch.dtype
) -> Tensor:
    shape = len(seed), index.shape[-1], samples, dim
    if normal:
        return _drawn("normals", seed, step, index, None, stream, _empty(index, *shape, dtype=dtype))
    out = _empty(index, *shape, dtype=torch.float64)
    return _drawn("uniforms", seed, step, index, None, stream, out).to(dtype)


def bernoulli(seed: Tensor, step: Tensor, index: Tensor, p: Tensor, stream: int) -> Tensor:
    out = _empty(p, len(seed), p.shape[-2], 1, p.shape[-1], dtype=p.dtype)
    return _drawn("bernoulli", seed, step, index, p, stream, out)[:, :, 0]


# --- bernoulli_nll -------------------------------------------------------------------------------------------------


def _nll(kernel: str, y: Tensor, x: Tensor, g: Tensor | None, out: Tensor, blocks: int) -> Tensor:
    k, b, s, p = y.shape
    vector = _fours(y, x, None if g is None else out)
    stride = b if x.dim() == 3 else 0
    args = y, x, g, out, b, s, p, stride, k * b * s, vector
    _launch(y, "bernoulli_nll.cu", f"{kernel}_{_dtype(y)}", blocks, _FINISH_THREADS, *args)
    return out


def bernoulli_nll(y: Tensor, x: Tensor) -> Tensor:
    out = _empty(y, *y.shape[:-1])
    return _nll("nll", y, x, None, out, out.numel())


def bernoulli_nll_backward(g: Tensor, y: Tensor, x: Tensor) -> Tensor:
    blocks = _over(g.numel() * _over(y.shape[-1], 4), _FINISH_THREADS)
    return _nll("nll_backward", y, x, g, torch.empty_like(y), blocks)


# --- gaussian_mixture_kl -------------------------------------------------------------------------------------------

_MIXTURE_THREADS = 128


def _mixture(
    kernel: str, g: Tensor | None, mu: Tensor, logvar: Tensor, r: Tensor, first: Tensor, second: Tensor | None
):
    if mu.numel():
        size = mu[0].numel()
        blocks = _over(size, _MIXTURE_THREADS)
        args = g, mu, logvar, r, first, second, size, blocks
        _launch(mu, "mixture_kl.cu", f"{kernel}_{_dtype(mu)}", mu.shape[0] * blocks, _MIXTURE_THREADS, *args)


def mixture_kl(mu: Tensor, logvar: Tensor, r: Tensor) -> Tensor:
    out = torch.empty_like(mu)
    _mixture("mixture_kl", None, mu, logvar, r, out, None)
    return out


def mixture_kl_backward(g: Tensor, mu: Tensor, logvar: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    dmu, dlogvar = torch.empty_like(mu), torch.empty_like(mu)
    _mixture("mixture_kl_backward", g, mu, logvar, r, dmu, dlogvar)
    return dmu, dlogvar


# --- log_density, log_marginals: what both need ----------------------------------------------------------------------

_FINISH_THREADS = 256
_BLOCKS = 2048  # wanted in a grid, so that the last ones to end do not idle a large GPU
_TILE = 64


def _split(blocks: int, length: int) -> tuple[int, int]:
    """(splits, share): how many blocks share an axis of `length`, and each one's part, a multiple of a tile."""
    tiles = _over(length, _TILE)
    share = _over(tiles, max(1, min(tiles, _over(_BLOCKS, blocks)))) * _TILE
    return _over(length, share), share


def _sum(source: str, partial: Tensor, out: Tensor, splits: int) -> None:
    blocks = _over(out.numel(), _FINISH_THREADS)
    _launch(out, source, "sum_partials", blocks, _FINISH_THREADS, partial, out, out.numel(), splits)


def _float(*tensors: Tensor) -> list[Tensor]:
    return [x.to(torch.float32) for x in tensors]


def _nothing(z: Tensor, *shape: int) -> tuple[Tensor, Tensor]:
    """No components: ln 0."""
    return tuple(torch.empty(shape, dtype=t, device=z.device).fill_(-math.inf) for t in (z.dtype, torch.float64))  # type: ignore[return-value]


def _no_gradients(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(x).zero_() for x in tensors)


# --- log_marginals -------------------------------------------------------------------------------------------------

_MARGINALS = "log_marginals.cu"
_MARGINALS_THREADS = 128
_ROWS, _COLUMNS = 8, 4  # of a thread
_LANES = 32


def _lanes(d: int, length: int, each: int) -> tuple[int, int]:
    """(dimensions of a block, blocks along dimensions and `length`): little waste, then wide."""
    options = [2**i for i in range(5, -1, -1)]
    blocks = [_over(d, lanes) * _over(length, _MARGINALS_THREADS // lanes * each) for lanes in options]
    best = next(i for i, b in enumerate(blocks) if b <= 1.125 * min(blocks))
    return options[best], blocks[best]


def _prepare_marginals(logvar: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(a, c `[K, M, D]`, bound float64 `[K, D]`)."""
    k, m, d = logvar.shape
    a, c, bound = torch.empty_like(logvar), torch.empty_like(logvar), _empty(logvar, k, d, dtype=torch.float64)
    splits, tiles, rows = min(64, _over(m, 256)), _over(d, _LANES), 64
    partial = _empty(logvar, k, splits, d, dtype=torch.float64)
    _launch(logvar, _MARGINALS, "marginals_bound", k * splits * tiles, 256, logvar, partial, m, d, splits, tiles)
    args = logvar, partial, bound, a, c, m, d, splits, tiles, rows
    _launch(logvar, _MARGINALS, "marginals_prepare", k * _over(m, rows) * tiles, 256, *args)
    return a, c, bound


def _by_rows(kernel: str, z: Tensor, mu: Tensor, a: Tensor, c: Tensor, own: float, nxt: float, offset: int) -> Tensor:
    """Partial sums `[S, K, N, D]`."""
    (k, n, d), m = z.shape, mu.shape[1]
    lanes, blocks = _lanes(d, n, _ROWS)
    splits, share = _split(k * blocks, m)
    partial = _empty(z, splits, k, n, d, dtype=torch.float64)
    args = z, mu, a, c, partial, k, n, m, d, lanes, splits, share, offset, own * LOG2E, nxt * LOG2E
    _launch(z, _MARGINALS, kernel, k * blocks * splits, _MARGINALS_THREADS, *args)
    return partial


def log_marginals(
    z: Tensor, mu: Tensor, logvar: Tensor, base: float, own: float, nxt: float, offset: int
) -> tuple[Tensor, Tensor]:
    (k, n, d), m = z.shape, mu.shape[1]
    if not m or not z.numel():
        return _nothing(z, k, n, d)
    dtype = z.dtype
    z, mu, logvar = _float(z, mu, logvar)
    own, nxt = float(own), float(nxt)
    a, c, bound = _prepare_marginals(logvar)
    partial = _by_rows("marginals_sums", z, mu, a, c, own, nxt, offset)
    out, lse = torch.empty_like(z), _empty(z, k, n, d, dtype=torch.float64)
    _launch(
        z, _MARGINALS, "marginals_finish", _over(z.numel(), _FINISH_THREADS), _FINISH_THREADS,
        z, mu, logvar, partial, bound, lse, out, None, None, k, n, m, d, partial.shape[0], offset,
        float(base), own, nxt,
    )  # fmt: skip
    return out.to(dtype), lse


def log_marginals_backward(
    g: Tensor, z: Tensor, mu: Tensor, logvar: Tensor, lse: Tensor, own: float, nxt: float, offset: int
) -> tuple[Tensor, Tensor, Tensor]:
    (k, n, d), m = z.shape, mu.shape[1]
    if not m or not z.numel():
        return _no_gradients(z, mu, logvar)  # type: ignore[return-value]
    dtype = z.dtype
    g, z, mu, logvar = _float(g, z, mu, logvar)
    own, nxt = float(own), float(nxt)
    a, c, bound = _prepare_marginals(logvar)
    partial = _by_rows("marginals_rows", z, mu, a, c, own, nxt, offset)
    dz, scale = torch.empty_like(z), torch.empty_like(z)
    _launch(
        z, _MARGINALS, "marginals_rows_finish", _over(z.numel(), _FINISH_THREADS), _FINISH_THREADS,
        z, mu, logvar, partial, bound, lse, dz, g, scale, k, n, m, d, partial.shape[0], offset, 0.0, own, nxt,
    )  # fmt: skip
    lanes, blocks = _lanes(d, m, _COLUMNS)
    splits, share = _split(k * blocks, n)
    partial, sums = _empty(z, splits, 2, k, m, d, dtype=torch.float64), _empty(z, 2, k, m, d)
    args = z, g, scale, lse, mu, logvar, a, c, partial, k, n, m, d, lanes, splits, share, offset, own, nxt
    _launch(z, _MARGINALS, "marginals_columns", k * blocks * splits, _MARGINALS_THREADS, *args)
    _sum(_MARGINALS, partial, sums, splits)
    return dz.to(dtype), sums[0].to(dtype), sums[1].to(dtype)


# --- log_density ---------------------------------------------------------------------------------------------------

_DENSITY = "log_density.cu"
_DENSITY_THREADS = 256
_CHUNK = 32


def _prepare_density(mu: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(a `[K, M, D]`, precision float64 `[K, M, D]`, constant float64 `[K, M]`)."""
    k, m, d = mu.shape
    a = torch.empty_like(mu)
    precision, constant = _empty(mu, k, m, d, dtype=torch.float64), _empty(mu, k, m, dtype=torch.float64)
    args = mu, logvar, a, precision, constant, k * m, d
    _launch(mu, _DENSITY, "density_prepare", _over(k * m, _FINISH_THREADS // 8), _FINISH_THREADS, *args)
    return a, precision, constant


def log_density(
    z: Tensor, mu: Tensor, logvar: Tensor, base: float, own: float, nxt: float, offset: int
) -> tuple[Tensor, Tensor]:
    (k, n, d), m = z.shape, mu.shape[1]
    if not m or not k * n:
        return _nothing(z, k, n)
    dtype = z.dtype
    z, mu, logvar = _float(z, mu, logvar)
    a, precision, constant = _prepare_density(mu, logvar)
    blocks = k * _over(n, _TILE)
    splits, share = _split(blocks, m)
    partial = _empty(z, splits, k, n, 3, dtype=torch.float64)
    _launch(
        z, _DENSITY, "density_sums", blocks * splits, _DENSITY_THREADS,
        z, mu, a, constant, precision, None, None, partial, k, n, m, d, splits, share, offset,
        own * LOG2E, nxt * LOG2E,
    )  # fmt: skip
    out, lse = _empty(z, k, n), _empty(z, k, n, dtype=torch.float64)
    _launch(
        z, _DENSITY, "density_finish", _over(k * n, _FINISH_THREADS), _FINISH_THREADS,
        z, mu, constant, precision, partial, lse, out, k, n, m, d, splits, offset,
        float(base), float(own), float(nxt),
    )  # fmt: skip
    return out.to(dtype), lse


def log_density_backward(
    g: Tensor, z: Tensor, mu: Tensor, logvar: Tensor, lse: Tensor, own: float, nxt: float, offset: int
) -> tuple[Tensor, Tensor, Tensor]:
    (k, n, d), m = z.shape, mu.shape[1]
    if not m or not z.numel():
        return _no_gradients(z, mu, logvar)  # type: ignore[return-value]
    dtype = z.dtype
    g, z, mu, logvar = _float(g, z, mu, logvar)
    a, precision, constant = _prepare_density(mu, logvar)
    gradients = []
    for kernel, length, other in (("density_rows", n, m), ("density_columns", m, n)):
        outputs = 1 if kernel == "density_rows" else 2
        blocks = k * _over(length, _TILE) * _over(d, _CHUNK)
        splits, share = _split(blocks, other)
        partial = _empty(z, splits, outputs, k, length, d, dtype=torch.float64)
        _launch(
            z, _DENSITY, kernel, blocks * splits, _DENSITY_THREADS,
            z, mu, a, constant, precision, lse, g, partial, k, n, m, d, splits, share, offset,
            own * LOG2E, nxt * LOG2E,
        )  # fmt: skip
        sums = _empty(z, outputs, k, length, d)
        _sum(_DENSITY, partial, sums, splits)
        gradients += list(sums)
    return gradients[0].to(dtype), gradients[1].to(dtype), gradients[2].to(dtype)
