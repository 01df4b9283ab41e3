"""Memory O((N + M) D): forward and backward never hold one float32 for every pair."""

from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from cases import randn

from distvae.kernels import gaussian_mixture_kl, log_density, log_marginals, reference

N, D = 3300, 2
PAIRS = 4 * N * N  # bytes: 44 MB, more than malloc ever keeps in its heap, so that it shows at once


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
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
        except OSError:
            pytest.skip("the peak of resident memory cannot be reset here")
        before = high_water()
        yield
        grown = high_water() - before
    assert grown < limit, f"{grown / 1e6:.0f} MB"


def high_water() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(reference, "CHUNK", 2**18)  # the reference's chunks are its own, of constant size: 2 MB here


@pytest.mark.parametrize("density", [log_density, log_marginals])
def test_a_density_holds_no_pairs(back_end, small_chunks, density):
    leaves = [randn(N, D, seed=s).to(back_end).requires_grad_() for s in (1, 2, 3)]
    density(*(x[:5] for x in leaves)).sum().backward()  # libraries and pools that come with the first call
    with less_than(PAIRS, back_end):
        density(*leaves).sum().backward()


def test_a_quadrature_holds_no_nodes(back_end, small_chunks):
    size = 2**20
    mu, logvar = (randn(size // 4, 4, seed=s).to(back_end).requires_grad_() for s in (1, 2))
    gaussian_mixture_kl(mu[:5], logvar[:5], 0.5).sum().backward()
    with less_than(40 * 4 * size, back_end):
        gaussian_mixture_kl(mu, logvar, 0.5)


def test_the_measure_sees_one_float_a_pair(back_end):
    with pytest.raises(AssertionError, match=r"\d+ MB"), less_than(PAIRS, back_end):
        torch.ones(N, N + 10, device=back_end)
