"""The von Mises-Fisher posterior against mpmath's Bessel functions, scipy's quadrature, and its own exact moments."""

import math
from itertools import pairwise

import mpmath
import numpy as np
import pytest
import torch
from scipy.integrate import quad, simpson
from scipy.interpolate import PchipInterpolator
from scipy.optimize import brentq
from scipy.special import gammaln, ive
from scipy.stats import kstest

from distvae.batch import Batch, Noise
from distvae.posteriors import VonMisesFisher, polar
from distvae.posteriors.von_mises_fisher import VonMisesFisherQ

F = torch.float64
DS = [1, 2, 3, 5, 8, 16, 33, 64]
KAPPAS = [1e-2, 0.1, 0.7, 1.0, 3.0, 30.0, 300.0, 1e4]
KAPPA = torch.tensor(KAPPAS, dtype=F)


def noise(n, seed=0):
    return Noise(seed, 0, np.arange(n))


def vmf(direction, kappa, n=1, dtype=F):
    mu = torch.as_tensor(direction, dtype=F)
    mu = (mu / mu.norm()).to(dtype).expand(n, -1)
    return VonMisesFisherQ(mu, torch.full((n,), kappa, dtype=dtype))


def density(theta, kappa, d):
    """Of theta, normalised by scipy."""
    h = lambda t: math.sin(t) ** (d - 1) * math.exp(-2 * kappa * math.sin(t / 2) ** 2)  # noqa: E731
    top = float(polar.mode(torch.tensor([kappa], dtype=F), d))
    width = 1 / math.sqrt(1 + kappa)
    cuts = sorted({0.0, math.pi, *(min(math.pi, max(0.0, top + k * width)) for k in (-8, -2, 0, 2, 8))})
    total = sum(quad(h, a, b, epsabs=0, epsrel=1e-12)[0] for a, b in pairwise(cuts))
    below = [(a, b) for a, b in ((a, min(b, theta)) for a, b in pairwise(cuts)) if b > a]
    return h(theta) / total, sum(quad(h, a, b, epsabs=0, epsrel=1e-12)[0] for a, b in below) / total


# --- the constant -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", DS)
def test_the_constant_and_the_mean_are_bessel_functions(d):
    v = (d - 1) / 2
    with mpmath.workdps(40):
        bessel = [(mpmath.besseli(v, k), mpmath.besseli(v + 1, k), mpmath.mpf(k)) for k in KAPPAS]
        log_i = torch.tensor([float(mpmath.log(a) - k) for a, _, k in bessel], dtype=F)
        less = torch.tensor([float(1 - b / a) for a, b, _ in bessel], dtype=F)
    got = v * (KAPPA / 2).log() - math.lgamma(v + 0.5) - 0.5 * math.log(math.pi) + polar.log_mass(KAPPA, d)
    torch.testing.assert_close(got, log_i, rtol=1e-13, atol=2e-13)
    torch.testing.assert_close(polar.shortfall(KAPPA, d), less, rtol=1e-12, atol=0)


