"""The whole VAE: gradients of parts and of their combinations against finite differences, the limits that must be the
plain VAE bit for bit, and evaluation against torch.distributions. (Every part of every union: test_conformance.py.)"""

import itertools
import math
from typing import get_args

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck
from torch.distributions import Normal as Reference
from torch.distributions import kl_divergence

from distvae.batch import Batch, Noise
from distvae.kernels.philox import Stream
from distvae.likelihoods import (
    Bernoulli,
    BitwiseCategorical,
    Categorical256,
    ContinuousBernoulli,
    Gaussian,
    Likelihood,
    LogisticMixture,
    StudentT,
)
from distvae.likelihoods.gaussian import Mode
from distvae.nets import Mlp, Net
from distvae.objectives import BetaInput, Capacity, Elbo, Objective, Terms
from distvae.posteriors import Du, Posterior
from distvae.posteriors import Gaussian as GaussianPosterior
from distvae.posteriors.gaussian import NormalQ
from distvae.priors import Binarized, Normal, Prior
from distvae.schedules import Linear
from distvae.vae import Model, Vae

F = torch.float64
X_SHAPE, D, S = (1, 2, 2), 2, 2

CASES = {
    Posterior: [GaussianPosterior(), Du(), Du(p_keep=0.6), Du(fixed_gamma=True)],
    Prior: [Normal(), Binarized(r=0.0), Binarized(r=0.5), Binarized(r=3.0)],
    Likelihood: [
        Bernoulli(),
        *(Gaussian(mode=m) for m in get_args(Mode)),
        ContinuousBernoulli(),
        *(StudentT(mode=m, nu=3.0, sigma=0.5) for m in ("fixed", "learned")),
        LogisticMixture(components=2),
        Categorical256(),
        BitwiseCategorical(),
    ],
    Objective: [
        Elbo(beta=0.7),
        Elbo(beta=2.0, schedule=Linear(steps=4)),
        BetaInput(schedule=Linear(steps=4)),
        *(Capacity(capacity=0.3, weight=2.0, reduction=r) for r in ("sample", "batch_mean", "batch_sum")),
    ],
    Net: [Mlp(hidden=(3,), activation=a) for a in ("tanh", "gelu", "silu")] + [Mlp(hidden=())],
}


def cases(union):
    return pytest.mark.parametrize("part", CASES[union], ids=repr)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=F, generator=torch.Generator().manual_seed(seed))


def a_batch(n=4, *, dtype=F, shape=X_SHAPE, latent=Stream.LATENT, rows=slice(None), **kw):
    x = torch.rand(n, *shape, dtype=F, generator=torch.Generator().manual_seed(0))
    x = ((255 * x).round() / 255).to(dtype)  # 8-bit pixels, for the likelihoods that are of bytes
    kw = {"total": n, "samples": S, "step": 2, **kw}
    return Batch(x=x[rows], noise=Noise(3, kw["step"], np.arange(n)[rows], latent), **kw)


def checked(f, *inputs, fast=False):
    """Finite differences against autograd, in float64, for every input that is learned; `fast`: in one direction."""
    inputs = tuple(t for t in inputs if t.requires_grad)
    assert inputs
    return gradcheck(lambda *_: f(), inputs, atol=1e-6, rtol=1e-4, fast_mode=fast)


# --- gradients --------------------------------------------------------------------------------------------------------


@cases(Posterior)
def test_gradients_of_the_posterior(part):
    head, h = part.build(D).to(F), randn(4, part.width(D)).requires_grad_()

    def f():
        q = head(h, a_batch())
        return q.mu, q.var, q.rsample(a_batch().noise, S)

    checked(f, h, *head.parameters())
    head.eval()
    checked(f, h, *head.parameters())


@cases(Prior)
def test_gradients_of_the_prior(part):
    prior = part.build(D, X_SHAPE).to(F)
    mu = (
        randn(6, D) + 0.2 * randn(6, D).sign()
    ).requires_grad_()  # away from 0, where |mu| has a kink; and off r sigma = 1
    var = torch.linspace(0.01, 3.7, 12, dtype=F).reshape(6, D).requires_grad_()
    z = randn(5, D, seed=2).requires_grad_()
    for f in (prior.divergence, prior.rate):
        checked(lambda f=f: f(NormalQ(mu, var), mu[:, None]), mu, var, *prior.parameters())
    checked(lambda: prior.log_prob(z), z, *prior.parameters())


@cases(Likelihood)
def test_gradients_of_the_likelihood(part):
    likelihood, batch = part.build(X_SHAPE).to(F), a_batch()
    y = randn(4, S, part.width(X_SHAPE)).requires_grad_()
    fast = y.numel() > 100
    for mode in (True, False):
        likelihood.train(mode)
        checked(lambda: likelihood.nll(y, batch.x.flatten(1), batch), y, *likelihood.parameters(), fast=fast)
    checked(lambda: likelihood.mean(y), y, fast=fast)


