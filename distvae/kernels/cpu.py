"""The C++ back end for CPU tensors: `csrc/cpu.cpp`, compiled when the package is installed (pyproject.toml) and loaded
with ctypes. Functions and shapes are those of `reference`; float32 inside, on torch's number of threads.

If no compiler was found at installation, or the library does not load, `unavailable` says so and the reference runs.
By hand, in a checkout:  c++ -O3 -shared -fPIC -fopenmp ... (the flags are in pyproject.toml)."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, byref, c_char_p, c_double, c_int, c_int64, c_uint32, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distvae.kernels import reference

NAME = "cpu"
ABI = 2  # the layout of the structs below; csrc/cpu.cpp has the same number

FOLDER = Path(__file__).resolve().parent
_POINTER = c_void_p  # addresses as they are: ctypes' typed pointers cost a microsecond each


class SampleJob(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("k", "b", "d", "index_stride")),
        *((name, _POINTER) for name in ("mu", "logvar")),
        *((name, _POINTER) for name in ("seed", "step", "index")),
        *((name, _POINTER) for name in ("r", "p_keep", "floor")),
        ("mask", _POINTER),
        ("stream", c_uint32),
        ("sample", c_uint32),
        *((name, _POINTER) for name in ("first", "second", "gz", "gkl")),
    ]


class NoiseJob(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("k", "b", "samples", "dim", "index_stride", "p_stride")),
        *((name, _POINTER) for name in ("seed", "step", "index", "p", "out")),
        ("stream", c_uint32),
        ("kind", c_uint32),
    ]


NORMALS, UNIFORMS, BERNOULLI = range(3)  # NoiseJob.kind


class NllJob(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("k", "b", "s", "p", "x_stride")),
        *((name, _POINTER) for name in ("y", "x", "g", "out")),
    ]


class MixtureJob(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("k", "size")),
        *((name, _POINTER) for name in ("mu", "logvar", "r", "first", "second", "g")),
        *((name, _POINTER) for name in ("hermite_x", "hermite_w", "laguerre_x", "laguerre_w")),
        *((name, c_int64) for name in ("hermite_n", "laguerre_n")),
    ]


class DensityArgs(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("k", "n", "m", "d")),
        *((name, _POINTER) for name in ("z", "mu", "logvar")),
        *((name, c_double) for name in ("base", "own", "next")),
        *((name, c_int64) for name in ("offset", "joint")),
        *((name, _POINTER) for name in ("out", "lse", "g", "dz", "dmu", "dlogvar")),
    ]


JOBS = {
    "dv_sample_kl": SampleJob,
    "dv_noise": NoiseJob,
    "dv_nll": NllJob,
    "dv_mixture_kl": MixtureJob,
    "dv_density": DensityArgs,
}


@cache
def _library() -> tuple[Any, str | None]:
    """(library, None) or (None, why not)."""
    found = sorted(FOLDER.glob("_cpu*.so"))
    if not found:
        return None, "the C++ kernels were not built: install a C++ compiler, then distvae again (pip install -e .)"
    try:
        library = ctypes.CDLL(str(found[0]))
        if library.dv_abi() != ABI:
            return None, f"{found[0].name} is of another version of distvae: install distvae again (pip install -e .)"
    except (OSError, AttributeError) as e:
        return None, f"{found[0].name} cannot be loaded ({e}): install distvae again (pip install -e .)"
    library.dv_isa.restype = c_char_p
    for name, job in JOBS.items():
        getattr(library, name).argtypes = (POINTER(job), c_int)
    return library, None


def unavailable() -> str | None:
    """Why this back end cannot run, or None."""
    return _library()[1]


def describe() -> str:
    """The instruction set in use."""
    return f"C++ ({_library()[0].dv_isa().decode()})"


def fresh() -> bool:
    """Is the library newer than its sources (in a checkout, where they change)?"""
    built = max((p.stat().st_mtime for p in FOLDER.glob("_cpu*.so")), default=0.0)
    return all(p.stat().st_mtime <= built + 1 for p in (FOLDER / "csrc").glob("*") if p.suffix in (".h", ".cpp"))


def _run(name: str, job: Structure) -> None:
    if getattr(_library()[0], name)(byref(job), torch.get_num_threads()):
        raise MemoryError(f"distvae: no memory for {name.removeprefix('dv_')}")


def _at(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _float(x: Tensor) -> Tensor:
    return x.float().contiguous()


def _sample(mu: Tensor, logvar: Tensor, rest: tuple[Any, ...], gz: Tensor | None, gkl: Tensor | None):
    # spelled out: a small call costs more in Python than in C++
    seed, step, index, r, p_keep, floor, mask, stream, sample = rest
    k, b, d = mu.shape
    dtype = mu.dtype
    if dtype != torch.float32:
        mu, logvar = mu.float(), logvar.float()
        gz, gkl = (None if g is None else g.float() for g in (gz, gkl))
    seed, step, index = seed.contiguous(), step.contiguous(), index.contiguous()  # names keep copies alive
    r, p_keep, floor = r.contiguous(), p_keep.contiguous(), floor.contiguous()
    mask = None if mask is None else mask.contiguous()
    first, second = torch.empty_like(mu), torch.empty_like(mu)
    job = SampleJob(
        k, b, d, 0 if index.dim() == 1 else b, mu.data_ptr(), logvar.data_ptr(), seed.data_ptr(),
        step.data_ptr(), index.data_ptr(), r.data_ptr(), p_keep.data_ptr(), floor.data_ptr(), _at(mask), stream, sample,
        first.data_ptr(), second.data_ptr(), _at(gz), _at(gkl),
    )  # fmt: skip
    _run("dv_sample_kl", job)
    return (first, second) if dtype == torch.float32 else (first.to(dtype), second.to(dtype))


def sample_kl(mu: Tensor, logvar: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return _sample(mu, logvar, rest, None, None)


def sample_kl_backward(gz: Tensor, gkl: Tensor, mu: Tensor, logvar: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return _sample(mu, logvar, rest, gz, gkl)


def _drawn(kind: int, seed: Tensor, step: Tensor, index: Tensor, p: Tensor | None, stream: int, out: Tensor) -> Tensor:
    """Fills `out` `[K, B, samples, dim]`."""
    seed, step, index = seed.contiguous(), step.contiguous(), index.contiguous()  # names keep copies alive
    k, b, samples, dim = out.shape
    job = NoiseJob(
        k, b, samples, dim, 0 if index.dim() == 1 else b, b if p is not None and p.dim() == 3 else 0,
        seed.data_ptr(), step.data_ptr(), index.data_ptr(), _at(p), out.data_ptr(), stream, kind,
    )  # fmt: skip
    _run("dv_noise", job)
    return out


def noise(
    seed: Tensor, step: Tensor, index: Tensor, stream: int, samples: int, dim: int, normal: bool, dtype: torch.dtype
) -> Tensor:
    out = torch.empty((len(seed), index.shape[-1], samples, dim), dtype=torch.float32 if normal else torch.float64)
    _drawn(NORMALS if normal else UNIFORMS, seed, step, index, None, stream, out)
    return out if dtype == out.dtype else out.to(dtype)


def bernoulli(seed: Tensor, step: Tensor, index: Tensor, p: Tensor, stream: int) -> Tensor:
    p32 = p.float()
    out = torch.empty((len(seed), p.shape[-2], 1, p.shape[-1]), dtype=torch.float32)
    return _drawn(BERNOULLI, seed, step, index, p32, stream, out)[:, :, 0].to(p.dtype)


def _nll(g: Tensor | None, y: Tensor, x: Tensor, out: Tensor) -> Tensor:
    k, b, s, p = y.shape
    _run("dv_nll", NllJob(k, b, s, p, b if x.dim() == 3 else 0, y.data_ptr(), x.data_ptr(), _at(g), out.data_ptr()))
    return out


def bernoulli_nll(y: Tensor, x: Tensor) -> Tensor:
    y = y.float()
    return _nll(None, y, x, torch.empty(y.shape[:-1], dtype=torch.float32))


def bernoulli_nll_backward(g: Tensor, y: Tensor, x: Tensor) -> Tensor:
    wide = y.float()
    return _nll(g, wide, x, torch.empty_like(wide)).to(y.dtype)


@cache
def _nodes() -> list[np.ndarray]:
    return [np.ascontiguousarray(x, dtype=np.float64) for x in (*reference.HERMITE, *reference.LAGUERRE)]


def _mixture(mu: Tensor, logvar: Tensor, r: Tensor, g: Tensor | None) -> tuple[Tensor, Tensor]:
    m, lv, each = _float(mu), _float(logvar), _float(r)
    g = None if g is None else _float(g)
    first = torch.empty_like(m)
    second = first if g is None else torch.empty_like(m)
    nodes = _nodes()
    _run(
        "dv_mixture_kl",
        MixtureJob(
            mu.shape[0],
            mu[0].numel() if mu.shape[0] else 0,
            *map(_at, (m, lv, each, first, second, g)),
            *(x.ctypes.data for x in nodes),
            len(nodes[0]),
            len(nodes[2]),
        ),
    )
    return first.to(mu.dtype), second.to(mu.dtype)


def mixture_kl(mu: Tensor, logvar: Tensor, r: Tensor) -> Tensor:
    return _mixture(mu, logvar, r, None)[0]


def mixture_kl_backward(g: Tensor, mu: Tensor, logvar: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    return _mixture(mu, logvar, r, g)


def _forward(joint: bool, z: Tensor, mu: Tensor, logvar: Tensor, base: float, own: float, nxt: float, offset: int):
    (k, n, d), m = z.shape, mu.shape[1]
    if not k * n * m * d:
        return reference.density(z, mu, logvar, base, own, nxt, offset, joint)
    out = torch.empty((k, n) if joint else (k, n, d), dtype=torch.float32)
    lse = torch.empty(out.shape, dtype=torch.float64)
    tensors = [_float(x) for x in (z, mu, logvar)]
    pointers = [_at(x) for x in tensors]
    _run("dv_density", DensityArgs(k, n, m, d, *pointers, base, own, nxt, offset, joint, _at(out), _at(lse)))
    return out.to(z.dtype), lse


def _backward(joint: bool, g: Tensor, z: Tensor, mu: Tensor, logvar: Tensor, lse: Tensor, own, nxt, offset):
    (k, n, d), m = z.shape, mu.shape[1]
    if not k * n * m * d:
        return torch.zeros_like(z), torch.zeros_like(mu), torch.zeros_like(logvar)
    g32, *tensors = (_float(x) for x in (g, z, mu, logvar))
    pointers = [_at(x) for x in tensors]
    grads = [torch.empty_like(x) for x in tensors]
    weights = (0.0, own, nxt, offset, joint)
    _run("dv_density", DensityArgs(k, n, m, d, *pointers, *weights, None, _at(lse), _at(g32), *map(_at, grads)))
    dz, dmu, dlogvar = (x.to(z.dtype) for x in grads)
    return dz, dmu, dlogvar


def log_density(*args: Any) -> tuple[Tensor, Tensor]:
    return _forward(True, *args)


def log_density_backward(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _backward(True, *args)


def log_marginals(*args: Any) -> tuple[Tensor, Tensor]:
    return _forward(False, *args)


def log_marginals_backward(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _backward(False, *args)
