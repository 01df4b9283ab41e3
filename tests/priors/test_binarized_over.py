"""Binarized over a mixture: its surrogate and its normalised density, against enumeration and quadrature."""

import itertools
import math

import numpy as np
import pytest
import torch
from gaussians import F, a_mixture, exact_kl, grid, randn, reference, some_q
from scipy.stats import kstest, norm
from torch.autograd import gradcheck
from torch.distributions import Independent
from torch.distributions import Normal as Reference

from distvae.batch import Batch, Noise
from distvae.kernels import gaussian_kl, gaussian_mixture_kl
from distvae.kernels.philox import Stream
from distvae.objectives import Elbo
from distvae.priors import Binarized, Mixture, Normal, Vamp
from distvae.priors.binarized import BinarizedMixture
from distvae.priors.mixture import GaussianMixture, LabelledMixture
from distvae.trial import Trial
from distvae.vae import Model, Vae

Y = torch.tensor([2, 0, 1, 2, 2])


def over(base, r):
    return BinarizedMixture(base, torch.tensor(r, dtype=F))


def draws(q, s=6):
    return q.rsample(Noise(1, 0, np.arange(len(q.mu))), s)


def log_modes(m, r, z):
    """log p(z) by enumerating the 2^D modes of every component."""
    d = m.mean.shape[-1]
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=d)), dtype=F)
    parts = [Independent(Reference(m.mean + r * s, m.var.sqrt()), 1).log_prob(z[..., None, :]) + m.log_w for s in signs]
    return torch.stack(parts, -1).logsumexp((-1, -2)) - d * math.log(2)


# --- r = 0, and the default -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "base", [Mixture(components=3), Mixture(components=3, by="label"), Vamp(components=3)], ids=repr
)
def test_r_0_is_the_base_bit_for_bit(base):
    """One float32 step of training, a pass of evaluation and samples, initial state included."""
    out = []
    for prior in (base, Binarized(r=0.0, over=base), Binarized(r=0.5, over=base)):
        vae = Vae(Model(latent_dim=2, prior=prior), (4,), seed=5)
        x = torch.rand(16, 4, generator=torch.Generator().manual_seed(0))
        batch = Batch(x, Noise(1, 0, np.arange(16)), 16, samples=2, y=torch.arange(16) % 3)
        terms = vae(batch)
        Elbo().build().float()(terms, batch).mean().backward()
        gradients = {n.replace("prior.over.", "prior."): p.grad for n, p in vae.named_parameters()}
        m = vae.eval().measure(batch)
        values = {"divergence": terms.divergence, "rate": m.rate, "measured": m.divergence, "sample": vae.sample(9)}
        values["located"] = terms.p.locate(terms.z)
        out.append({**values, **gradients})
    assert out[0].keys() == out[1].keys()
    assert all(torch.equal(out[0][k], out[1][k]) for k in out[0])
    assert all(not torch.equal(out[0][k], out[2][k]) for k in ("divergence", "rate", "sample"))


def test_the_default_is_over_the_normal_and_keeps_its_trial_key():
    with_it = Trial(vae=Model(prior=Binarized(r=0.5, over=Normal())))
    assert with_it.key == Trial(vae=Model(prior=Binarized(r=0.5))).key == "81a4294b3fef351d"
    assert Trial(vae=Model(prior=Binarized(r=0.5, over=Mixture()))).key != with_it.key


def test_the_parts_facts_are_the_bases_but_for_the_surrogate():
    for base in (Normal(), Mixture(), Mixture(by="label"), Vamp()):
        part = Binarized(over=base)
        facts = (part.closed_form, part.factorised, part.labels)
        assert facts == (base.closed_form, base.factorised, base.labels)
        assert part.surrogate


# --- one standard component is the plain binarized prior --------------------------------------------------------------


@pytest.mark.parametrize("r", [0.3, 1.0, 3.0])
def test_over_one_standard_component_it_is_the_binarized_normal(r):
    m = GaussianMixture(torch.zeros(1, dtype=F), torch.zeros(1, 2, dtype=F), torch.ones(1, 2, dtype=F))
    p, plain, q = over(m, r), Binarized(r=r).build(2).to(F), some_q()
    z = draws(q)
    torch.testing.assert_close(p.log_prob(z), plain.log_prob(z))
    torch.testing.assert_close(p.locate(z), plain.locate(z))
    labelled = over(LabelledMixture(m, torch.zeros(5, dtype=torch.int64)), r)
    torch.testing.assert_close(labelled.divergence(q, z), plain.divergence(q, z))
    torch.testing.assert_close(exact_kl(q, p.log_prob, 96), plain.rate(q, z).sum(-1), atol=2e-3, rtol=1e-4)


