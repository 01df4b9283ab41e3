"""Bits, one-hots and points: masses, exact sampling, relaxations."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from distvae.batch import Batch, Noise
from distvae.posteriors import Bernoulli, Categorical, Delta
from distvae.posteriors.bernoulli import BernoulliQ
from distvae.posteriors.categorical import CategoricalQ

F = torch.float64
DISCRETE = pytest.mark.parametrize("kind", [BernoulliQ, CategoricalQ])


def eta(b, c, dtype=F):
    return (1.5 * torch.randn(b, c, dtype=F, generator=torch.Generator().manual_seed(c))).to(dtype)


def noise(n, seed=0):
    return Noise(seed, 0, np.arange(n))


def counts(q, z):
    """How often each code of the support occurs in z `[n, c]`."""
    codes = q.support()
    same = (z[:, None] == codes).all(-1)
    assert (same.sum(-1) == 1).all()
    return same.sum(0).numpy()


# --- masses -----------------------------------------------------------------------------------------------------------


@DISCRETE
def test_the_mass_sums_to_1_and_has_the_mean(kind):
    logits = eta(4, 5).requires_grad_()
    q = kind(logits)
    z = q.support()
    mass = q.log_prob(z.expand(4, -1, -1)).exp()
    torch.testing.assert_close(mass.sum(1), torch.ones(4, dtype=F))
    torch.testing.assert_close(mass @ z, q.mu)
    assert torch.autograd.gradcheck(lambda h: kind(h).log_prob(z.expand(4, -1, -1)), logits)


def test_masses_of_torch_distributions():
    logits = eta(3, 4)
    bits, one = BernoulliQ(logits), CategoricalQ(logits)
    z = bits.support().expand(3, -1, -1)
    wanted = torch.distributions.Bernoulli(logits=logits[:, None]).log_prob(z).sum(-1)
    torch.testing.assert_close(bits.log_prob(z), wanted)
    z = one.support().expand(3, -1, -1)
    torch.testing.assert_close(
        one.log_prob(z), torch.distributions.OneHotCategorical(logits=logits[:, None]).log_prob(z)
    )


def test_the_score_is_z_minus_q():
    """Eqs. 23 and 29: d log q / d eta = z - q, for one-hots too."""
    for kind in (BernoulliQ, CategoricalQ):
        logits = eta(1, 4).requires_grad_()
        q = kind(logits)
        for z in q.support():
            (score,) = torch.autograd.grad(q.log_prob(z.reshape(1, 1, -1)).sum(), logits, retain_graph=True)
            torch.testing.assert_close(score[0], z - q.mu[0])


def test_a_last_logit_of_0_spans_the_same_family():
    logits = eta(3, 4)
    pinned = CategoricalQ(logits - logits[:, -1:])  # [ln p_1 / p_c, ..., 0], Section V
    torch.testing.assert_close(pinned.mu, CategoricalQ(logits).mu)


@DISCRETE
def test_finite_in_float32_however_certain(kind):
    logits = torch.tensor([[1e4, -1e4, 0.0, 30.0]], requires_grad=True)
    q = kind(logits)
    z = q.rsample(noise(1), 8)
    log_q = q.log_prob(z)
    assert log_q.isfinite().all() and torch.autograd.grad(log_q.sum(), logits)[0].isfinite().all()


# --- samples ----------------------------------------------------------------------------------------------------------


@DISCRETE
@pytest.mark.parametrize("c", [1, 2, 4])
def test_samples_have_the_exact_law(kind, c):
    n = 20_000
    q = kind(eta(1, c).expand(n, -1))
    z = q.rsample(noise(n), 2)
    assert z.shape == (n, 2, c) and not z.requires_grad
    one = kind(q.logits[:1])
    law = one.log_prob(one.support()[None]).exp()[0].numpy()
    if len(law) > 1:
        assert chisquare(counts(one, z.reshape(-1, c)), 2 * n * law).pvalue > 1e-3
    some = kind(q.logits[5:9]).rsample(Noise(0, 0, np.arange(5, 9)), 1)
    assert torch.equal(some, z[5:9, :1])  # by address


@DISCRETE
def test_hardened_relaxed_samples_have_the_exact_law(kind):
    n, c = 20_000, 3
    q = kind(eta(1, c).expand(n, -1))
    one = kind(q.logits[:1])
    law = one.log_prob(one.support()[None]).exp()[0].numpy()
    for temperature in (0.1, 1.0, 5.0):
        z = q.harden(q.relaxed(noise(n, seed=1), 1, torch.tensor(temperature, dtype=F)))
        assert chisquare(counts(one, z[:, 0]), n * law).pvalue > 1e-3


def test_a_rounded_binary_concrete_is_the_sample_of_the_same_noise():
    q = BernoulliQ(eta(500, 6))
    for temperature in (0.05, 0.7, 3.0):
        z = q.relaxed(noise(500), 2, torch.tensor(temperature, dtype=F))
        assert torch.equal(q.harden(z), q.rsample(noise(500), 2))


@DISCRETE
def test_relaxed_samples_harden_as_the_temperature_falls(kind):
    q = kind(eta(2000, 5))
    gaps = []
    for temperature in (2.0, 0.5, 0.1, 0.01, 1e-3):
        z = q.relaxed(noise(2000), 1, torch.tensor(temperature, dtype=F))
        assert (z >= 0).all() and (z <= 1).all()
        gaps.append(float((z - q.harden(z)).abs().mean()))
    assert gaps == sorted(gaps, reverse=True) and gaps[0] > 0.2 and gaps[-1] < 2e-3


@DISCRETE
def test_gradients_of_relaxed_samples(kind):
    for temperature in (0.3, 1.0):
        t = torch.tensor(temperature, dtype=F)
        assert torch.autograd.gradcheck(lambda h, t=t: kind(h).relaxed(noise(3), 2, t), eta(3, 4).requires_grad_())


def test_the_support_of_bits_is_listed_up_to_12():
    assert BernoulliQ(torch.zeros(1, 12)).support().unique(dim=0).shape == (4096, 12)
    with pytest.raises(ValueError, match="13 bits"):
        BernoulliQ(torch.zeros(1, 13)).support()


# --- heads, and the point ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [Bernoulli(), Categorical(), Delta()])
def test_heads_take_one_number_a_dimension(part):
    h = eta(3, 4)
    q = part.build(4)(h, Batch(x=h, noise=noise(3), total=3))
    assert part.width(4) == part.code_dim(4) == 4
    assert torch.equal(q[0], h) and q.double()[0].dtype == F
    assert q.rsample(noise(3), 2).shape == (3, 2, 4)
    assert part.reparameterized is (part.type == "delta") and not part.gaussian


def test_the_point_is_its_mean_and_has_no_density():
    mu = eta(3, 4).requires_grad_()
    q = Delta().build(4)(mu, Batch(x=mu, noise=noise(3), total=3))
    z = q.rsample(noise(3), 5)
    assert not Delta.density and torch.equal(z, mu[:, None].expand(-1, 5, -1))
    assert torch.equal(torch.autograd.grad(z.sum(), mu)[0], torch.full_like(mu, 5.0))
    with pytest.raises(TypeError, match="no density"):
        q.log_prob(z)
