"""The Frechet distance against closed forms and scipy's root, and at its limits."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from distvae.metrics.fid import fid, frechet, moments

F = torch.float64


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=F, generator=torch.Generator().manual_seed(seed))


def covariance(d, seed, rank=None):
    a = randn(d, rank or d, seed=seed)
    return a @ a.T


@pytest.mark.parametrize("seed", range(5))
def test_two_dimensions_in_closed_form(seed):
    """tr M^(1/2) = (tr M + 2 det(M)^(1/2))^(1/2) for M of 2 x 2 with eigenvalues >= 0."""
    m, w = randn(2, seed=seed), randn(2, seed=seed + 50)
    c, c_w = covariance(2, seed), 3.0 * covariance(2, seed + 50)
    root = ((c @ c_w).trace() + 2 * (c.det() * c_w.det()).sqrt()).sqrt()
    wanted = float(((m - w) ** 2).sum() + c.trace() + c_w.trace() - 2 * root)
    assert frechet(m, c, w, c_w) == pytest.approx(wanted, rel=1e-10)
    assert frechet(w, c_w, m, c) == pytest.approx(wanted, rel=1e-10)


def test_many_dimensions_against_scipys_root():
    m, w, c, c_w = randn(30), randn(30, seed=1), covariance(30, 2), covariance(30, 3)
    root = sqrtm((c @ c_w).numpy())
    wanted = float(((m - w) ** 2).sum() + c.trace() + c_w.trace()) - 2 * np.trace(root).real
    assert frechet(m, c, w, c_w) == pytest.approx(wanted, rel=1e-8)


def test_covariances_that_commute_and_singular_ones():
    zero, a = torch.zeros(3, dtype=F), torch.tensor([4.0, 1.0, 0.0], dtype=F)
    b = torch.tensor([1.0, 0.0, 9.0], dtype=F)
    assert frechet(zero, a.diag(), zero, b.diag()) == pytest.approx(1 + 1 + 9, abs=1e-12)  # sum (sqrt a - sqrt b)^2
    assert frechet(zero + 2, 0 * a.diag(), zero, 0 * b.diag()) == pytest.approx(12, abs=1e-12)  # two points


@pytest.mark.parametrize("n, d", [(500, 8), (20, 64), (300, 64)])
def test_of_a_set_with_itself_it_is_0(n, d):
    x = 10 * randn(n, d).relu()  # more features than images; features that are mostly 0
    x[:, ::3] = 0.0
    assert fid(x, x) < 1e-6 and fid(x, x.flip(0)) < 1e-6


def test_samples_of_two_gaussians_come_near_the_closed_form():
    n, d = 200_000, 4
    x, y = 2.0 * randn(n, d), 1.0 + 0.5 * randn(n, d, seed=1)
    assert fid(x, y) == pytest.approx(d * (1.0 + 1.5**2), rel=0.01)


def test_it_grows_with_the_noise_and_only_feels_what_a_rotation_leaves():
    x, noise = randn(400, 6) @ covariance(6, 1), randn(400, 6, seed=2)
    values = [fid(x + s * noise, x) for s in (0.0, 0.1, 0.3, 1.0, 3.0)]
    assert values[0] < 1e-6 and all(np.diff(values) > 0)
    turn, _ = torch.linalg.qr(randn(6, 6, seed=3))
    assert fid((x + noise) @ turn + 5, x @ turn + 5) == pytest.approx(fid(x + noise, x), rel=1e-8)


def test_moments_have_divisor_n_minus_1():
    x = randn(7, 3).float()
    mean, cov = moments(x)
    assert mean.numpy() == pytest.approx(x.double().numpy().mean(0))
    assert cov.numpy() == pytest.approx(np.cov(x.double().numpy().T), abs=1e-14)
    with pytest.raises(ValueError, match="expected"):
        fid(x[:1], x)
