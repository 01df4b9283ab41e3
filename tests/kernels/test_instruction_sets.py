"""The C++ kernels once per instruction set that this machine has: the same numbers to rounding, and where multiply-adds
are fused the same bits of the noise."""

import pytest
import torch

from distvae.kernels import cpu

NAMES = (b"baseline", b"AVX2", b"AVX-512")
pytestmark = pytest.mark.skipif(bool(cpu.unavailable()), reason=str(cpu.unavailable()))


@pytest.fixture
def use():
    library, _ = cpu._library()

    def choose(i):
        if library.dv_use_isa(i) != i:
            pytest.skip(f"this machine has no {NAMES[i].decode()}")
        assert library.dv_isa() == NAMES[i]

    yield choose
    library.dv_use_isa(-1)


def everything():
    torch.manual_seed(3)
    mu, logvar, up, up2 = (torch.randn(2, 45, 11) for _ in range(4))
    z = mu + torch.randn_like(mu)
    k = (torch.tensor([3, 2**62]), torch.tensor([0, 7]), torch.arange(45), *torch.rand(3, 2).clamp_min(0.1))
    sampled = (*cpu.sample_kl(mu, logvar, *k, None, 0, 0), *cpu.sample_kl_backward(up, up2, mu, logvar, *k, None, 0, 0))
    r = torch.tensor([0.5, 4.0])
    out = [cpu.mixture_kl(mu, logvar, r), *cpu.mixture_kl_backward(up, mu, logvar, r)]
    y, x = 5 * torch.randn(2, 9, 5, 789), torch.rand(9, 789)
    out += [cpu.bernoulli_nll(y, x), cpu.bernoulli_nll_backward(up[:, :9, :5], y, x)]
    for name, g in (("log_density", up[..., 0]), ("log_marginals", up)):
        value, lse = getattr(cpu, name)(z, mu, logvar, 0.0, -0.5, 0.0, 0)
        out += [value, *getattr(cpu, f"{name}_backward")(g, z, mu, logvar, lse, -0.5, 0.0, 0)]
    return (*sampled, cpu.noise(*k[:3], 0, 3, 11, True, torch.float32)), out


def exact():
    seed, step, index = torch.tensor([3, 2**62]), torch.tensor([0, 7]), torch.arange(45)
    p = torch.rand(45, 11, generator=torch.Generator().manual_seed(0))
    return cpu.noise(seed, step, index, 1, 3, 11, False, torch.float64), cpu.bernoulli(seed, step, index, p, 4)


@pytest.mark.parametrize("i", [0, 1, 2], ids=[n.decode() for n in NAMES])
def test_every_instruction_set_gives_the_same_numbers(use, i):
    best = everything()
    use(i)
    for mine, theirs in zip(everything(), best, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert (a - b).norm() <= 3e-6 * b.norm()


@pytest.mark.parametrize("i", [0, 1, 2], ids=[n.decode() for n in NAMES])
def test_uniforms_and_bernoulli_draws_are_the_same_bits_on_every_instruction_set(use, i):
    best = exact()
    use(i)
    for mine, theirs in zip(exact(), best, strict=True):
        assert torch.equal(mine, theirs)


def test_fused_multiply_adds_give_the_same_noise_in_vectors_of_any_length(use):
    use(1)
    avx2, _ = everything()
    use(2)
    for a, b in zip(avx2, everything()[0], strict=True):
        assert torch.equal(a, b)
