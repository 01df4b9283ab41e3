"""Active units at several thresholds, collapsed dimensions, and inactive ones at near-zero error: on linear models whose
code is known."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from subjects import F, digits, linear
from torch.distributions import Normal, kl_divergence

from distvae import posteriors
from distvae.metrics.active_units import ActiveUnits, least_gaussian_kl
from distvae.metrics.sparsity import Sparsity


def test_no_gaussian_is_nearer_than_the_aggregates():
    g = torch.Generator().manual_seed(0)
    mu, var = 0.5 + torch.randn(40, 3, generator=g, dtype=F), 0.1 + torch.rand(40, 3, generator=g, dtype=F)
    got = least_gaussian_kl(mu, var)
    for d in range(3):
        q = Normal(mu[:, d], var[:, d].sqrt())
        best = minimize(
            lambda t, q=q: float(kl_divergence(q, Normal(torch.tensor(t[0]), math.exp(t[1]))).mean()), [0.0, 0.0]
        )
        assert float(got[d]) == pytest.approx(best.fun, abs=1e-6)
    assert (got <= kl_divergence(Normal(mu, var.sqrt()), Normal(0.0, 1.0)).mean(0)).all()
    same = least_gaussian_kl(torch.full((5, 1), 3.0), torch.full((5, 1), 0.2))
    assert float(same) == pytest.approx(0.0, abs=1e-9)


def subject_of_variances(variances, posterior_variance):
    """A linear model whose encoder's means have these variances: x has those of 1, 2, 3, ... in axes of its own."""
    made = linear(np.eye(len(variances), dtype=float), 0.1, n=400)
    x = made.pixels("test").double()
    root = torch.linalg.inv(torch.linalg.cholesky(x.T @ x / (len(x) - 1)).T)  # whitens x, rows
    encoder = torch.tensor(variances, dtype=F).sqrt()[:, None] * root.T
    return linear(np.eye(len(variances), dtype=float), 0.1, n=400, encoder=encoder, log_var=posterior_variance.log())


def test_counts_at_thresholds():
    subject = subject_of_variances([0.5, 0.05, 0.005, 1e-9], torch.tensor([0.01, 1.0, 1e-4, 1.0], dtype=F))
    metric = ActiveUnits(thresholds=(0.001, 0.01, 0.1), kl_threshold=0.01)
    got = metric.measure(subject, "test")
    # 1/2 ln(1 + signal / noise): 0.5 ln 51, 0.024, 0.5 ln 51, 0
    assert got == {"active_units_0.001": 3, "active_units_0.01": 2, "active_units_0.1": 1, "collapsed_dims": 1}
    assert list(got) == [c.name for c in metric.columns(subject.trial)]
    assert ActiveUnits(thresholds=(), kl_threshold=0.03).measure(subject, "test") == {"collapsed_dims": 2}
    delta = ActiveUnits().measure(digits(posterior=posteriors.Delta()), "test")
    assert delta["collapsed_dims"] is None and delta["active_units_0.001"] == 3


def test_a_threshold_is_given_once():
    with pytest.raises(ValueError, match=r"thresholds: 0\.1 twice"):
        ActiveUnits(thresholds=(0.1, 0.5, 0.1))


def test_inactive_dimensions_count_at_small_errors_only():
    """Three dimensions of code for data of four: the second is never used."""
    w = np.eye(4)[:, :3]
    encoder = torch.tensor(np.diag([1.0, 0.0, 1.0]) @ w.T)
    subject = linear(w, 0.1, n=200, encoder=encoder, log_var=torch.zeros(3, dtype=F))
    x = subject.pixels("test").double()
    error = float(x[:, [1, 3]].square().sum() / x.numel())
    metric = Sparsity(mse=1.001 * error)
    got = metric.measure(subject, "test")
    assert got == {"inactive_dims": 1, "inactive_share": pytest.approx(1 / 3)}
    assert list(got) == [c.name for c in metric.columns(subject.trial)]
    assert Sparsity(mse=0.999 * error).measure(subject, "test") == {"inactive_dims": None, "inactive_share": None}
    wide = Sparsity(mse=1.001 * error, variance=1e6).measure(subject, "test")
    assert wide == {"inactive_dims": 3, "inactive_share": 1.0}


def test_sparsity_is_of_densities_on_r_d():
    assert Sparsity().why_not(digits()) is None
    for posterior in (posteriors.Delta(), posteriors.VonMisesFisher(), posteriors.Categorical()):
        assert posterior.type in Sparsity().why_not(digits(posterior=posterior))
