"""The uniform prior on the sphere: the KL of a von Mises-Fisher against mpmath, its gradient, its limits, its samples."""

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy.stats import kstest

from distvae.batch import Noise
from distvae.posteriors import polar
from distvae.posteriors.von_mises_fisher import VonMisesFisherQ
from distvae.priors import UniformSphere

F = torch.float64
DS = [1, 2, 3, 8, 33, 64]
KAPPAS = [1e-2, 0.1, 1.0, 10.0, 100.0, 1e4]
Z = torch.empty(0)  # the KL is in closed form


def q(kappa, d, dtype=F):
    kappa = torch.as_tensor(kappa, dtype=dtype)
    return VonMisesFisherQ(torch.eye(d + 1, dtype=dtype)[:1].expand(len(kappa), -1), kappa)


def kl(kappa, d):
    """kappa A + log C + log|S^d| by mpmath, Davidson et al. 2018."""
    v, k = mpmath.mpf(d - 1) / 2, mpmath.mpf(kappa)
    i = mpmath.besseli(v, k)
    log_c = v * mpmath.log(k) - (v + 1) * mpmath.log(2 * mpmath.pi) - mpmath.log(i)
    log_area = mpmath.log(2) + (v + 1) * mpmath.log(mpmath.pi) - mpmath.loggamma(v + 1)
    return k * mpmath.besseli(v + 1, k) / i + log_c + log_area


@pytest.mark.parametrize("d", DS)
def test_the_kl_and_its_gradient(d):
    p, kappa = UniformSphere().build(d), torch.tensor(KAPPAS, dtype=F, requires_grad=True)
    with mpmath.workdps(40):
        value = torch.tensor([[float(kl(k, d))] for k in KAPPAS], dtype=F)
        slope = torch.tensor([float(mpmath.diff(lambda k: kl(k, d), k)) for k in KAPPAS], dtype=F)
    got = p.divergence(q(KAPPAS, d)._replace(kappa=kappa), Z)
    torch.testing.assert_close(got, value, rtol=1e-11, atol=2e-13)
    torch.testing.assert_close(torch.autograd.grad(got.sum(), kappa)[0], slope, rtol=1e-10, atol=1e-18)
    assert torch.equal(p.rate(q(KAPPAS, d), Z), got)


@pytest.mark.parametrize("d", [1, 2, 16, 64])
def test_gradcheck(d):
    kappa = torch.tensor([0.02, 1.0, 7.0, 300.0], dtype=F, requires_grad=True)
    p = UniformSphere().build(d)
    assert torch.autograd.gradcheck(lambda k: p.divergence(q([1.0] * 4, d)._replace(kappa=k), Z), kappa)


@pytest.mark.parametrize("d", DS)
def test_float32_is_finite_rises_and_is_close(d):
    p, kappa = UniformSphere().build(d).float(), torch.logspace(-2, 4, 200).requires_grad_()
    value = p.divergence(q([1.0] * 200, d, torch.float32)._replace(kappa=kappa), Z)[:, 0]
    grad = torch.autograd.grad(value.sum(), kappa)[0]
    assert value.dtype == torch.float32 and value.isfinite().all() and grad.isfinite().all()
    assert (value > 0).all() and (value.diff() > 0).all() and (grad > 0).all()
    torch.testing.assert_close(value.double(), p.divergence(q(kappa.detach().double(), d), Z)[:, 0], rtol=1e-6, atol=0)


def test_without_concentration_the_kl_is_0():
    for d in DS:
        assert abs(float(UniformSphere().build(d).divergence(q([0.0], d), Z))) < 1e-13


@pytest.mark.parametrize(("d", "kappa"), [(1, 2.0), (2, 10.0), (16, 30.0), (64, 1e3)])
def test_the_kl_is_the_mean_of_log_q_minus_log_p(d, kappa):
    p, posterior = UniformSphere().build(d), q([kappa] * 2000, d)
    z = posterior.rsample(Noise(0, 0, np.arange(2000)), 1)
    gap = posterior.log_prob(z) - p.log_prob(z)
    assert abs(float(gap.mean() - p.rate(posterior, z)[0])) < 4 * float(gap.std()) / math.sqrt(2000)


@pytest.mark.parametrize("d", [1, 2, 16])
def test_samples_are_uniform(d):
    n = 4000
    z = UniformSphere().build(d).sample(Noise(1, 0, np.arange(n)), torch.empty(3, 7, dtype=F))
    assert z.shape == (n, d + 1)
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(n, dtype=F))
    theta = np.linspace(0, math.pi, 4001)
    cdf = np.append(0, np.cumsum(np.sin((theta[1:] + theta[:-1]) / 2) ** (d - 1)))
    for column in z.T:
        assert kstest(np.arccos(column.numpy()), lambda t: np.interp(t, theta, cdf / cdf[-1])).pvalue > 1e-3
    area = math.exp(polar.log_area(d))
    torch.testing.assert_close(UniformSphere().build(d).log_prob(z).exp(), torch.full((n,), 1 / area, dtype=F))