# --- the surrogate ----------------------------------------------------------------------------------------------------


def test_training_shifts_every_component_towards_the_posterior():
    m, q, r = a_mixture(4, 2), some_q(), 0.8
    z, got = draws(q), over(m, r).divergence(q, draws(q))
    for i in range(5):
        sign = torch.where(q.mu[i] >= m.mean, 1.0, -1.0)  # Eq. 5, per component and dimension
        wanted = (q.log_prob(z)[i] - reference(m, r * sign).log_prob(z[i])).mean()
        torch.testing.assert_close(got[i, 0], wanted)


def test_by_label_it_is_the_closed_form_of_eq_4_with_the_components_variance():
    m, q, r = a_mixture(3, 2), some_q(), 0.8
    got = over(LabelledMixture(m, Y), r).divergence(q, draws(q))
    wanted = gaussian_kl(q.mu, q.var.log(), r=r, prior_mu=m.mean[Y], prior_logvar=m.var[Y].log())
    torch.testing.assert_close(got, wanted)


def test_the_sign_at_a_components_mean_is_plus():
    m, r = a_mixture(1, 1), torch.tensor(0.5, dtype=F)
    q = some_q(1, 1)._replace(mu=m.mean.clone(), var=m.var.clone())
    p = over(LabelledMixture(m, torch.zeros(1, dtype=torch.int64)), float(r))
    torch.testing.assert_close(p.divergence(q, q.mu[:, None]), 0.5 * r**2 / m.var)
    z = draws(q)
    wanted = (q.log_prob(z) - reference(m, r).log_prob(z)).mean(1, keepdim=True)
    torch.testing.assert_close(over(m, float(r)).divergence(q, z), wanted)
    moved = q._replace(mu=m.mean + r)  # on the mode: nothing to pay, whatever the variance's own units: r is absolute
    assert float(p.divergence(moved, moved.mu[:, None]).abs()) < 1e-15


# --- the normalised density -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("r", [0.0, 0.4, 3.0, 20.0])
def test_log_prob_is_that_of_all_the_modes(d, r):
    m, z = a_mixture(3, d), (1 + r) * randn(40, d, seed=5)
    torch.testing.assert_close(over(m, r).log_prob(z), log_modes(m, r, z), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("d", "n"), [(1, 8001), (2, 451)])
@pytest.mark.parametrize("r", [0.4, 3.0])
def test_it_integrates_to_1(d, n, r):
    z, cell = grid(-18, 18, n, d)
    assert float(over(a_mixture(3, d), r).log_prob(z).exp().sum() * cell) == pytest.approx(1.0, abs=1e-8)


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("r", [0.3, 1.5])
def test_the_rate_is_the_kl_to_it_by_quadrature(d, r):
    p, q, s = over(a_mixture(3, d), r), some_q(5, d), 4000
    z = draws(q, s)
    value = (q.log_prob(z) - p.log_prob(z)).numpy()
    rate = p.rate(q, z)[:, 0].numpy()
    wanted = exact_kl(q, p.log_prob, 80).numpy()
    assert (np.abs(rate - wanted) < 4.5 * value.std(1) / math.sqrt(s) + 1e-4).all()


@pytest.mark.parametrize("r", [0.0, 0.3, 1.0, 2.5])
def test_the_rate_is_at_most_the_surrogate_of_any_component_and_the_bits_it_takes_to_name_a_mode(r):
    """KL(q || p) <= KL_B to component k + D ln 2 - ln w_k, for every k (methods 5.2.3)."""
    m, q, d = a_mixture(3, 2), some_q(8), 2
    exact = exact_kl(q, over(m, r).log_prob, 80)
    for k in range(3):
        kl_b = over(LabelledMixture(m, torch.full((8,), k)), r).divergence(q, q.mu[:, None])
        assert (kl_b >= -1e-12).all()
        assert (exact <= kl_b.sum(-1) + d * math.log(2) - m.log_w[k] + 1e-3).all()
    assert (exact > 0).all()


