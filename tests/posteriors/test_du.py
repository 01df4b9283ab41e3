"""DU-VAE's head (S2): the batch norm against torch's, the dropout against its definition, and what the paper proves."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributions import Normal, kl_divergence

from distvae.batch import Batch, Noise
from distvae.posteriors import Du
from distvae.posteriors.du import ALPHA

F = torch.float64


def a_batch(n, *, warm=1.0, step=0, gather=None):
    extra = {} if gather is None else {"gather": gather}
    return Batch(x=torch.zeros(n, 1), noise=Noise(3, step, np.arange(n)), total=n, warm=warm, step=step, **extra)


def a_head(d=4, *, training=True, **kw):
    head = Du(**kw).build(d).to(F)
    return head.train(training)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=F, generator=torch.Generator().manual_seed(seed))


def means(h):
    return h[:, 0::2]


# --- batch norm, Eq. 9 ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("eps", "momentum"), [(1e-5, 0.1), (1e-2, 0.3)])
def test_the_mean_is_torchs_batch_norm_in_training_and_in_evaluation(eps, momentum):
    head, reference = a_head(eps=eps, momentum=momentum), nn.BatchNorm1d(4, eps=eps, momentum=momentum).to(F)
    with torch.no_grad():
        head.scale.copy_(torch.tensor([0.5, -1.0, 2.0, 0.1]))
        head.shift.copy_(torch.tensor([0.0, 1.0, -3.0, 0.2]))
        reference.weight.copy_(head.scale)
        reference.bias.copy_(head.shift)
    weight = randn(16, 4, seed=9)
    for step in range(3):
        h = (2.0 * randn(16, 8, seed=step) + step).requires_grad_()
        mine = torch.autograd.grad((head(h, a_batch(16)).mu * weight).sum(), (h, head.scale, head.shift))
        wanted = torch.autograd.grad((reference(means(h)) * weight).sum(), (h, reference.weight, reference.bias))
        torch.testing.assert_close(mine, wanted)
        torch.testing.assert_close(head(h, a_batch(16)).mu, reference(means(h)))
        torch.testing.assert_close(head.running_mean, reference.running_mean)
        torch.testing.assert_close(head.running_var, reference.running_var)
    h = randn(5, 8, seed=99)
    torch.testing.assert_close(head.eval()(h, a_batch(5)).mu, reference.eval()(means(h)))


def test_evaluation_leaves_the_running_statistics_alone():
    head = a_head()
    head(randn(16, 8), a_batch(16))
    before = head.running_mean.clone(), head.running_var.clone()
    head.eval()(randn(16, 8, seed=1) + 5, a_batch(16))
    assert torch.equal(before[0], head.running_mean) and torch.equal(before[1], head.running_var)


def test_two_shards_are_the_whole_batch():
    h = randn(16, 8)
    whole, shard = a_head(), a_head()
    wanted = whole(h, a_batch(16)).mu
    got = shard(h[:5], Batch(a_batch(5).x, a_batch(5).noise, 16, gather=lambda t: torch.cat([t, means(h)[5:]]))).mu
    torch.testing.assert_close(got, wanted[:5])
    torch.testing.assert_close(shard.running_var, whole.running_var)


def test_gamma_is_the_posterior_means_spread():
    mu = a_head(gamma=0.5)(10 * randn(64, 8) + 3, a_batch(64)).mu
    torch.testing.assert_close(mu.mean(0), torch.zeros(4, dtype=F))
    torch.testing.assert_close(mu.square().mean(0), torch.full((4,), 0.25, dtype=F), rtol=1e-5, atol=0)


# --- the projection, Algorithm 1 line 9 -------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    scale=st.lists(st.floats(-5, 5).filter(lambda g: abs(g) > 1e-3), min_size=1, max_size=6), gamma=st.floats(0.1, 3.0)
)
def test_projection_gives_mean_square_gamma_squared_and_keeps_proportions(scale, gamma):
    head = a_head(len(scale), gamma=gamma)
    with torch.no_grad():
        head.scale.copy_(torch.tensor(scale, dtype=F))
    ((parameter, project),) = head.projections()
    assert parameter is head.scale
    projected = project(head.scale.detach())
    assert np.mean(projected.numpy() ** 2) == pytest.approx(gamma**2, rel=1e-12)
    ratio = projected / head.scale.detach()
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))
    assert (ratio > 0).all()


def test_fixed_gamma_is_never_projected_nor_learned():
    head = a_head(gamma=0.7, fixed_gamma=True)
    assert list(head.projections()) == []
    assert not head.scale.requires_grad and head.shift.requires_grad
    assert (head.scale == 0.7).all()


# --- the floor and the dropout, Section 3.1 and Eq. 6 -----------------------------------------------------------------


@settings(max_examples=50, deadline=None, derandomize=True)
@given(logvar=st.floats(-60, 20), p=st.floats(0.05, 1.0))
def test_the_floor_is_additive_so_no_dimension_has_negative_entropy(logvar, p):
    h = torch.full((8, 2), logvar, dtype=F)
    for training in (True, False):
        q = a_head(1, p_keep=p, training=training)(h, a_batch(8))
        entropy = Normal(q.mu, q.var.sqrt()).entropy()
        assert (entropy >= -1e-12).all()
        if not training:
            torch.testing.assert_close(q.var, (h[:, 1:].exp() + 1 / (2 * math.pi * math.e)), rtol=1e-14, atol=0)
            assert (entropy > 0).all() or logvar < -30


def test_the_floors_entropy_is_zero():
    assert float(Normal(0.0, math.sqrt(ALPHA)).entropy()) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_p_is_the_probability_of_keeping_and_g_has_mean_one(p):
    n, d = 5000, 4
    logvar = randn(n, d)
    h = torch.stack([randn(n, d, seed=1), logvar], -1).flatten(1)
    var = a_head(d, p_keep=p)(h, a_batch(n)).var
    g = (var - ALPHA) / logvar.exp()
    kept = g > 0.5
    assert (var[~kept] == ALPHA).all()  # exactly: what is dropped is the floor
    torch.testing.assert_close(g[kept], torch.full_like(g[kept], 1 / p))
    assert abs(kept.double().mean() - p) < 4 * math.sqrt(p * (1 - p) / (n * d))
    assert abs(g.mean() - 1) < 4 * math.sqrt((1 - p) / p / (n * d))
    assert ((kept.double().mean(0) - p).abs() < 4.5 * math.sqrt(p * (1 - p) / n)).all()  # in each dimension
    other = a_head(d, p_keep=p)(h, a_batch(n, step=1)).var
    assert not torch.equal(other, var)  # and anew at each step


def test_keeping_everything_is_bit_for_bit_no_dropout():
    h = randn(64, 8)
    plain = means(h.roll(-1, 1)).exp() + ALPHA
    for q in (
        a_head(p_keep=1.0)(h, a_batch(64)),
        a_head(p_keep=0.3)(h, a_batch(64, warm=0.0)),  # before the warm-up is over
        a_head(p_keep=0.3, training=False)(h, a_batch(64)),
    ):
        assert torch.equal(q.var, plain)
    assert not torch.equal(a_head(p_keep=0.3)(h, a_batch(64)).var, plain)


def test_the_log_variances_have_a_bias_of_their_own():
    head, h = a_head(training=False), randn(3, 8)
    with torch.no_grad():
        head.logvar_bias.copy_(torch.arange(4.0))
    torch.testing.assert_close(head(h, a_batch(3)).var, (h[:, 1::2] + torch.arange(4.0)).exp() + ALPHA)


# --- what the paper proves: Proposition 1, Eqs. 2 and 8 ---------------------------------------------------------------


def mpd(q):
    """Mean pairwise divergence by brute force: the symmetric KL (half the sum of the two), over all pairs."""
    mu, sigma = q.mu.detach(), q.var.detach().sqrt()
    a, b = (Normal(mu.unsqueeze(k), sigma.unsqueeze(k)) for k in (0, 1))
    return float(0.5 * (kl_divergence(a, b) + kl_divergence(b, a)).sum(-1).mean())


def conditional_entropy(q):
    return float(Normal(q.mu, q.var.sqrt()).entropy().sum(-1).mean().detach())


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    p=st.floats(0.1, 0.95),
    gamma=st.floats(0.1, 2.0),
    level=st.floats(-8, 2),
    spread=st.floats(0, 2),
    seed=st.integers(0, 99),
)
def test_eq_8_dropout_bounds_the_diversity_from_below(p, gamma, level, spread, seed):
    h = torch.stack([randn(256, 3, seed=seed), level + spread * randn(256, 3, seed=seed + 100)], -1).flatten(1)
    q = a_head(3, p_keep=p, gamma=gamma)(h, a_batch(256))
    assert mpd(q) > (1 - p) / ALPHA * float(q.mu.detach().var(0, unbiased=False).sum())


def test_less_keeping_means_more_diversity_and_less_conditional_entropy():
    h = torch.stack([randn(512, 4), 0.3 * randn(512, 4, seed=1) - 1], -1).flatten(1)
    qs = [a_head(p_keep=p)(h, a_batch(512)) for p in (1.0, 0.9, 0.7, 0.5, 0.3)]
    diversity, entropy = [mpd(q) for q in qs], [conditional_entropy(q) for q in qs]
    assert diversity == sorted(diversity) and diversity[-1] > 3 * diversity[0]
    assert entropy == sorted(entropy, reverse=True) and entropy[-1] > 0
