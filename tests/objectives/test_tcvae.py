"""beta-TCVAE: Chen et al.'s estimators by loops, the closed form of Gaussians, and the sum that is the KL."""

import math

import numpy as np
import pytest
import torch
from made import F, a_batch, leaves, loss_in_shards, loss_of, randn, terms_of, with_gradients
from scipy.special import logsumexp
from scipy.stats import norm
from torch.autograd import gradcheck

from distvae.objectives import Elbo
from distvae.objectives.tcvae import TcVae
from distvae.priors import Binarized, Mixture, Normal
from distvae.schedules import Linear


def parts_of(part, terms, batch):
    return [t.detach().numpy() for t in part.build().to(F).parts(terms, batch)]


def log_weights(sampling, m, n):
    """[m, m] log-weight of component j in q(z_i); Chen et al., Eq. 5 and Appendix C.2."""
    if sampling == "weighted":
        return np.full((m, m), -math.log(n * m))
    w = np.full((m, m), 1 / (m - 1))
    for i in range(m):
        w[i, i] = 1 / n
        w[i, (i + 1) % m] = (n - m + 1) / (n * (m - 1))
    return np.log(w)


@pytest.mark.parametrize("sampling", ["weighted", "stratified"])
def test_the_parts_are_chens_with_weights_counted_once(sampling):
    m, n, d = 9, 1000, 3
    terms = terms_of(*leaves(m, d))
    z, mu, sd = (t.detach().numpy() for t in (terms.z, terms.q.mu, terms.q.var.sqrt()))
    pair = norm.logpdf(z[:, None], mu[None], sd[None])  # [i, j, d]
    w = log_weights(sampling, m, n)
    joint = logsumexp(pair.sum(-1) + w, axis=1)
    marginals = logsumexp(pair + w[:, :, None], axis=1).sum(-1)
    given_x, prior = pair[np.arange(m), np.arange(m)].sum(-1), norm.logpdf(z).sum(-1)
    mi, tc, dwkl = parts_of(TcVae(sampling=sampling), terms, a_batch(m, dataset=n))
    np.testing.assert_allclose(mi, given_x - joint, rtol=1e-10)
    np.testing.assert_allclose(tc, joint - marginals, rtol=1e-10)
    np.testing.assert_allclose(dwkl, marginals - prior, rtol=1e-10)
    part = TcVae(beta=6.0, mi_weight=0.3, dimension_weight=1.4, sampling=sampling)
    loss = loss_of(part, terms, a_batch(m, dataset=n)) - terms.distortion
    np.testing.assert_allclose(loss.detach(), np.mean(0.3 * mi + 6 * tc + 1.4 * dwkl), rtol=1e-10)


