"""The decomposition of the rate on Gaussian mixtures whose information and correlation are known: in closed form, or
by integration with scipy."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import dblquad, quad
from scipy.stats import norm
from torch.distributions import Normal, kl_divergence

from distvae.kernels import mpd
from distvae.metrics.latent import active_units, conditional_entropy, decompose, log_posterior, standard_normal, terms

F = torch.float64


def drawn(mu, logvar, seed=0):
    noise = torch.randn(mu.shape, generator=torch.Generator().manual_seed(seed), dtype=mu.dtype)
    return mu + (0.5 * logvar).exp() * noise


def posteriors(n, d, seed=0, dtype=F):
    g = torch.Generator().manual_seed(seed)
    mu = torch.randn(n, d, generator=g, dtype=F)
    logvar = -2.0 * torch.rand(n, d, generator=g, dtype=F)
    return mu.to(dtype), logvar.to(dtype)


def in_sample(estimate, exact, sigmas=4.0):
    """The exact value is within the estimate's own standard errors, and these are worth something."""
    assert abs(estimate.value - exact) < sigmas * estimate.se
    assert estimate.se < 0.05


# --- known answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 50, 300])
def test_components_far_apart_have_the_information_of_their_number(n):
    mu = 100.0 * torch.arange(n, dtype=F)[:, None] * torch.ones(3, dtype=F)
    logvar = torch.zeros_like(mu)
    got = decompose(drawn(mu, logvar), mu, logvar)
    assert got.mutual_information.value == pytest.approx(math.log(n), abs=1e-6)
    if n > 1:
        assert got.mutual_information.se < 1e-6


def test_equal_posteriors_have_none_and_are_the_prior_where_they_equal_it():
    mu, logvar = torch.zeros(200, 4, dtype=F), torch.zeros(200, 4, dtype=F)
    got = decompose(drawn(mu, logvar), mu, logvar, leave_one_out=True)
    for part in ("rate", "mutual_information", "mutual_information_loo", "aggregate_kl", "total_correlation"):
        assert getattr(got, part).value == pytest.approx(0.0, abs=1e-12), part
    assert got.dimensionwise_kl.value == pytest.approx(0.0, abs=1e-12)
    assert (got.active_units, got.mpd) == (0, pytest.approx(0.0, abs=1e-12))


