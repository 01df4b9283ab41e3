"""Memory O((N + M) D): forward and backward never hold one float32 for every pair."""

import ctypes
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from backends import select
from cases import randn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from distvae.kernels import log_density, log_marginals, reference

# --- the native back ends: the peak of the process, or of the device --------------------------------------------------

N, D = 4000, 2
PAIRS = 4 * N * N  # bytes: 64 MB
NATIVE = pytest.mark.parametrize("name", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])


@contextmanager
def less_than(limit: int, device: str):
    """The most memory held inside, on top of what was held before, is below this many bytes."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.max_memory_allocated()
        yield
        grown = torch.cuda.max_memory_allocated() - before
    else:
        try:
            ctypes.CDLL(None).malloc_trim(0)  # freed memory that malloc keeps would hide what takes its place
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
        except (OSError, AttributeError):
            pytest.skip("the peak of resident memory cannot be reset here")
        before = high_water()
        yield
        grown = high_water() - before
    assert grown < limit, f"{grown / 1e6:.0f} MB"


def high_water() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


@NATIVE
@pytest.mark.parametrize("density", [log_density, log_marginals])
def test_a_density_holds_no_pairs(name, density, monkeypatch):
    device = select(name, monkeypatch)
    leaves = [randn(N, D, seed=s).to(device).requires_grad_() for s in (1, 2, 3)]
    density(*(x[:5] for x in leaves)).sum().backward()  # what a first call loads is not counted
    with less_than(PAIRS // 2, device):
        density(*leaves).sum().backward()


def test_the_measure_would_see_one_float_a_pair():
    with pytest.raises(AssertionError, match=r"6\d MB"), less_than(PAIRS // 2, "cpu"):
        torch.ones(N, N)


# --- the reference: every tensor it makes -----------------------------------------------------------------------------


class Largest(TorchDispatchMode):
    """Notes the most elements that a tensor made inside has in memory."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor):
                self.elements = max(self.elements, x.untyped_storage().nbytes() // x.element_size())
        return out


def test_the_references_tensors_are_no_larger_than_a_chunk(monkeypatch):
    monkeypatch.setattr(reference, "CHUNK", 2**14)
    n, d = 700, 3
    z, mu, logvar = (randn(1, n, d, seed=s) for s in (1, 2, 3))
    r, weights = torch.ones(1), (-0.1, -1.0, 0.5, 0)
    with Largest() as largest:
        for name in ("log_density", "log_marginals"):
            out, lse = getattr(reference, name)(z, mu, logvar, *weights)
            getattr(reference, f"{name}_backward")(torch.ones_like(out), z, mu, logvar, lse, *weights[1:])
        reference.mixture_kl(mu, logvar, r)
        reference.mixture_kl_backward(z, mu, logvar, r)
    assert 2**13 < largest.elements <= 2**14