@pytest.mark.parametrize("sampling", ["weighted", "stratified"])
@pytest.mark.parametrize("dataset", [0, 20, 500])
@pytest.mark.parametrize("prior", [Normal(), Binarized(r=0.7), Mixture(components=3)], ids=repr)
def test_the_parts_add_up_to_the_kl_of_one_sample(sampling, dataset, prior):
    p = prior.build(3).to(F)(None, a_batch(20))
    terms = terms_of(*leaves(20, 3), prior=p)
    mi, tc, dwkl = parts_of(TcVae(sampling=sampling), terms, a_batch(20, dataset=dataset))
    wanted = terms.q.log_prob(terms.z[:, None])[:, 0] - p.log_prob(terms.z)
    np.testing.assert_allclose(mi + tc + dwkl, wanted.detach(), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("sampling", ["weighted", "stratified"])
@pytest.mark.parametrize("beta", [1.0, 0.6])
def test_equal_weights_are_the_beta_vae_with_the_kl_of_one_sample(sampling, beta):
    inputs = leaves(15, 3)
    terms = terms_of(*inputs)
    one = (terms.q.log_prob(terms.z[:, None]) - terms.p.log_prob(terms.z[:, None])).detach()
    batch = a_batch(15, step=5, dataset=300)
    schedule = Linear(steps=10)
    part = TcVae(beta=beta, mi_weight=beta, dimension_weight=beta, sampling=sampling, schedule=schedule)
    elbo = loss_of(Elbo(beta=beta, schedule=schedule), terms._replace(divergence=one), batch)
    loss, *got = with_gradients(part, inputs, batch)
    assert float(loss.mean()) == pytest.approx(float(elbo.detach().mean()), rel=1e-12)
    kl = (terms.q.log_prob(terms.z[:, None])[:, 0] - terms.p.log_prob(terms.z)).sum()
    wanted = torch.autograd.grad(terms.distortion.sum() + 0.5 * beta * kl, inputs)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def correlated(n, rho, s):
    """Terms whose q(z) is close to N(0, [[1, rho], [rho, 1]] + s^2 I), and its closed form (MI, TC, DWKL)."""
    cov = np.array([[1, rho], [rho, 1]])
    mu = randn(n, 2) @ torch.from_numpy(np.linalg.cholesky(cov)).T
    terms = terms_of(torch.zeros(n, dtype=F), mu, torch.full_like(mu, 2 * math.log(s)))
    c = cov + s**2 * np.eye(2)
    v = c[0, 0]
    tc = -0.5 * math.log(np.linalg.det(c) / v**2)
    return terms, (0.5 * math.log(np.linalg.det(c) / s**4), tc, 2 * 0.5 * (v - 1 - math.log(v)))


def test_the_whole_split_gives_the_closed_form_of_a_correlated_gaussian():
    terms, wanted = correlated(1500, rho=0.9, s=0.5)
    with torch.no_grad():
        got = parts_of(TcVae(), terms, a_batch(1500, dataset=1500))
    for name, value, exact in zip(("mi", "tc", "dwkl"), got, wanted, strict=True):
        assert value.mean() == pytest.approx(exact, abs=4 * value.std() / math.sqrt(1500) + 0.02), name
    assert wanted[1] > 0.3


def test_independent_dimensions_have_no_total_correlation():
    terms, wanted = correlated(1500, rho=0.0, s=0.5)
    with torch.no_grad():
        _, tc, _ = parts_of(TcVae(), terms, a_batch(1500, dataset=1500))
    assert wanted[1] == pytest.approx(0.0, abs=1e-15)
    assert tc.mean() == pytest.approx(0.0, abs=4 * tc.std() / math.sqrt(1500) + 0.02)


def test_a_random_batchs_stratified_density_is_q_on_average():
    """q(z_0), with x_0 in the batch and the others drawn from the rest without replacement."""
    n, m = 30, 6
    terms = terms_of(*leaves(n, 2))
    exact = float(terms.q.log_prob(terms.z[:1].expand(n, 2)[:, None]).exp().mean().detach())
    estimates, part = [], TcVae(sampling="stratified").build().to(F)
    g = np.random.default_rng(0)
    with torch.no_grad():
        for _ in range(400):
            rows = np.concatenate([[0], 1 + g.permutation(n - 1)[: m - 1]])
            few = terms._replace(z=terms.z[rows], q=type(terms.q)(*(t[rows] for t in terms.q)))
            mi, _, _ = part.parts(few, a_batch(m, dataset=n))
            given_x = few.q.log_prob(few.z[:, None])[0, 0]
            estimates.append(float((given_x - mi[0]).exp()))
    estimates = np.array(estimates)
    assert estimates.mean() == pytest.approx(exact, abs=4 * estimates.std() / math.sqrt(400))


@pytest.mark.parametrize("sampling", ["weighted", "stratified"])
def test_a_batch_of_one_and_no_batch_are_no_crash(sampling):
    for dataset in (0, 1, 100):
        loss = loss_of(TcVae(sampling=sampling), terms_of(*leaves(1, 2)), a_batch(1, dataset=dataset))
        assert loss.isfinite().all()


@pytest.mark.parametrize("sampling", ["weighted", "stratified"])
def test_shards_give_the_whole_batch_and_gradients_are_right(sampling):
    inputs, part, batch = leaves(7, 2), TcVae(sampling=sampling), a_batch(7, dataset=50)
    terms = terms_of(*inputs)
    torch.testing.assert_close(loss_in_shards(part, terms, batch), loss_of(part, terms, batch))
    assert gradcheck(lambda *t: loss_of(part, terms_of(*t), batch), inputs)


def test_of_a_whole_split_no_example_tells_more_than_its_number():
    terms = terms_of(*leaves(40, 6))
    mi, _, _ = parts_of(TcVae(), terms, a_batch(40, dataset=40))
    assert mi.max() <= math.log(40) + 1e-12 and mi.max() > math.log(40) - 0.5
