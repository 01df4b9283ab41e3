"""The binarized prior (S1) against scipy: the surrogate, its sign, and the honest rate to the normalised mixture."""

import math
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import kstest, norm

from distvae.batch import Noise
from distvae.kernels.philox import Stream
from distvae.kernels.reference import log_cosh
from distvae.posteriors.gaussian import NormalQ
from distvae.priors import Binarized, Normal

F = torch.float64


def prior(r):
    return Binarized(r=r).build(1).to(F)


def q(mu, sigma):
    mu, sigma = torch.as_tensor(mu, dtype=F), torch.as_tensor(sigma, dtype=F)
    return NormalQ(mu, sigma.square())


def log_mixture(z, r):
    return np.logaddexp(norm.logpdf(z, -r), norm.logpdf(z, r)) - math.log(2)


# --- the surrogate, Eqs. 3-5 ------------------------------------------------------------------------------------------


def test_r_0_is_the_normal_prior_bit_for_bit():
    value = [torch.randn(64, 8, generator=torch.Generator().manual_seed(s)) for s in (0, 1)]
    out = []
    for p in (Normal(), Binarized(r=0.0)):
        mu, var = value[0].clone().requires_grad_(), value[1].exp().requires_grad_()
        divergence = p.build(8).float().divergence(NormalQ(mu, var))
        out.append((divergence, *torch.autograd.grad(divergence.sum(), (mu, var))))
    for a, b in zip(*out, strict=True):
        assert torch.equal(a, b)


def test_kl_b_is_the_kl_to_the_nearest_mode():
    from torch.distributions import Normal as Reference
    from torch.distributions import kl_divergence

    mu, sigma = torch.linspace(-4, 4, 33, dtype=F), torch.logspace(-3, 1, 33, dtype=F)
    for r in (0.0, 0.3, 1.0, 2.0):
        mode = r * torch.where(mu >= 0, 1.0, -1.0).to(F)  # Eq. 5
        wanted = kl_divergence(Reference(mu, sigma), Reference(mode, torch.ones_like(mu)))
        torch.testing.assert_close(prior(r).divergence(q(mu, sigma)), wanted)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(mu=st.floats(-20, 20), sigma=st.floats(1e-3, 10), r=st.floats(0, 20))
def test_kl_b_is_never_negative(mu, sigma, r):
    assert float(prior(r).divergence(q(mu, sigma))) >= -1e-12