@pytest.mark.parametrize("apart, sigma", [(0.5, 1.0), (1.0, 0.7), (1.2, 0.6)])
def test_two_component_mixture_by_quadrature(apart, sigma):
    """MI = h(z) - h(z|x); DWKL = KL(q || p) in one dimension. Half of the examples at each mode."""
    n = 3000
    mu = torch.tensor([-apart, apart], dtype=F).repeat(n // 2)[:, None]
    logvar = torch.full_like(mu, 2.0 * math.log(sigma))

    def q(t):
        return 0.5 * (norm.pdf(t, -apart, sigma) + norm.pdf(t, apart, sigma))

    entropy = quad(lambda t: -q(t) * math.log(q(t)), -8, 8)[0]
    cross = quad(lambda t: -q(t) * norm.logpdf(t), -8, 8)[0]
    got = decompose(drawn(mu, logvar), mu, logvar, rows=1000)
    in_sample(got.mutual_information, entropy - 0.5 * math.log(2.0 * math.pi * math.e * sigma**2))
    in_sample(got.aggregate_kl, cross - entropy)
    in_sample(got.rate, float(kl_divergence(Normal(mu, (0.5 * logvar).exp()), Normal(0.0, 1.0)).mean()))
    assert got.total_correlation.value == pytest.approx(0.0, abs=1e-12)  # one dimension


def test_total_correlation_of_means_on_a_line():
    """Five components on the diagonal of the plane, against a double integral."""
    at, sigma = np.linspace(-1.5, 1.5, 5), 0.5
    mu = torch.tensor(at, dtype=F).repeat(600)[:, None].expand(-1, 2).contiguous()
    logvar = torch.full_like(mu, 2.0 * math.log(sigma))

    def pdf(t):
        return np.exp(-0.5 * ((t - at) / sigma) ** 2) / (sigma * math.sqrt(2.0 * math.pi))

    def point(y, x):
        joint = pdf(x) @ pdf(y) / 5.0
        return joint * math.log(joint / (pdf(x).mean() * pdf(y).mean()))

    exact = dblquad(point, -4, 4, -4, 4, epsabs=1e-3, epsrel=1e-3)[0]
    got = decompose(drawn(mu, logvar), mu, logvar)
    in_sample(got.total_correlation, exact)
    assert exact > 0.4


def test_total_correlation_of_a_factorised_aggregate_is_zero():
    """Every combination of three modes a dimension, in three dimensions: q(z) is a product."""
    grid = torch.cartesian_prod(*[torch.tensor([-2.0, 0.0, 2.0], dtype=F)] * 3).repeat(100, 1)
    logvar = torch.full_like(grid, -1.0)
    got = decompose(drawn(grid, logvar), grid, logvar)
    assert got.total_correlation.value == pytest.approx(0.0, abs=1e-9)  # and for each z
    assert got.mutual_information.value > 2.0


def test_the_two_informations_bracket_the_populations():
    """x ~ N(0, 1), z|x ~ N(x, s^2): I = 1/2 ln(1 + 1/s^2). Averaged over many small splits, with an example's own
    component the estimate is below, without it above."""
    s, low, high = 0.5, [], []
    for seed in range(400):
        mu = torch.randn(10, 1, generator=torch.Generator().manual_seed(5000 + seed), dtype=F)
        logvar = torch.full_like(mu, 2.0 * math.log(s))
        got = decompose(drawn(mu, logvar, seed), mu, logvar, leave_one_out=True)
        low.append(got.mutual_information.value)
        high.append(got.mutual_information_loo.value)
    exact, error = 0.5 * math.log(1.0 + 1.0 / s**2), 3.0 / math.sqrt(400)
    assert np.mean(low) + error * np.std(low) < exact < np.mean(high) - error * np.std(high)


# --- identities and bounds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_sums_are_exact_for_every_draw(dtype):
    mu, logvar = posteriors(400, 5, dtype=dtype)
    z = drawn(mu, logvar)
    got = decompose(z, mu, logvar, leave_one_out=True)
    mi, tc, dw = got.mutual_information.value, got.total_correlation.value, got.dimensionwise_kl.value
    assert mi + tc + dw == pytest.approx(got.rate.value, abs=1e-12)
    assert mi + got.aggregate_kl.value == pytest.approx(got.rate.value, abs=1e-12)
    assert mi <= math.log(400) and got.mutual_information_loo.value >= mi
    t = terms(z, mu, logvar)
    assert ((t.given_x - t.joint) <= math.log(400) + 1e-5).all()
    dist = Normal(mu.double(), (0.5 * logvar.double()).exp())
    torch.testing.assert_close(t.given_x, dist.log_prob(z.double()).sum(-1))
    every = dist.log_prob(z.double()[:, None]).sum(-1)  # [N, N]
    torch.testing.assert_close(t.joint, every.logsumexp(1) - math.log(400), atol=1e-4, rtol=0)


def test_batches_of_rows_change_nothing():
    mu, logvar = posteriors(101, 3, seed=1)
    z = drawn(mu, logvar)
    whole = decompose(z, mu, logvar, leave_one_out=True)
    for rows in (1, 7, 100, 101, 5000):
        part = decompose(z, mu, logvar, leave_one_out=True, rows=rows)
        for name in ("mutual_information", "mutual_information_loo", "total_correlation", "dimensionwise_kl"):
            assert getattr(part, name).value == pytest.approx(getattr(whole, name).value, abs=1e-12), name


def test_another_prior():
    """Only the prior's terms change, by the difference of the log densities."""
    mu, logvar = posteriors(100, 2)
    z = drawn(mu, logvar)
    a, b = decompose(z, mu, logvar), decompose(z, mu, logvar, log_prior=lambda t: Normal(1.0, 2.0).log_prob(t))
    change = (standard_normal(z) - Normal(1.0, 2.0).log_prob(z)).sum(-1).mean().item()
    assert (a.mutual_information, a.total_correlation) == (b.mutual_information, b.total_correlation)
    for name in ("rate", "aggregate_kl", "dimensionwise_kl"):
        assert getattr(b, name).value - getattr(a, name).value == pytest.approx(change, abs=1e-12)


def test_active_units_entropy_and_mpd_against_their_formulas():
    mu, logvar = posteriors(50, 6)
    mu[:, 3], mu[:, 4] = 7.0, 7.0 + 0.09 * mu[:, 4] / mu[:, 4].std()  # variance 0, and 0.0081
    mu[:, 5] = 0.11 * mu[:, 5] / mu[:, 5].std()  # 0.0121: active
    assert active_units(mu) == 4 and active_units(mu.float()) == 4
    edge = torch.tensor([[0.0], [0.1414]], dtype=F)  # 0.009997 with N - 1, half that with N
    assert active_units(edge) == 0 and active_units(edge * 1.001) == 1
    got = decompose(drawn(mu, logvar), mu, logvar)
    dist = Normal(mu, (0.5 * logvar).exp())
    assert got.active_units == 4
    assert got.conditional_entropy == pytest.approx(dist.entropy().sum(-1).mean().item())
    assert conditional_entropy(torch.full((3, 5), -math.log(2 * math.pi * math.e))) == pytest.approx(0.0, abs=1e-6)
    pairs = kl_divergence(Normal(mu[:, None], dist.stddev[:, None]), Normal(mu[None], dist.stddev[None])).sum(-1)
    assert got.mpd == pytest.approx(pairs.mean().item())


def test_mpds_minus_one_is_per_dimension():
    """S2's printed form subtracts 1 once: off by (D - 1) / 2 from the mean over pairs."""
    mu, logvar = posteriors(40, 7)
    v = logvar.exp()
    second = ((mu[:, None] - mu[None]).square() / v[None]).mean((0, 1)) + v.mean(0) * (1.0 / v).mean(0)
    assert float(mpd(mu, logvar)) == pytest.approx(0.5 * (second - 1.0).sum().item())
    assert float(mpd(mu, logvar)) - 0.5 * (second.sum().item() - 1.0) == pytest.approx(-0.5 * 6)


@pytest.mark.parametrize("keep", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("seed", range(5))
def test_mpds_bound_under_variance_dropout(keep, seed):
    """S2 Eq. 8: MPD > (1 - p) / alpha sum_d Var[mu_d] once variances are g (var - alpha) + alpha, g ~ Bernoulli(p) / p;
    by expectation over g, which makes E[1/var] the mixture's."""
    alpha = 1.0 / (2.0 * math.pi * math.e)
    mu, logvar = posteriors(300, 4, seed=seed)
    v = logvar.exp() + alpha
    g = (torch.rand(v.shape, generator=torch.Generator().manual_seed(seed), dtype=F) < keep) / keep
    dropped = g * (v - alpha) + alpha
    share = (dropped <= alpha).double().mean(0)  # the drawn 1 - p of each dimension
    assert float(mpd(mu, dropped.log())) > float((share / alpha * mu.var(0, correction=0)).sum())
    at = [v / keep + alpha * (1 - 1 / keep), torch.full_like(v, alpha)]  # kept, dropped
    mean, inverse = (
        sum(w * f(x) for w, x in zip((keep, 1 - keep), at, strict=True)).mean(0) for f in (lambda x: x, lambda x: 1 / x)
    )
    exact = 0.5 * (2.0 * mu.var(0, correction=0) * inverse + mean * inverse - 1.0).sum()
    assert exact > (1 - keep) / alpha * mu.var(0, correction=0).sum()


def test_arguments():
    mu, logvar = posteriors(5, 2)
    with pytest.raises(ValueError, match="mu: shape"):
        decompose(mu[:4], mu, logvar)
    with pytest.raises(ValueError, match="too few"):
        decompose(mu[:0], mu[:0], logvar[:0])
    with pytest.raises(ValueError, match="too few"):
        decompose(mu[:1], mu[:1], logvar[:1], leave_one_out=True)
    with pytest.raises(ValueError, match="rows"):
        decompose(mu, mu, logvar, rows=0)
    with pytest.raises(ValueError, match=r"log_prior\(z\): shape"):
        decompose(mu, mu, logvar, log_prior=lambda z: standard_normal(z).sum(-1))
    one = decompose(mu[:1], mu[:1], logvar[:1])
    assert one.mutual_information.value == pytest.approx(0.0, abs=1e-12) and math.isnan(one.mutual_information.se)
    assert log_posterior(mu, mu, logvar).shape == (5,)
