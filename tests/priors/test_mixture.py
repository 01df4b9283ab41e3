"""The mixture prior against torch.distributions and quadrature."""

import math

import numpy as np
import pytest
import torch
from gaussians import F, a_mixture, exact_kl, grid, randn, reference, some_q
from scipy.stats import chisquare, kstest, norm
from torch.autograd import gradcheck
from torch.distributions import Normal as Reference
from torch.distributions import kl_divergence

from distvae.batch import Batch, Noise
from distvae.data import Digits
from distvae.kernels.philox import Stream
from distvae.priors import Mixture
from distvae.priors import mixture as module
from distvae.priors.mixture import GaussianMixture, LabelledMixture
from distvae.rules import refusals
from distvae.trial import Trial
from distvae.vae import Model, Vae


def a_batch(n=5, y=None, samples=1, step=0, latent=Stream.LATENT):
    return Batch(torch.zeros(n, 1), Noise(1, step, np.arange(n), latent), n, samples=samples, y=y)


def test_log_prob_is_torchs_with_every_constant():
    m, z = a_mixture(4, 3), randn(5, 6, 3, seed=9)
    torch.testing.assert_close(m.log_prob(z), reference(m).log_prob(z))
    far = m.log_prob(torch.full((1, 3), 1e4, dtype=F))
    assert far.isfinite().all() and far < -1e6


@pytest.mark.parametrize("d", [1, 2])
def test_it_integrates_to_1(d):
    z, cell = grid(-14, 14, 8001 if d == 1 else 401, d)
    assert float(a_mixture(3, d).log_prob(z).exp().sum() * cell) == pytest.approx(1.0, abs=1e-9)


def test_responsibilities_are_bayes():
    m, z = a_mixture(4, 3), randn(6, 3, seed=9)
    each = torch.stack([Reference(m.mean[k], m.var[k].sqrt()).log_prob(z).sum(-1) + m.log_w[k] for k in range(4)], -1)
    torch.testing.assert_close(m.responsibilities(z), (each - m.log_prob(z)[:, None]).exp())


def test_blocks_of_rows_change_no_bit(monkeypatch):
    m, z = a_mixture(5, 3), randn(7, 4, 3)
    whole = m.log_prob(z)
    monkeypatch.setattr(module, "BLOCK", 40)
    assert torch.equal(m.log_prob(z), whole)
    assert m.log_prob(z[:0]).shape == (0, 4)


def test_samples_are_of_the_mixture_and_addressed():
    n, m = 20_000, a_mixture(3, 1)
    like = torch.zeros((), dtype=F)
    noise = Noise(1, 0, np.arange(n), Stream.SAMPLE)
    z = m.sample(noise, like)
    w, mean, sd = (t.numpy().ravel() for t in (m.log_w.exp(), m.mean, m.var.sqrt()))
    assert kstest(z.numpy().ravel(), lambda t: sum(w[k] * norm.cdf(t, mean[k], sd[k]) for k in range(3))).pvalue > 1e-3
    k = m.choose(noise.uniform(Stream.CHOICE, 1, like)[:, 0])
    assert chisquare(np.bincount(k, minlength=3), n * w).pvalue > 1e-3
    assert torch.equal(m.sample(Noise(1, 0, np.array([9, 4]), Stream.SAMPLE), like), z[[9, 4]])
    assert m.sample(noise, torch.zeros((), dtype=torch.float32)).dtype == torch.float32


def test_the_choice_stays_within_the_components_where_the_weights_round_below_1():
    m = a_mixture(3, 1)
    m = m._replace(log_w=m.log_w - 1e-7)
    assert m.choose(torch.tensor([1e-12, 1 - 1e-9], dtype=F)).tolist() == [0, 2]


@pytest.mark.parametrize("d", [1, 2])
def test_the_rate_is_the_kl_by_quadrature(d):
    """Monte Carlo, each example within 4.5 of its standard errors (10 examples)."""
    m, q, s = a_mixture(3, d), some_q(5, d), 4000
    z = q.rsample(Noise(1, 0, np.arange(5)), s)
    value = (q.log_prob(z) - m.log_prob(z)).numpy()
    rate = m.rate(q, z)
    assert rate.shape == (5, 1)
    np.testing.assert_allclose(rate[:, 0], value.mean(1))
    wanted = exact_kl(q, m.log_prob, 80).numpy()
    assert (np.abs(rate[:, 0].numpy() - wanted) < 4.5 * value.std(1) / math.sqrt(s)).all()
    assert (wanted > 0).all() and torch.equal(m.divergence(q, z), rate)


def test_one_standard_component_is_the_standard_normal():
    m = Mixture(components=1, scale=0.0).build(3).to(F)(None, a_batch())
    q = some_q(5, 3)
    unit = Reference(torch.zeros((), dtype=F), torch.ones((), dtype=F))
    z = q.rsample(Noise(1, 0, np.arange(5)), 7)
    torch.testing.assert_close(m.log_prob(z), unit.log_prob(z).sum(-1))


# --- by label ---------------------------------------------------------------------------------------------------------


def labelled(m, y):
    return LabelledMixture(m._replace(log_w=torch.full_like(m.log_w, -math.log(len(m.log_w)))), torch.tensor(y))


def test_by_label_trains_on_the_kl_to_the_labels_component():
    m, q, y = a_mixture(3, 2), some_q(5), [2, 0, 1, 2, 2]
    got = labelled(m, y).divergence(q, q.mu[:, None])
    wanted = kl_divergence(Reference(q.mu, q.var.sqrt()), Reference(m.mean[y], m.var[y].sqrt()))
    torch.testing.assert_close(got, wanted)


