"""MMD against loops, against its closed form between Gaussians, and unbiased."""

import math

import numpy as np
import pytest
import torch
from subjects import digits
from torch.autograd import gradcheck

from distvae.metrics import mmd as module
from distvae.metrics.mmd import SCALES, Mmd, mmd
from distvae.priors import Binarized

F = torch.float64


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=F, generator=torch.Generator().manual_seed(seed))


def by_loops(x, y, kernel, h):
    c = 2 * x.shape[1] * h**2

    def k(a, b):
        square = float(((a - b) ** 2).sum())
        return math.exp(-square / c) if kernel == "rbf" else sum(s * c / (s * c + square) for s in SCALES)

    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
@pytest.mark.parametrize("h", [0.3, 1.0, 2.5])
def test_it_is_the_u_statistic(kernel, h):
    x, y = 1.3 * randn(7, 3), randn(5, 3, seed=1) + 0.4
    wanted = by_loops(x.numpy(), y.numpy(), kernel, h)
    assert float(mmd(x, y, kernel=kernel, bandwidth=h)) == pytest.approx(wanted, rel=1e-12)
    assert float(mmd(x, y, kernel=kernel, bandwidth=torch.tensor(h, dtype=F))) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_it_is_0_in_expectation_between_equal_laws_and_only_there(kernel):
    draws = [mmd(randn(12, 2, seed=2 * i), randn(12, 2, seed=2 * i + 1), kernel=kernel) for i in range(200)]
    values = torch.stack(draws).numpy()
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(200) and (values < 0).mean() > 0.3
    apart = torch.stack(
        [mmd(randn(12, 2, seed=2 * i), randn(12, 2, seed=2 * i + 1) + 1, kernel=kernel) for i in range(50)]
    )
    assert apart.mean() > 20 * values.std() / np.sqrt(200)


def test_it_is_the_closed_form_between_gaussians():
    """E exp(-|x - y|^2 / C) = (1 + 2 v / C)^(-D/2) exp(-|m|^2 / (C + 2 v)) for x - y ~ N(m, v I)."""
    d, h, n = 3, 0.8, 60
    c = 2 * d * h**2
    m = torch.tensor([0.7, -0.5, 0.2], dtype=F)

    def k(m, v):
        return (1 + 2 * v / c) ** (-d / 2) * math.exp(-float(m @ m) / (c + 2 * v))

    wanted = k(0 * m, 2 * 1.0) + k(0 * m, 2 * 0.25) - 2 * k(m, 1.25)
    draws = [
        mmd(randn(n, d, seed=2 * i), m + 0.5 * randn(n, d, seed=2 * i + 1), kernel="rbf", bandwidth=h)
        for i in range(300)
    ]
    values = torch.stack(draws).numpy()
    assert values.mean() == pytest.approx(wanted, abs=4 * values.std() / np.sqrt(300))


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_blocks_of_rows_change_nothing(kernel, monkeypatch):
    x, y = randn(11, 4), randn(9, 4, seed=1)
    whole = mmd(x, y, kernel=kernel)
    monkeypatch.setattr(module, "BLOCK", 40)
    torch.testing.assert_close(mmd(x, y, kernel=kernel), whole, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_gradients(kernel):
    x, y, h = randn(5, 3).requires_grad_(), randn(4, 3, seed=1).requires_grad_(), torch.tensor(0.9, dtype=F)
    assert gradcheck(lambda x, y, h: mmd(x, y, kernel=kernel, bandwidth=h), (x, y, h.requires_grad_()))
    twice = torch.ones(6, 3, requires_grad=True)  # equal rows: |x - y| has no gradient, its square has
    (g,) = torch.autograd.grad(mmd(twice, twice.detach(), kernel=kernel), twice)
    assert torch.equal(g, torch.zeros_like(g))


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_far_from_the_origin_float32_still_measures_the_distance(kernel):
    x, y = randn(30, 4), randn(30, 4, seed=1) + 0.5
    far = mmd((x + 512).float(), (y + 512).float(), kernel=kernel)
    assert float(far) == pytest.approx(float(mmd(x, y, kernel=kernel)), abs=2e-4)  # expanded squares would be 0.1 off


def test_one_row_has_no_mmd():
    x = randn(1, 2).requires_grad_()
    value = mmd(x, randn(1, 2))
    assert value == 0 and torch.equal(torch.autograd.grad(value, x)[0], torch.zeros(1, 2, dtype=F))


# --- as a metric --------------------------------------------------------------------------------------------------------


def like_the_prior(r):
    """A model that ignores x: q(z|x) = N(0, 1) for all."""
    subject = digits(prior=Binarized(r=r), latent_dim=2)
    with torch.no_grad():
        for p in subject.vae.encoder.parameters():
            p.zero_()
    return subject


def test_the_aggregate_is_compared_to_the_normalised_prior():
    metric = Mmd()
    assert [c.name for c in metric.columns(like_the_prior(0.0).trial)] == ["mmd_squared_imq"]
    same, apart = (metric.measure(like_the_prior(r), "test")["mmd_squared_imq"] for r in (0.0, 2.0))
    assert abs(same) < 0.02 and apart > 0.2  # at r = 2 the prior has no mass where q(z) has it all
    got = Mmd(kernel="rbf", bandwidth=0.5).measure(like_the_prior(2.0), "test")  # k = exp(-|x - y|^2), d = 2
    p, between = 0.5 + 0.5 * math.exp(-(4.0**2) / 5.0), math.exp(-(2.0**2) / 5.0)  # of each dimension, times 5^-1/2
    assert got["mmd_squared_rbf"] == pytest.approx((1.0 + p**2 - 2.0 * between**2) / 5.0, abs=0.03)
