"""The discretised logistic mixture against scipy's distribution function, in float64 and where float32 is hard."""

import math

import numpy as np
import pytest
import torch
from pixels import F, ask, built, every_byte, nll, randn, some_bytes
from scipy.special import logsumexp
from scipy.stats import logistic

from distvae.likelihoods import LogisticMixture
from distvae.likelihoods.logistic_mixture import expected_byte


def log_masses(y, components, floor=-7.0):
    """ln P of the 256 bytes of one pixel, as PixelCNN++ defines it: pixels and edges on [-1, 1]."""
    logits, mu, raw = y.reshape(3, components).numpy()
    s = np.exp(np.logaddexp(raw, floor))
    edges = np.arange(256)[:, None] / 127.5 - 1
    cut = edges + 1 / 255
    upper = np.where(np.arange(256)[:, None] == 255, 0.0, logistic.logcdf(cut, mu, s))
    below = np.where(np.arange(256)[:, None] == 0, -np.inf, logistic.logcdf(edges - 1 / 255, mu, s))
    with np.errstate(divide="ignore"):
        mass = upper + np.log(-np.expm1(below - upper))
    return logsumexp(logits - logsumexp(logits) + mass, axis=1)


@pytest.mark.parametrize("components", [1, 2, 5])
def test_it_is_the_mixture_of_scipys_distribution_functions(components):
    part = LogisticMixture(components=components)
    for seed in range(5):
        y = 2 * randn(part.width((1,)), seed=seed)
        got = -nll(part, *every_byte(y))[:, 0]
        np.testing.assert_allclose(got.numpy(), log_masses(y, components), rtol=1e-8)


@pytest.mark.parametrize("dtype", [F, torch.float32], ids=str)
@pytest.mark.parametrize("log_s", [-30.0, -7.0, -5.0, -2.0, 0.0, 8.0, 60.0], ids=lambda v: f"{v:g}")
def test_sharp_and_flat_ones_sum_to_one_wherever_they_are(log_s, dtype):
    """Means on a byte, between two, at the ends and beyond them."""
    part = LogisticMixture(components=1)
    for mu in (0.0, 0.3337, 1 / 255, -1.0, 1.0, -1.004, 0.999, 3.0, -50.0):
        y = torch.tensor([0.0, mu, log_s], dtype=dtype)
        likelihood = built(part, 1, dtype)
        log_p = -ask(likelihood, *every_byte(y))[:, 0].double()
        assert log_p.isfinite().all()
        assert float(log_p.exp().sum()) == pytest.approx(1.0, abs=1e-6), mu
        mean = float((log_p.exp() * torch.arange(256, dtype=F)).sum()) / 255
        assert float(likelihood.mean(y)[0]) == pytest.approx(mean, abs=1e-5), mu


@pytest.mark.parametrize(("dtype", "tol"), [(F, 1e-7), (torch.float32, 2e-4)], ids=str)
def test_the_expected_byte_is_the_sum_over_all_edges(dtype, tol):
    mu = torch.tensor(
        [-1e6, -300, -9, -0.5, 0, 0.3, 7.9, 8, 8.1, 100.49, 127.5, 239.2, 247, 255, 255.3, 264, 1e6], dtype=F
    )
    s = torch.logspace(-3, 9, 97, dtype=F)[:, None]
    edges = torch.arange(255, dtype=F) + 0.5
    wanted = ((mu[:, None] - edges) / s[..., None]).sigmoid().sum(-1)
    got = expected_byte(*torch.broadcast_tensors(mu.to(dtype), (1 / s).to(dtype)))
    torch.testing.assert_close(got.double(), wanted, atol=tol, rtol=1e-6)


def test_a_tiny_mass_keeps_its_logarithm_and_its_gradient():
    """A byte 255 away from a sharp logistic: ln P = -(254.5 / s) to rounding, where a difference of sigmoids is 0."""
    part = LogisticMixture(components=1)
    y = torch.tensor([0.0, -1.0, -5.0], dtype=torch.float32, requires_grad=True)
    x = torch.tensor([[254 / 255]], dtype=torch.float32)
    each = nll(part, y.expand(1, 1, 3), x)
    s = 127.5 * math.exp(float(np.logaddexp(-5.0, -7.0)))
    assert float(each.detach()) == pytest.approx(253.5 / s - math.log(-math.expm1(-1 / s)), rel=1e-5)
    (g,) = torch.autograd.grad(each.sum(), y)
    assert float(g[1]) == pytest.approx(-127.5 / s, rel=1e-4)  # one logistic has the pull of its slope, at any distance


def test_black_and_white_bins_are_open():
    part = LogisticMixture(components=1)
    y = torch.tensor([[0.0, -9.0, 0.0], [0.0, 9.0, 0.0]], dtype=F)[:, None]  # far beyond the ends
    x = torch.tensor([[0.0], [1.0]], dtype=F)
    assert (nll(part, y, x) < 1e-3).all()


def test_the_floor_is_soft_and_a_knob():
    width = {}
    for floor in (-7.0, -3.0):
        y = torch.tensor([0.0, 0.0, -40.0], dtype=F)
        p = nll(LogisticMixture(components=1, log_scale_min=floor), *every_byte(y))[:, 0].neg().exp()
        byte = torch.arange(256, dtype=F)
        width[floor] = float((p * (byte - 127.5).square()).sum().sqrt())
    assert width[-3.0] == pytest.approx(127.5 * math.exp(-3) * math.pi / math.sqrt(3), rel=0.02) and width[-7.0] < 1
    y = torch.tensor([0.0, 0.5, -9.0], dtype=F, requires_grad=True)  # below the floor the gradient still lives
    (g,) = torch.autograd.grad(nll(LogisticMixture(components=1), y.expand(1, 1, 3), some_bytes(1, 2)[:, 1:]).sum(), y)
    assert abs(float(g[2])) > 1e-3


def test_two_modes_are_learned():
    """A pixel that is 40 or 200, half and half: ln 2 nats and no more."""
    part = LogisticMixture(components=2)
    likelihood, x = built(part, 1), torch.tensor([[40.0], [200.0]], dtype=F) / 255
    y = (0.1 * randn(6)).requires_grad_()
    optimizer = torch.optim.Adam([y], lr=0.05)
    for _ in range(280):
        optimizer.zero_grad()
        loss = ask(likelihood, y.expand(2, 1, 6), x).mean()
        loss.backward()
        optimizer.step()
    assert math.log(2) <= float(loss.detach()) < math.log(2) + 0.1
    assert float(likelihood.mean(y.detach())[0]) == pytest.approx(120 / 255, abs=1e-3)
