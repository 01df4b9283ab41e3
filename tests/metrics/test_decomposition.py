"""The decomposition's columns where they are known: Gaussian mixtures by scipy's integrals, bits and classes by their
tables, von Mises on the circle."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import ive
from scipy.stats import norm
from subjects import F, digits, log_normal

from distvae import posteriors, priors
from distvae.batch import Noise
from distvae.metrics import decomposition
from distvae.metrics.decomposition import Decomposition, of_classes, of_draws, of_gaussians
from distvae.metrics.latent import mean
from distvae.posteriors.bernoulli import BernoulliQ
from distvae.posteriors.gaussian import NormalQ
from distvae.posteriors.von_mises_fisher import VonMisesFisherQ
from distvae.priors.binarized import Binarized, BinarizedPrior


def near(term, exact, sigmas=4.0):
    value, se = mean(term)
    assert abs(value - exact) < sigmas * se and se < 0.05, (value, exact, se)


def drawn(q, seed=0):
    return q.rsample(Noise(seed, 0, np.arange(len(q[0]))), 1)[:, 0]


# --- Gaussians ---------------------------------------------------------------------------------------------------------


def test_two_modes_against_the_binarized_prior():
    """Half of the examples at each of -0.9 and 0.9; p = 1/2 N(-1.5, 1) + 1/2 N(1.5, 1)."""
    n, apart, sigma, r = 2000, 0.9, 0.5, 1.5
    q = NormalQ(torch.tensor([-apart, apart], dtype=F).repeat(n // 2)[:, None], torch.full((n, 1), sigma**2, dtype=F))

    def mixture(t, m, s):
        return 0.5 * (norm.pdf(t, -m, s) + norm.pdf(t, m, s))

    entropy = quad(lambda t: -mixture(t, apart, sigma) * math.log(mixture(t, apart, sigma)), -7, 7)[0]
    cross = quad(lambda t: -mixture(t, apart, sigma) * math.log(mixture(t, r, 1.0)), -7, 7)[0]
    z, p = drawn(q), BinarizedPrior(Binarized(r=r), 1).double()
    got = of_gaussians(z, q.mu, q.var.log(), p.log_prob(z), product=True)
    near(got.mi, entropy - 0.5 * math.log(2.0 * math.pi * math.e * sigma**2))
    near(got.aggregate_kl, cross - entropy)
    near(got.dimensionwise_kl, cross - entropy)
    torch.testing.assert_close(got.tc, torch.zeros(n, dtype=F))
    near(got.mi + got.aggregate_kl, float(p.rate(q, None).mean()))


def test_correlated_means_in_the_plane():
    at, sigma = np.array([[-1.0, -1.0], [0.2, 0.0], [1.0, 1.2]]), 0.6
    q = NormalQ(torch.tensor(at, dtype=F).repeat(1000, 1), torch.full((3000, 2), sigma**2, dtype=F))

    grid, step = np.linspace(
        -6, 6, 301, retstep=True
    )  # the trapezoidal rule: exact to rounding for what decays so fast
    x, y = (norm.pdf(grid[:, None], at[:, d], sigma) for d in (0, 1))
    joint, marginals = x @ y.T / 3, np.outer(x.mean(1), y.mean(1))

    def integral(log_ratio):
        return float((joint * log_ratio).sum() * step**2)

    z = drawn(q)
    got = of_gaussians(z, q.mu, q.var.log(), log_normal(z, 0.0, 1.0), product=True)
    near(got.tc, integral(np.log(joint / marginals)))
    near(got.aggregate_kl, integral(np.log(joint) - np.add.outer(norm.logpdf(grid), norm.logpdf(grid))))


def test_blocks_of_log_prob_are_the_kernels(monkeypatch):
    g = torch.Generator().manual_seed(0)
    q = NormalQ(torch.randn(50, 3, generator=g, dtype=F), 0.1 + torch.rand(50, 3, generator=g, dtype=F))
    z = drawn(q)
    log_p = log_normal(z, 0.0, 1.0)
    fast = of_gaussians(z, q.mu, q.var.log(), log_p, product=False)
    assert fast.tc is None and fast.dimensionwise_kl is None
    for block in (1, 450, 10**6):
        monkeypatch.setattr(decomposition, "BLOCK", block)
        slow = of_draws(q, z, log_p)
        for name in ("mi", "mi_loo", "aggregate_kl"):
            torch.testing.assert_close(getattr(slow, name), getattr(fast, name), rtol=0, atol=1e-10, msg=name)


# --- discrete codes ----------------------------------------------------------------------------------------------------


def table(p):
    """[N, 2^c] probabilities of every code, of p [N, c] that a bit is 1."""
    codes = np.array(list(product([0, 1], repeat=p.shape[1])))
    return codes, np.prod(np.where(codes[None], p[:, None], 1 - p[:, None]), -1)


def test_bits_against_the_table_of_their_codes():
    p = torch.tensor([[0.9, 0.8, 0.5], [0.1, 0.3, 0.5], [0.7, 0.9, 0.2]], dtype=F).repeat(1000, 1)
    q, prior = BernoulliQ(p.logit()), 0.3
    codes, every = table(p[:3].numpy())
    aggregate = every.mean(0)
    log_p = (codes * math.log(prior) + (1 - codes) * math.log(1 - prior)).sum(1)
    bits = p[:3].numpy().mean(0)
    marginals = np.where(codes, np.log(bits), np.log1p(-bits)).sum(1)
    z = drawn(q)
    at = z * math.log(prior) + (1 - z) * math.log(1 - prior)
    own = decomposition.log_marginals_of_bits(q.mu, z)
    got = of_draws(q, z, at.sum(-1), log_marginals=own)
    near(got.mi, (every * (np.log(every) - np.log(aggregate))).sum(1).mean())
    near(got.aggregate_kl, (aggregate * (np.log(aggregate) - log_p)).sum())
    near(got.tc, (aggregate * (np.log(aggregate) - marginals)).sum())
    near(got.dimensionwise_kl, (aggregate * (marginals - log_p)).sum())
    row = (2 ** np.arange(2, -1, -1) @ z.numpy().T).astype(int)
    joint = np.log(every.repeat(1, 0)[np.arange(3000) % 3, row]) - got.mi.numpy()
    np.testing.assert_allclose(joint, np.log(aggregate)[row], rtol=1e-10)


def test_bits_that_are_always_one():
    q = BernoulliQ(torch.full((5, 2), 60.0, dtype=F))
    z = torch.ones(5, 2, dtype=F)
    own = decomposition.log_marginals_of_bits(q.mu, z)
    got = of_draws(q, z, torch.zeros(5, dtype=F), log_marginals=own)
    assert all(t.isfinite().all() for t in got) and float(got.mi.abs().max()) < 1e-12


def test_classes_are_exact():
    rng = np.random.default_rng(0)
    q = rng.dirichlet(np.full(6, 0.4), size=40)
    log_p = np.log(rng.dirichlet(np.ones(6)))
    aggregate = q.mean(0)
    got = of_classes(torch.tensor(np.log(q)), torch.tensor(log_p))
    assert mean(got.mi)[0] == pytest.approx((q * np.log(q / aggregate)).sum(1).mean(), rel=1e-12)
    assert mean(got.aggregate_kl)[0] == pytest.approx((aggregate * (np.log(aggregate) - log_p)).sum(), rel=1e-12)
    others = np.stack([np.delete(q, i, 0).mean(0) for i in range(40)])
    assert mean(got.mi_loo)[0] == pytest.approx((q * np.log(q / others)).sum(1).mean(), rel=1e-12)
    assert got.tc is None and got.dimensionwise_kl is None
    surely = torch.eye(5, dtype=F).mul(90.0).log_softmax(-1)  # each example its own class
    sure = of_classes(surely, torch.full((5,), -math.log(5), dtype=F))
    assert mean(sure.mi)[0] == pytest.approx(math.log(5), abs=1e-12)
    assert mean(sure.mi_loo)[0] == pytest.approx(90.0, abs=1e-9)  # the others' share of a class is e^-90
    assert mean(sure.aggregate_kl)[0] == pytest.approx(0.0, abs=1e-12)
    assert of_classes(surely[:1], surely[0]).mi_loo is None


# --- the circle ----------------------------------------------------------------------------------------------------------


def test_two_directions_on_the_circle():
    """vMF on S^1 is the von Mises law: aggregate of two opposite ones, against the uniform prior."""
    n, kappa = 3000, 3.0
    way = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=F).repeat(n // 2, 1)
    q = VonMisesFisherQ(way, torch.full((n,), kappa, dtype=F))
    constant = 2 * math.pi * ive(0, kappa)

    def one(t):
        return math.exp(kappa * (math.cos(t) - 1)) / constant

    def both(t):
        return 0.5 * (one(t) + one(t + math.pi))

    aggregate = quad(lambda t: both(t) * math.log(both(t) * 2 * math.pi), -math.pi, math.pi)[0]
    alone = quad(lambda t: one(t) * math.log(one(t) * 2 * math.pi), -math.pi, math.pi)[0]
    got = of_draws(q, drawn(q), torch.full((n,), -math.log(2 * math.pi), dtype=F))
    near(got.aggregate_kl, aggregate)
    near(got.mi, alone - aggregate)


# --- as columns ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "splits"),
    [
        ({}, True),
        ({"posterior": posteriors.Du()}, True),
        ({"prior": priors.Binarized(r=1.0)}, True),
        ({"prior": priors.Mixture(components=4)}, False),
        ({"prior": priors.Mixture(by="label")}, False),
        ({"prior": priors.Binarized(over=priors.Mixture())}, False),
        ({"posterior": posteriors.Bernoulli(), "prior": priors.Bernoulli()}, True),
        ({"posterior": posteriors.Categorical(), "prior": priors.Categorical()}, False),
        ({"posterior": posteriors.VonMisesFisher(), "prior": priors.UniformSphere()}, False),
    ],
    ids=str,
)
def test_the_columns_add_up_to_the_rate(model, splits):
    subject, metric = digits(scale=3.0, **model), Decomposition()
    assert metric.why_not(subject) is None
    got = metric.measure(subject, "test")
    assert list(got) == [c.name for c in metric.columns(subject.trial)]
    rate = subject.measured("test").rate
    gap = got["mi_nats"] + got["aggregate_kl_nats"] - float(rate.mean())
    assert abs(gap) < 4 * (got["mi_se"] + got["aggregate_kl_se"])
    if not subject.vae.model.prior.closed_form or "Categorical" in str(model):  # the same draws, or none
        assert gap == pytest.approx(0.0, abs=1e-4)
    assert 0.02 < got["mi_nats"] <= got["mi_loo_nats"] and got["mi_nats"] <= math.log(len(rate))
    if splits:
        assert got["tc_nats"] + got["dimensionwise_kl_nats"] == pytest.approx(got["aggregate_kl_nats"], abs=1e-9)
    else:
        assert {got[f"{n}_{u}"] for n in ("tc", "dimensionwise_kl") for u in ("nats", "se")} == {None}


def test_an_autoencoder_has_none():
    assert "delta" in Decomposition().why_not(digits(posterior=posteriors.Delta()))
