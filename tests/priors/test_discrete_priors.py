"""Bernoulli and categorical priors against torch.distributions and enumeration; their entropy caps."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, chisquare
from torch.distributions import Bernoulli as BernoulliReference
from torch.distributions import Categorical as CategoricalReference
from torch.distributions import kl_divergence

from distvae.batch import Noise
from distvae.posteriors.bernoulli import BernoulliQ
from distvae.posteriors.categorical import CategoricalQ
from distvae.priors import Bernoulli, Categorical

F = torch.float64
Z = torch.empty(0)


def logits(b, c, scale=2.0):
    return scale * torch.randn(b, c, dtype=F, generator=torch.Generator().manual_seed(b + c))


@pytest.mark.parametrize("p", [0.5, 0.1, 0.93])
def test_the_bernoulli_kl(p):
    eta = logits(5, 7).requires_grad_()
    prior, q = Bernoulli(p=p).build(7).to(F), BernoulliQ(eta)
    wanted = kl_divergence(BernoulliReference(logits=eta), BernoulliReference(torch.full_like(eta, p)))
    torch.testing.assert_close(prior.divergence(q, Z), wanted, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(prior.rate(q, Z), wanted, rtol=1e-9, atol=1e-12)
    z = q.support()
    torch.testing.assert_close(prior.log_prob(z), BernoulliReference(torch.tensor(p, dtype=F)).log_prob(z).sum(-1))
    assert torch.autograd.gradcheck(lambda e: prior.divergence(BernoulliQ(e), Z), eta)


def test_the_categorical_kl():
    eta = logits(5, 7).requires_grad_()
    prior, q = Categorical().build(7).to(F), CategoricalQ(eta)
    wanted = kl_divergence(CategoricalReference(logits=eta), CategoricalReference(logits=torch.zeros_like(eta)))
    torch.testing.assert_close(prior.divergence(q, Z), wanted[:, None])
    torch.testing.assert_close(prior.rate(q, Z), wanted[:, None])
    torch.testing.assert_close(prior.log_prob(q.support()), torch.full((7,), -math.log(7), dtype=F))
    assert torch.autograd.gradcheck(lambda e: prior.divergence(CategoricalQ(e), Z), eta)


@pytest.mark.parametrize("dtype", [torch.float32, F])
def test_the_entropy_caps_the_kl(dtype):
    """c ln 2 and ln c, reached by a certain posterior and by none other; finite however certain."""
    c = 50
    sure = torch.full((1, c), 200.0, dtype=dtype).requires_grad_()
    kl = Bernoulli().build(c).to(dtype).rate(BernoulliQ(sure), Z).sum()
    assert float(kl.detach()) == pytest.approx(c * math.log(2)) and torch.autograd.grad(kl, sure)[0].isfinite().all()
    one = (200.0 * torch.eye(c, dtype=dtype)[:1]).requires_grad_()
    kl = Categorical().build(c).to(dtype).rate(CategoricalQ(one), Z).sum()
    assert float(kl.detach()) == pytest.approx(math.log(c)) and torch.autograd.grad(kl, one)[0].isfinite().all()
    eta = logits(200, c, 5.0).to(dtype)
    assert (Bernoulli().build(c).to(dtype).rate(BernoulliQ(eta), Z).sum(-1) < c * math.log(2)).all()
    assert (Categorical().build(c).to(dtype).rate(CategoricalQ(eta), Z).sum(-1) < math.log(c)).all()
    assert float(Bernoulli().build(c).to(dtype).rate(BernoulliQ(torch.zeros(1, c, dtype=dtype)), Z).abs().max()) < 1e-6


def test_a_p_that_float32_would_round_to_1():
    q = BernoulliQ(torch.zeros(1, 2))
    kl = Bernoulli(p=1 - 1e-9).build(2).float().rate(q, Z)
    assert float(kl[0, 0]) == pytest.approx(-math.log(2) - 0.5 * math.log(1e-9), rel=1e-5)


def test_samples_have_their_law():
    n, noise = 20_000, Noise(5, 0, np.arange(20_000))
    like = torch.empty(2, 9)
    bits = Bernoulli(p=0.2).build(3).sample(noise, like)
    assert bits.shape == (n, 3) and set(bits.unique().tolist()) == {0.0, 1.0}
    assert all(binomtest(int(k), n, 0.2).pvalue > 1e-3 for k in bits.sum(0))
    one = Categorical().build(6).sample(noise, like)
    assert one.shape == (n, 6) and (one.sum(-1) == 1).all()
    assert chisquare(one.sum(0).numpy()).pvalue > 1e-3