@pytest.mark.parametrize("r", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("sign", [-1, 1])
def test_kl_b_is_zero_at_a_mode_with_unit_sigma_and_nowhere_near(r, sign):
    assert float(prior(r).divergence(q(sign * r, 1.0))) == 0.0
    for mu, sigma in ((sign * (r + 0.1), 1.0), (sign * (r - 0.1) if r else 0.1, 1.0), (sign * r, 0.9), (sign * r, 1.1)):
        assert float(prior(r).divergence(q(mu, sigma))) > 4e-3


def test_the_sign_of_ln_sigma_a_vanishing_variance_costs_without_bound():
    sigma = torch.logspace(0, -12, 13, dtype=F)
    kl_b = prior(1.0).divergence(q(torch.ones(13), sigma))
    assert (kl_b.diff() > 0).all() and kl_b[-1] > 27
    torch.testing.assert_close(kl_b[5:].diff(), torch.full((7,), math.log(10), dtype=F), rtol=1e-8, atol=0)
    printed = kl_b + 2 * sigma.log()  # Eq. 4 as printed: + ln sigma, no bound below
    assert printed[-1] < -27


def test_at_mu_0_the_gradient_is_that_of_the_positive_mode():
    for r in (0.0, 0.5, 2.0):
        mu = torch.zeros(1, dtype=F, requires_grad=True)
        prior(r).divergence(NormalQ(mu, torch.ones(1, dtype=F))).sum().backward()
        assert float(mu.grad) == -r  # d/dmu (mu - r)^2 / 2 at 0, s = +1 (Eq. 5): away from 0


# --- the rate: KL to the mixture --------------------------------------------------------------------------------------


def kl_by_quadrature(mu, sigma, r):
    """KL(N(mu, sigma^2) || mixture) by scipy's adaptive rule, split at q's centre and the mixture's kink."""

    def f(t):
        z = mu + sigma * t
        log_q = -0.5 * t * t - math.log(sigma) - 0.5 * math.log(2 * math.pi)
        near, far = -0.5 * (abs(z) - r) ** 2, -0.5 * (abs(z) + r) ** 2
        log_p = near + math.log1p(math.exp(far - near)) - math.log(2) - 0.5 * math.log(2 * math.pi)
        return math.exp(log_q) * sigma * (log_q - log_p)

    cuts = sorted({-12.0, 0.0, 12.0, min(12.0, max(-12.0, -mu / sigma))})
    return sum(quad(f, a, b, epsabs=1e-11, epsrel=1e-11, limit=200)[0] for a, b in pairwise(cuts))


RS = [0.0, 0.01, 0.3, 1.0, 2.0, 5.0, 20.0, 100.0]
SIGMAS = [0.01, 0.1, 0.49, 0.5, 0.99, 1.01, 2.0, 5.0]  # either side of r sigma = 1, where the rule changes
MUS = [0.0, 0.1, -1.0, 3.0, -20.0]


@pytest.mark.parametrize("r", RS)
def test_the_rate_is_the_kl_to_the_mixture(r):
    grid = np.array(list(product(MUS, SIGMAS)))
    got = prior(r).rate(q(grid[:, 0], grid[:, 1])).numpy()
    wanted = np.array([kl_by_quadrature(mu, sigma, r) for mu, sigma in grid])
    np.testing.assert_allclose(got, wanted, atol=1e-6, rtol=1e-9)


def test_the_rate_at_r_0_is_the_closed_form():
    grid = np.array(list(product(MUS, SIGMAS)))
    p, posterior = prior(0.0), q(grid[:, 0], grid[:, 1])
    torch.testing.assert_close(p.rate(posterior), Normal().build(1).rate(posterior), rtol=1e-12, atol=1e-12)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(mu=st.floats(-25, 25), sigma=st.floats(0.01, 8), r=st.floats(0, 20))
def test_the_rate_lies_between_0_and_the_surrogate_plus_ln_2(mu, sigma, r):
    p, posterior = prior(r), q(mu, sigma)
    rate = float(p.rate(posterior))
    assert -1e-6 <= rate <= float(p.divergence(posterior)) + math.log(2) + 1e-6


@settings(max_examples=100, deadline=None, derandomize=True)
@given(mu=st.floats(-10, 10), sigma=st.floats(0.01, 5), r=st.floats(0, 20))
def test_the_rate_is_even_in_mu(mu, sigma, r):
    rate = prior(r).rate(q([mu, -mu], [sigma, sigma]))
    assert float(rate[0]) == pytest.approx(float(rate[1]), abs=1e-9, rel=1e-12)


def test_the_rate_is_finite_and_close_in_float32():
    grid = np.array(list(product(MUS, SIGMAS)))
    mu, var = torch.from_numpy(grid[:, 0]).float().requires_grad_(), torch.from_numpy(grid[:, 1] ** 2).float()
    for r in (0.3, 1.0, 5.0):
        rate = prior(r).float().rate(NormalQ(mu, var))
        torch.testing.assert_close(rate.double(), prior(r).rate(q(*grid.T)), atol=2e-3, rtol=1e-4)
        assert torch.autograd.grad(rate.sum(), mu)[0].isfinite().all()


def test_the_rate_does_not_jump_where_the_rule_changes():
    sigma = 0.5 * torch.tensor([1 - 1e-9, 1 + 1e-9], dtype=F)
    for mu in (0.0, 0.7, -3.0):
        rate = prior(2.0).rate(q([mu, mu], sigma))
        assert abs(float(rate[0] - rate[1])) < 1e-7


# --- the density ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("r", [0.0, 0.5, 2.0, 20.0, 100.0])
def test_log_prob_is_the_mixtures_and_integrates_to_one(r):
    z = np.linspace(-r - 10, r + 10, 501)
    np.testing.assert_allclose(
        prior(r).log_prob(torch.from_numpy(z)[:, None]).numpy(), log_mixture(z, r), rtol=1e-11, atol=1e-10
    )

    def density(t):
        return float(prior(r).log_prob(torch.tensor([t], dtype=F)).exp())

    total = sum(quad(density, a, b)[0] for a, b in ((-r - 12, -r), (-r, 0), (0, r), (r, r + 12)))
    assert total == pytest.approx(1.0, abs=1e-7)


def test_log_cosh_does_not_overflow_and_is_smooth_at_0():
    t = torch.tensor([0.0, 1e-3, 1.0, 30.0, 1e4, -1e4], dtype=F)
    wanted = [0.0, 0.5e-6, math.log(math.cosh(1)), 30 - math.log(2), 1e4 - math.log(2), 1e4 - math.log(2)]
    np.testing.assert_allclose(log_cosh(t).numpy(), wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("r", [0.0, 0.5, 2.0])
def test_samples_are_of_the_mixture(r):
    n = 20_000
    z = prior(r).sample(Noise(1, 0, np.arange(n), Stream.SAMPLE), torch.zeros((), dtype=F)).numpy().ravel()
    assert abs(z.mean()) < 4 * math.sqrt((1 + r * r) / n)
    assert z.var() == pytest.approx(1 + r * r, abs=4 * math.sqrt((2 + 4 * r * r) / n))
    assert kstest(z, lambda t: 0.5 * (norm.cdf(t, -r) + norm.cdf(t, r))).pvalue > 1e-3