def test_the_constant_is_scipys_too():
    for d in DS:
        v = (d - 1) / 2
        wanted = np.log(ive(v, KAPPAS)) - v * np.log(np.array(KAPPAS) / 2) + gammaln(v + 0.5) + 0.5 * math.log(math.pi)
        ok = np.isfinite(wanted)  # scipy itself underflows at small kappa and large d
        assert ok.sum() >= 6
        np.testing.assert_allclose(polar.log_mass(KAPPA, d).numpy()[ok], wanted[ok], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("d", [1, 2, 7, 64])
def test_derivatives_of_the_constant(d):
    kappa = torch.tensor([0.01, 0.5, 3.0, 200.0], dtype=F, requires_grad=True)
    assert torch.autograd.gradcheck(lambda k: polar.log_mass(k, d), kappa)
    assert torch.autograd.gradcheck(lambda k: polar.shortfall(k, d), kappa)
    slopes = torch.vmap(torch.func.grad(lambda k: polar.log_mass(k, d)))(kappa.detach())
    torch.testing.assert_close(slopes, -polar.shortfall(kappa.detach(), d))


@pytest.mark.parametrize("d", [1, 2, 64, 4096])
def test_finite_at_every_concentration_in_float32(d):
    kappa = torch.cat([torch.zeros(1), torch.logspace(-8, 12, 41)]).requires_grad_()
    for f in (polar.log_mass, polar.shortfall):
        value = f(kappa, d)
        assert value.isfinite().all() and (value.diff() < 0).sum() >= 20 and (value.diff() <= 1e-14).all()
        assert torch.autograd.grad(value.sum(), kappa)[0].isfinite().all()
    assert float(polar.shortfall(torch.zeros(1), d)) == pytest.approx(1, abs=1e-14)  # no direction at kappa = 0
    large = polar.shortfall(torch.tensor([1e12], dtype=F), d)
    assert float(large) == pytest.approx(0.5e-12 * d, rel=1e-6)  # 1 - A -> d / (2 kappa)


# --- the density ------------------------------------------------------------------------------------------------------


def test_on_the_2_sphere_the_density_is_elementary():
    z = torch.nn.functional.normalize(torch.randn(1, 9, 3, dtype=F, generator=torch.Generator().manual_seed(0)), dim=-1)
    for kappa in (0.01, 1.0, 20.0, 300.0):
        q = vmf([1.0, 2.0, -1.0], kappa)
        log_c = math.log(kappa / (2 * math.pi * -math.expm1(-2 * kappa)))  # kappa / (4 pi sinh kappa) e^kappa
        torch.testing.assert_close(
            q.log_prob(z), log_c + kappa * ((z * q.direction).sum(-1) - 1), rtol=1e-11, atol=1e-11
        )


@pytest.mark.parametrize("d", [1, 2, 5, 64])
@pytest.mark.parametrize("kappa", [0.01, 1.0, 50.0, 1e4])
def test_the_density_integrates_to_1(d, kappa):
    q = vmf([1.0] + [0.0] * d, kappa)
    theta = torch.linspace(0, min(math.pi, 40 / math.sqrt(kappa)), 2001, dtype=F)
    z = torch.zeros(1, len(theta), d + 1, dtype=F)
    z[0, :, 0], z[0, :, 1] = theta.cos(), theta.sin()
    ring = (d - 1) * theta.sin().clamp_min(1e-300).log() + polar.log_area(d - 1)  # |S^{d-1}| sin^{d-1}
    assert simpson((q.log_prob(z)[0] + ring).exp(), x=theta) == pytest.approx(1, abs=1e-6)


def test_log_area():
    assert [math.exp(polar.log_area(d)) for d in (0, 1, 2, 3)] == pytest.approx(
        [2, 2 * math.pi, 4 * math.pi, 2 * math.pi**2]
    )


@pytest.mark.parametrize("d", [1, 2, 16, 64])
def test_float32_keeps_the_density_and_its_gradients(d):
    for kappa in KAPPAS:
        q = vmf(np.arange(1.0, d + 2), kappa, 8)
        z = q.rsample(noise(8), 4).float()
        single = VonMisesFisherQ(q.direction.float().requires_grad_(), q.kappa.float().requires_grad_())
        log_q = single.log_prob(z)
        wanted = q.log_prob(z.double())
        assert log_q.dtype == torch.float32
        torch.testing.assert_close(log_q.double(), wanted, rtol=1e-5, atol=2e-4)
        assert all(g.isfinite().all() for g in torch.autograd.grad(log_q.sum(), single))


# --- samples ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 3, 16, 64])
@pytest.mark.parametrize("kappa", [0.01, 1.0, 30.0, 1e4])
def test_samples_have_the_exact_law(d, kappa):
    n = 3000
    mu = np.arange(1.0, d + 2) / np.linalg.norm(np.arange(1.0, d + 2))
    q = vmf(mu, kappa, n)
    z = q.rsample(noise(n, seed=d), 2).reshape(-1, d + 1)
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(2 * n, dtype=F), rtol=0, atol=1e-14)
    w = z @ torch.from_numpy(mu)
    theta = torch.atan2((z - w[:, None] * torch.from_numpy(mu)).norm(dim=-1), w)
    grid = np.linspace(*np.quantile(theta, [0, 1]), 40)  # the marginal's CDF by scipy, splined
    exact = PchipInterpolator(grid, [density(t, kappa, d)[1] for t in grid])
    assert kstest(theta.numpy(), exact).pvalue > 1e-3
    mean, se = z.mean(0), z.std(0) / math.sqrt(len(z))
    assert ((mean - q.mu[0]).abs() < 4.5 * se + 1e-12).all()
    v = torch.nn.functional.normalize(z - w[:, None] * torch.from_numpy(mu), dim=-1)  # uniform on S^{d-1}, orthogonal
    spread = torch.eye(d + 1, dtype=F) - torch.from_numpy(np.outer(mu, mu))
    torch.testing.assert_close(v.T @ v / len(v), spread / d, rtol=0, atol=5 / math.sqrt(len(v)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_are_on_the_sphere_and_theirs_alone(dtype):
    for d in (1, 2, 64):
        for kappa in KAPPAS:
            q = vmf(np.ones(d + 1), kappa, 6, dtype)
            z = q.rsample(noise(6), 3)
            assert z.dtype == dtype and z.shape == (6, 3, d + 1)
            torch.testing.assert_close(z.norm(dim=-1), torch.ones(6, 3, dtype=dtype))
            some = VonMisesFisherQ(*(t[2:5] for t in q)).rsample(Noise(0, 0, np.arange(2, 5)), 2)
            assert torch.equal(some, z[2:5, :2])  # by address: neither batch nor number of samples matters


def test_wood_accepts_often_enough():
    u = torch.from_numpy(np.random.default_rng(0).random((1, 3 * 20_000)))
    rates = {
        (d, k): float(polar.wood(torch.tensor([k], dtype=F), d, u)[1].double().mean())
        for d in (1, 2, 4, 16, 64)
        for k in (0.0, 1.0, 10.0, 1e3, 1e6)
    }
    assert min(rates.values()) > 0.65 and rates[1, 0.0] == 1.0
    assert 0.35**polar.PROPOSALS < 2e-11


def test_with_no_proposal_accepted_the_first_stands():
    kappa, k = torch.full((4, 1), 100.0, dtype=F), polar.PROPOSALS
    u = torch.from_numpy(np.random.default_rng(0).random((4, 1, k, 3)))
    u[..., 1] = 0.25 + 0.1 * u[..., 1]
    u[..., 2] = 1 - 2.0**-33
    theta, accepted = polar.wood(kappa, 3, u.flatten(-2))
    assert not accepted.any()
    assert torch.equal(polar.draw(kappa, 3, u.flatten(-2)), theta[..., 0]) and theta.isfinite().all()


def test_extreme_uniforms_give_finite_angles():
    edge = [2.0**-33, 0.5 - 2.0**-33, 0.5 + 2.0**-33, 1 - 2.0**-33]
    u = torch.tensor([[a, b, c] for a in edge for b in edge for c in edge], dtype=F)
    for d in (1, 2, 64):
        for kappa in (0.0, 1e-2, 1.0, 1e4, 1e10):
            k = torch.full((len(u),), kappa, dtype=F)
            theta, _ = polar.wood(k, d, u)
            speed = polar.velocity(theta, k[:, None], d)
            assert theta.isfinite().all() and (theta >= 0).all() and (theta <= math.pi).all()
            assert speed.isfinite().all() and (speed <= 1e-12).all()


# --- gradients of samples ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("d", "kappa"), [(1, 0.3), (1, 40.0), (2, 0.01), (2, 5.0), (8, 2.0), (64, 1.0), (64, 1e3)])
def test_the_velocity_is_that_of_the_quantile(d, kappa):
    top = float(polar.mode(torch.tensor([kappa], dtype=F), d))
    width = 1 / math.sqrt(kappa + d)
    for theta in np.clip(top + width * np.array([-2.0, -0.5, 0.1, 1.0, 2.5]), 1e-3, math.pi - 1e-3):
        u, step = density(theta, kappa, d)[1], 1e-3 * kappa
        near = max(0.0, theta - 0.1 * width), min(math.pi, theta + 0.1 * width)
        ends = [
            brentq(lambda t, k=k, u=u: density(t, k, d)[1] - u, *near, xtol=1e-14) for k in (kappa - step, kappa + step)
        ]
        got = polar.velocity(torch.tensor([[theta]], dtype=F), torch.tensor([[kappa]], dtype=F), d)
        assert float(got) == pytest.approx((ends[1] - ends[0]) / (2 * step), rel=2e-5, abs=1e-9)


def moments(a, mu, kappa, d):
    """E[a.z] + E[(a.z)^2], exact and differentiable."""
    mean = 1 - polar.shortfall(kappa, d)
    second = 1 - d * mean / kappa  # E[w^2] = 1 - d A / kappa
    along = (a * mu).sum()
    return along * mean + along.square() * second + (a.square().sum() - along.square()) * (1 - second) / d


@pytest.mark.parametrize(("d", "kappa"), [(1, 1.0), (1, 50.0), (2, 1.0), (2, 100.0), (5, 10.0), (64, 3.0), (64, 1e3)])
def test_the_gradient_of_an_expectation(d, kappa):
    """Of E[a.z + (a.z)^2] in kappa and in mu: per-sample gradients, whose mean is the exact one within its error."""
    n = 6000
    rng = np.random.default_rng(d)
    mu, a = (torch.from_numpy(rng.normal(size=d + 1)) for _ in range(2))
    a = a / a.norm()
    k = torch.full((n,), kappa, dtype=F, requires_grad=True)
    h = mu.expand(n, -1).clone().requires_grad_()
    q = VonMisesFisherQ(torch.nn.functional.normalize(h, dim=-1), k)
    az = (q.rsample(noise(n), 1)[:, 0] * a).sum(-1)
    got = torch.autograd.grad((az + az.square()).sum(), (k, h))
    kappa0, mu0 = torch.tensor([kappa], dtype=F, requires_grad=True), mu.clone().requires_grad_()
    value = moments(a, torch.nn.functional.normalize(mu0, dim=0), kappa0, d)
    for per_sample, exact in zip(got, torch.autograd.grad(value.sum(), (kappa0, mu0)), strict=True):
        per_sample = per_sample.reshape(n, -1)
        se = per_sample.std(0) / math.sqrt(n)
        assert ((per_sample.mean(0) - exact).abs() < 4.5 * se + 1e-12).all()
        assert float(exact.norm()) > 8 * float(se.norm())  # so a missing term would show


def test_the_gradient_in_mu_is_a_rotation():
    q = VonMisesFisherQ(torch.tensor([[0.0, 0.6, 0.8]], dtype=F, requires_grad=True), torch.tensor([3.0], dtype=F))
    z = q.rsample(noise(1), 1)[0, 0]
    jacobian = torch.stack([torch.autograd.grad(c, q.direction, retain_graph=True)[0][0] for c in z])
    eta = torch.tensor([1.0, 0.0, 0.0], dtype=F)  # tangent at mu
    z = z.detach()
    wanted = (z @ q.direction[0].detach()) * eta - (z @ eta) * q.direction[0].detach()
    torch.testing.assert_close(jacobian @ eta, wanted)
    torch.testing.assert_close(wanted @ z, torch.zeros((), dtype=F), atol=1e-15, rtol=0)


# --- the head ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_head(dtype):
    part = VonMisesFisher(offset=0.25)
    assert (part.width(4), part.code_dim(4)) == (6, 5)
    head = part.build(4).to(dtype)
    h = torch.randn(7, 6, dtype=dtype, generator=torch.Generator().manual_seed(0)) * 10
    h[0, 1:] = 0.0
    h[1] = -200.0
    h.requires_grad_()
    q = head(h, Batch(x=h, noise=noise(7), total=7))
    torch.testing.assert_close(q.direction.norm(dim=-1), torch.ones(7, dtype=dtype))
    torch.testing.assert_close(q.direction[0], torch.eye(5, dtype=dtype)[0])
    torch.testing.assert_close(q.kappa, 0.25 + torch.nn.functional.softplus(h[:, 0]))
    (q.rsample(noise(7), 2).sum() + q.mu.sum()).backward()
    assert h.grad is not None and h.grad.isfinite().all()
    assert q.double().direction.dtype == F


def test_the_default_concentration_starts_at_1():
    head = VonMisesFisher().build(2).to(F)
    h = torch.full((1, 4), -50.0, dtype=F)
    assert float(head(h, Batch(x=h, noise=noise(1), total=1)).kappa) == pytest.approx(1)