def test_the_exact_rate_of_one_dimension_is_the_kernels():
    m = GaussianMixture(torch.zeros(1, dtype=F), torch.full((1, 1), 0.7, dtype=F), torch.full((1, 1), 1.0, dtype=F))
    q, r = some_q(5, 1), 0.9
    wanted = gaussian_mixture_kl(q.mu - 0.7, q.var.log(), r)[:, 0]
    torch.testing.assert_close(exact_kl(q, over(m, r).log_prob, 96), wanted, atol=1e-5, rtol=1e-5)


# --- samples and location ---------------------------------------------------------------------------------------------


def test_samples_are_of_all_the_modes_and_the_bases_draws_moved():
    n, m, r = 20_000, a_mixture(3, 2), 1.5
    noise, like = Noise(1, 0, np.arange(n), Stream.SAMPLE), torch.zeros((), dtype=F)
    p = over(m, r)
    z = p.sample(noise, like)
    torch.testing.assert_close((z - m.sample(noise, like)).abs(), torch.full_like(z, r))
    w, mean, sd = m.log_w.exp().numpy(), m.mean.numpy(), m.var.sqrt().numpy()
    for d in range(2):
        cdf = lambda t, d=d: sum(  # noqa: E731
            w[k] * 0.5 * (norm.cdf(t, mean[k, d] - r, sd[k, d]) + norm.cdf(t, mean[k, d] + r, sd[k, d]))
            for k in range(3)
        )
        assert kstest(z[:, d].numpy(), cdf).pvalue > 1e-3
    up = z > m.sample(noise, like)
    both = [float((up[:, 0] == a).logical_and(up[:, 1] == b).double().mean()) for a in (0, 1) for b in (0, 1)]
    np.testing.assert_allclose(both, 0.25, atol=4 * math.sqrt(0.25 * 0.75 / n))  # dimensions choose by themselves
    assert (
        abs(np.corrcoef(up[:, 0], noise.uniform(Stream.CHOICE, 1, like)[:, 0])[0, 1]) < 0.03
    )  # nor with the component


def test_location_is_relative_to_the_likeliest_component():
    mean = torch.tensor([[-10.0, 0.0], [10.0, 4.0]], dtype=F)
    m, r = GaussianMixture(torch.tensor([0.5, 0.5], dtype=F).log(), mean, torch.ones(2, 2, dtype=F)), 0.5
    z = torch.tensor([[[-9.0, -1.0], [9.0, 5.0]], [[10.0, 4.0], [-10.2, 0.1]]], dtype=F)
    wanted = torch.tensor([[[-9.5, -0.5], [9.5, 4.5]], [[9.5, 3.5], [-9.7, -0.4]]], dtype=F)
    torch.testing.assert_close(over(m, r).locate(z), wanted)
    assert over(m, r).base is m


@pytest.mark.parametrize("labelled", [False, True])
def test_gradients(labelled):
    mixture, r, eps = a_mixture(3, 2), torch.tensor(0.6, dtype=F), randn(5, 2, 2)
    leaves = [t.clone().requires_grad_() for t in (*some_q(), *mixture)]

    def f(*_):
        q, m = some_q()._replace(mu=leaves[0], var=leaves[1]), GaussianMixture(*leaves[2:])
        p = BinarizedMixture(LabelledMixture(m, Y) if labelled else m, r)
        z = q.mu[:, None] + q.var.sqrt()[:, None] * eps
        return p.divergence(q, z), p.rate(q, z), p.log_prob(z), p.locate(q.mu)

    assert gradcheck(f, leaves)


def test_narrow_components_lose_no_digits_in_float32():
    """cosh and exp of r^2 / v would cancel: 1e6 nats apart."""
    mean, var = torch.zeros(1, 1, dtype=F), torch.full((1, 1), 1e-6, dtype=F)
    m, r = GaussianMixture(torch.zeros(1, dtype=F), mean, var), 1.0
    z = torch.tensor([[1.0], [-1.0], [1.001], [0.0]], dtype=F)
    single = BinarizedMixture(GaussianMixture(*(t.float() for t in m)), torch.tensor(r))
    torch.testing.assert_close(single.log_prob(z.float()).double()[:3], log_modes(m, r, z)[:3], atol=2e-3, rtol=0)
    assert single.log_prob(z.float()).isfinite().all()


def test_the_gradient_vanishes_halfway_between_two_modes():
    m, z = a_mixture(1, 2), a_mixture(1, 2).mean.clone().requires_grad_()
    (g,) = torch.autograd.grad(over(m, 0.7).log_prob(z).sum(), z)
    assert float(g.abs().max()) < 1e-15