def test_by_label_the_rate_is_to_the_marginal_and_at_most_ln_k_above_the_divergence():
    q, y = some_q(5), [2, 0, 1, 2, 2]
    p = labelled(a_mixture(3, 2), y)
    z = q.rsample(Noise(1, 0, np.arange(5)), 6)
    assert torch.equal(p.rate(q, z), p.mixture.rate(q, z))
    exact = exact_kl(q, p.log_prob, 80)
    assert (exact <= p.divergence(q, z).sum(-1) + math.log(3) + 1e-9).all()
    near = some_q(5)._replace(mu=p.mixture.mean[p.y], var=p.mixture.var[p.y])  # q = its component: at most ln K nats
    assert not near.mu.equal(q.mu) and float(p.divergence(near, z).abs().max()) < 1e-15
    assert float(exact_kl(near, p.log_prob, 80).min()) > 0 and float(exact_kl(near, p.log_prob, 80).max()) < math.log(3)


def test_the_parts_facts_follow_the_label():
    plain, by = Mixture(), Mixture(by="label")
    assert (plain.factorised, plain.surrogate, plain.labels) == (False, False, False)
    assert (by.factorised, by.surrogate, by.labels) == (True, True, True)
    assert not plain.closed_form and not by.closed_form


def test_too_few_components_for_the_classes_are_refused():
    def reasons(k):
        trial = Trial(data=Digits(), vae=Model(prior=Mixture(components=k, by="label")))
        return [why for field, why in refusals(trial) if field == "vae.prior"]

    assert reasons(10) == [] and "10 classes (write components: 10)" in reasons(9)[0]


# --- state ------------------------------------------------------------------------------------------------------------


def prior_of(part, seed=0, d=3):
    return Vae(Model(latent_dim=d, prior=part), (4,), seed=seed, dtype=F).prior


def test_learned_state_is_addressed_by_the_seed_and_fixed_state_is_not():
    learned = [prior_of(Mixture(components=k), seed) for k, seed in ((5, 0), (5, 1), (3, 0))]
    assert torch.equal(learned[0].mean[:3], learned[2].mean) and not torch.equal(learned[0].mean, learned[1].mean)
    assert {n for n, _ in learned[0].named_parameters()} == {"mean", "logvar", "logits"}
    fixed = [prior_of(Mixture(learned=False), seed) for seed in (0, 1)]
    assert torch.equal(fixed[0].mean, fixed[1].mean) and not list(fixed[0].parameters())
    assert {n for n, _ in prior_of(Mixture(by="label")).named_parameters()} == {"mean", "logvar"}


def test_means_are_placed_by_scale_and_components_by_std():
    p = prior_of(Mixture(components=4000, scale=3.0, std=0.2), d=2)
    assert kstest(p.mean.detach().numpy().ravel() / 3.0, "norm").pvalue > 1e-3
    m = p(None, a_batch())
    torch.testing.assert_close(m.var, torch.full_like(m.var, 0.04))
    torch.testing.assert_close(m.log_w.exp().sum(), torch.ones((), dtype=F))


def test_a_circle_is_a_circle():
    mean = Mixture(components=6, means="circle", scale=2.0).build(4).mean
    torch.testing.assert_close(mean.norm(dim=-1), torch.full((6,), 2.0, dtype=F))
    torch.testing.assert_close((mean - mean.roll(1, 0)).norm(dim=-1), torch.full((6,), 2.0, dtype=F))  # a hexagon
    assert not mean[:, 2:].any()
    assert Mixture(components=3, means="circle", scale=2.0).build(1).mean.ravel().tolist() == [-2.0, 0.0, 2.0]


@pytest.mark.parametrize("by", ["none", "label"])
def test_gradients(by):
    prior, y = Mixture(components=3, by=by).build(2).to(F), torch.tensor([2, 0, 1, 1, 0])
    mu, var = some_q(5)
    mu, var, eps = mu.requires_grad_(), var.requires_grad_(), randn(5, 2, 2)

    def f(*_):
        p, q = prior(None, a_batch(y=y)), some_q(5)._replace(mu=mu, var=var)
        z = mu[:, None] + var.sqrt()[:, None] * eps
        return p.divergence(q, z), p.rate(q, z), p.log_prob(z)

    assert gradcheck(f, (mu, var, *prior.parameters()))


def test_a_float32_mixture_computes_in_the_dtype_of_float64_samples():
    m = a_mixture(3, 2)
    single = GaussianMixture(*(t.float() for t in m))
    z = randn(4, 2, seed=3)
    assert single.log_prob(z).dtype == F
    torch.testing.assert_close(single.log_prob(z), m.log_prob(z), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("by", ["none", "label"])
def test_evaluation_measures_in_float64_beside_the_surrogate(by):
    vae = Vae(Model(latent_dim=2, prior=Mixture(components=3, by=by)), (4,)).eval()
    batch = Batch(torch.rand(6, 4), Noise(0, 0, np.arange(6), Stream.EVALUATE), 6, samples=3, y=torch.arange(6) % 3)
    m = vae.measure(batch)
    assert m.rate.dtype == F and m.rate.shape == (6,) and m.divergence.shape == (6, 2 if by == "label" else 1)
    if by == "none":
        torch.testing.assert_close(m.rate, m.divergence.sum(-1))
    assert vae.sample(3).shape == (3, 4)  # from the marginal: no labels needed
