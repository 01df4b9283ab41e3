"""Continuous Bernoulli against torch.distributions (its own series switched off), the normaliser as the paper prints it,
and quadrature."""

import math

import numpy as np
import pytest
import torch
from pixels import F, ask, built, nll, randn
from torch.distributions import ContinuousBernoulli as Reference

from distvae.likelihoods import Bernoulli, ContinuousBernoulli
from distvae.likelihoods.stable import NEAR, langevin, log_decay


def test_it_is_torchs_density():
    x, y = torch.rand(5, 7, dtype=F), 3 * randn(5, 4, 7)
    wanted = -Reference(logits=y, lims=(0.5, 0.5)).log_prob(x[:, None].expand_as(y)).sum(-1)
    torch.testing.assert_close(nll(ContinuousBernoulli(), y, x), wanted)
    torch.testing.assert_close(built(ContinuousBernoulli(), 7).mean(y), Reference(logits=y, lims=(0.5, 0.5)).mean)


def test_it_is_cross_entropy_less_the_normaliser_of_the_paper():
    """C(lambda) = 2 artanh(1 - 2 lambda) / (1 - 2 lambda), Eq. 7; C(1/2) = 2."""
    x, y = torch.rand(5, 7, dtype=F), 2 * randn(5, 4, 7)
    u = 1 - 2 * y.sigmoid()
    log_c = (2 * torch.atanh(u) / u).log().sum(-1)
    torch.testing.assert_close(nll(ContinuousBernoulli(), y, x), nll(Bernoulli(), y, x) - log_c)
    half = torch.zeros(5, 1, 7, dtype=F)
    torch.testing.assert_close(nll(ContinuousBernoulli(), half, x), torch.zeros(5, 1, dtype=F))  # uniform


@pytest.mark.parametrize("logit", [0.0, 1e-9, 1e-4, NEAR - 1e-9, NEAR + 1e-9, 2 * NEAR, 5.0, -1e-4, -NEAR, -30.0])
def test_normaliser_and_mean_by_quadrature(logit):
    t, w = np.polynomial.legendre.leggauss(60)
    t, w = (t + 1) / 2, w / 2
    total, first = (w * np.exp(logit * t)).sum(), (w * t * np.exp(logit * t)).sum()
    y, x = torch.full((1, 1, 1), logit, dtype=F), torch.tensor([[0.3]], dtype=F)
    likelihood = built(ContinuousBernoulli(), 1)
    assert float(ask(likelihood, y, x)) == pytest.approx(math.log(total) - 0.3 * logit, abs=1e-13)
    assert float(likelihood.mean(y)) == pytest.approx(first / total, abs=1e-12)


def test_the_gradient_is_the_mean_less_the_pixel_also_at_a_half():
    """d/dl -log p = E[x|l] - x, everywhere."""
    y = torch.tensor([0.0, -0.0, 1e-12, -1e-5, 0.1, -2.0, 50.0, 1e3], dtype=F).reshape(1, 1, 8).requires_grad_()
    x = torch.linspace(0, 1, 8, dtype=F)[None]
    likelihood = built(ContinuousBernoulli(), 8)
    (g,) = torch.autograd.grad(ask(likelihood, y, x).sum(), y)
    torch.testing.assert_close(g[0, 0], (likelihood.mean(y.detach())[0, 0] - x[0]), atol=1e-12, rtol=1e-12)


def test_white_and_black_pixels_at_any_confidence():
    y = torch.tensor([1e4, -1e4], dtype=torch.float32).reshape(1, 1, 2)
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float32)
    each = nll(ContinuousBernoulli(), y, x)
    assert float(each) == pytest.approx(-2 * math.log(1e4), rel=1e-6)  # an exponential's peak, no cancellation
    torch.testing.assert_close(built(ContinuousBernoulli(), 2).mean(y)[0, 0], x[0], atol=2e-4, rtol=0)


def test_the_two_functions_join_smoothly():
    a = torch.tensor([NEAR * (1 - 1e-12), NEAR * (1 + 1e-12)], dtype=F, requires_grad=True)
    for f in (log_decay, langevin):
        value = f(a)
        (g,) = torch.autograd.grad(value.sum(), a)
        torch.testing.assert_close(value[0], value[1], atol=1e-11, rtol=0)
        torch.testing.assert_close(g[0], g[1], atol=1e-11, rtol=0)
    torch.testing.assert_close(langevin(-a), -langevin(a))