@cases(Objective)
def test_gradients_of_the_objective(part):
    objective = part.build().to(F)
    distortion = (5 + randn(4)).requires_grad_()
    divergence, z = (2 + randn(4, D, seed=1)).requires_grad_(), randn(4, D, seed=2)
    terms = Terms(distortion, divergence, NormalQ(z, z.exp()), z, Normal().build(D))
    batch = a_batch(beta=torch.linspace(0.1, 3.0, 4, dtype=F))
    checked(lambda: objective(terms, batch), distortion, divergence, *objective.parameters())


@cases(Net)
def test_gradients_of_the_net(part):
    encoder, decoder = part.encoder(X_SHAPE, 4).to(F), part.decoder(D, 4, X_SHAPE).to(F)
    x, z = randn(3, *X_SHAPE).requires_grad_(), randn(6, D).requires_grad_()
    checked(lambda: encoder(x), x, *encoder.parameters())
    checked(lambda: decoder(z), z, *decoder.parameters())


@pytest.mark.parametrize(
    ("posterior", "prior", "likelihood"),
    list(
        itertools.product(
            CASES[Posterior], CASES[Prior], [Bernoulli(), Gaussian(mode="learned"), Gaussian(mode="optimal")]
        )
    ),
    ids=lambda part: part.type,
)
def test_gradients_end_to_end(posterior, prior, likelihood):
    model = Model(
        encoder=Mlp(hidden=(3,), activation="tanh"),
        latent_dim=D,
        posterior=posterior,
        prior=prior,
        likelihood=likelihood,
    )
    vae, objective = Vae(model, X_SHAPE, seed=1, dtype=F), Elbo(beta=0.7).build().to(F)
    batch = a_batch()

    def f():
        return objective(vae(batch), batch).sum()

    parameters = [p for p in vae.parameters() if p.requires_grad]
    assert gradcheck(lambda *_: f(), parameters, atol=1e-6, rtol=1e-4, fast_mode=True)


# --- limits -----------------------------------------------------------------------------------------------------------


def step(model, objective=None, *, seed=5, warm=1.0):
    """Loss and every gradient of one float32 training step."""
    vae, objective = Vae(model, X_SHAPE, seed=seed), (objective or Elbo()).build().float()
    batch = a_batch(32, dtype=torch.float32, warm=warm)
    terms = vae(batch)
    loss = objective(terms, batch).mean()
    loss.backward()
    pair = torch.stack([terms.distortion.detach(), terms.divergence.detach().sum(-1)])
    return {"loss": loss.detach(), "terms": pair} | {
        name: p.grad for name, p in vae.named_parameters() if p.grad is not None
    }


def same(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("posterior", [GaussianPosterior(), Du(p_keep=0.7)], ids=repr)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_r_0_and_beta_1_is_the_plain_vae_bit_for_bit(posterior, seed):
    plain = step(Model(posterior=posterior), seed=seed)
    assert same(step(Model(posterior=posterior, prior=Binarized(r=0.0)), Elbo(beta=1.0), seed=seed), plain)
    assert torch.equal(plain["loss"], plain["terms"].sum(0).mean())
    assert not same(step(Model(posterior=posterior, prior=Binarized(r=0.5)), seed=seed), plain)
    assert not same(step(Model(posterior=posterior), Elbo(beta=0.5), seed=seed), plain)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_keeping_every_variance_is_du_without_dropout_bit_for_bit(seed):
    without = step(Model(posterior=Du(p_keep=0.4)), seed=seed, warm=0.0)
    assert same(step(Model(posterior=Du(p_keep=1.0)), seed=seed), without)
    assert not same(step(Model(posterior=Du(p_keep=0.4)), seed=seed), without)


def test_the_terms_are_monte_carlo_distortion_and_closed_form_kl():
    vae, grey = Vae(Model(latent_dim=D), X_SHAPE, dtype=F), a_batch()
    batch = Batch(grey.x.round(), grey.noise, grey.total, grey.samples)  # torch's Bernoulli wants binary pixels
    mu, logvar = vae.encoder(batch.x).unflatten(-1, (D, 2)).unbind(-1)
    q = Reference(mu, (0.5 * logvar).exp())
    z = q.loc[:, None] + q.scale[:, None] * batch.noise.normal(S, D, mu)
    log_p = torch.distributions.Bernoulli(logits=vae.decoder(z)).log_prob(batch.x.flatten(1)[:, None])
    terms = vae(batch)
    torch.testing.assert_close(terms.distortion, -log_p.sum(-1).mean(1))
    unit = Reference(torch.zeros((), dtype=F), torch.ones((), dtype=F))
    torch.testing.assert_close(terms.divergence, kl_divergence(q, unit))


@pytest.mark.parametrize(
    ("posterior", "likelihood"),
    [
        (GaussianPosterior(), Bernoulli()),
        (GaussianPosterior(), Gaussian(mode="learned")),
        (Du(p_keep=0.5), Bernoulli()),
    ],
)
def test_a_shards_rows_are_the_whole_batchs(posterior, likelihood):
    vae = Vae(Model(latent_dim=D, posterior=posterior, likelihood=likelihood), X_SHAPE, dtype=F)
    rows = np.array([6, 1, 3])
    if not posterior.whole_batch:
        one, two = vae(a_batch(8)), vae(a_batch(8, rows=rows))
        for a, b in zip((*one[:2], *one.q, one.z), (*two[:2], *two.q, two.z), strict=True):
            torch.testing.assert_close(a[rows], b)
    vae.eval()
    one, two = vae.measure(a_batch(8)), vae.measure(a_batch(8, rows=rows))
    for a, b in zip((*one[:-1], *one.q), (*two[:-1], *two.q), strict=True):
        torch.testing.assert_close(a[rows], b)


# --- evaluation -------------------------------------------------------------------------------------------------------


def test_measured_is_the_rate_to_the_normalised_prior_beside_the_surrogate():
    models = {r: Model(latent_dim=D, prior=Binarized(r=r)) for r in (0.0, 1.0)}
    out = {
        r: Vae(m, X_SHAPE, dtype=torch.float32).eval().measure(a_batch(dtype=torch.float32)) for r, m in models.items()
    }
    for r, m in out.items():
        assert all(t.dtype == F for t in (*m[:-1], *m.q))
        surrogate = m.divergence.sum(-1)
        assert (m.rate <= surrogate + D * math.log(2) + 1e-9).all()
        assert torch.equal(m.distortion, out[0.0].distortion) and torch.equal(m.mu, out[0.0].mu)
        if r == 0.0:
            torch.testing.assert_close(m.rate, surrogate)
    assert (out[1.0].rate - out[1.0].divergence.sum(-1)).abs().min() > 0.01  # the surrogate is not the rate


def test_evaluation_never_drops_and_changes_nothing():
    vae = Vae(Model(latent_dim=D, posterior=Du(p_keep=0.3)), X_SHAPE, dtype=F)
    vae(a_batch())  # moves the running statistics once
    vae.eval()
    before = {k: v.clone() for k, v in vae.state_dict().items()}
    one, two = (vae.measure(a_batch(step=s, latent=Stream.EVALUATE)) for s in (0, 1))
    assert torch.equal(one.rate, two.rate) and torch.equal(one.mu, two.mu)  # dropout would differ by step
    assert not torch.equal(one.distortion, two.distortion)  # the latent noise does
    assert all(torch.equal(v, before[k]) for k, v in vae.state_dict().items())


def test_mse_is_per_pixel_of_the_mean_image():
    vae = Vae(Model(latent_dim=D, likelihood=Gaussian(output="sigmoid", sigma=0.3)), X_SHAPE, dtype=F).eval()
    m = vae.measure(a_batch())
    torch.testing.assert_close(m.distortion, 4 / 2 * math.log(2 * math.pi * 0.09) + 4 * m.mse / (2 * 0.09))


def test_a_trained_models_doors_encode_decode_and_sample():
    vae = Vae(Model(latent_dim=D, posterior=Du()), X_SHAPE, dtype=F)
    x = a_batch().x
    q = vae.encode(x)
    assert q.mu.shape == (4, D) and vae.training  # the mode it was in
    assert not q.mu.requires_grad
    torch.testing.assert_close(vae.eval().measure(a_batch()).mu, q.mu)
    torch.testing.assert_close(vae.decode(q.mu), vae.decoder(q.mu).sigmoid().reshape(4, *X_SHAPE))
    assert vae.sample(3).shape == (3, *X_SHAPE) and vae.pixels() == 4
    torch.testing.assert_close(vae.sample(3), vae.sample(5)[:3])  # by address
    assert not torch.equal(vae.sample(3), vae.sample(3, seed=1))


def test_samples_come_from_the_prior():
    """A linear decoder of a binarized prior: both modes are there."""
    model = Model(
        encoder=Mlp(hidden=()), latent_dim=1, prior=Binarized(r=4.0), likelihood=Gaussian()
    )  # x = w z + b, one pixel
    vae = Vae(model, (1,), dtype=F)
    w, b = vae.decoder[0].weight.detach(), vae.decoder[0].bias.detach()
    z = ((vae.sample(4000) - b) / w).ravel().numpy()
    assert z.var() == pytest.approx(17.0, abs=1.0) and abs((z > 0).mean() - 0.5) < 0.04
    np.testing.assert_allclose(np.abs(z).mean(), 4.0, atol=0.1)


def test_hyper_parameters_are_buffers_in_the_trials_dtype_and_not_in_its_checkpoint():
    vae = Vae(Model(posterior=Du(p_keep=0.3), prior=Binarized(r=0.1)), X_SHAPE)
    buffers = dict(vae.named_buffers())
    assert {n: v.item() for n, v in buffers.items() if v.ndim == 0} == pytest.approx(
        {
            "posterior.gamma": 0.5,
            "posterior.p_keep": 0.3,
            "posterior.eps": 1e-5,
            "posterior.momentum": 0.1,
            "posterior.dims": 16.0,
            "prior.r": 0.1,
        }
    )
    assert all(t.dtype == torch.float32 for t in vae.state_dict().values())
    assert not any(n.endswith((".gamma", ".p_keep", ".r")) for n in vae.state_dict())
