"""IW-NLL on linear-Gaussian models, whose likelihood is known, and on parts of every kind at one sample, where it is the
ELBO by one draw."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from subjects import F, digits, linear, log_normal

import distvae
from distvae import posteriors, priors
from distvae.data import Digits
from distvae.likelihoods import Gaussian
from distvae.metrics import importance
from distvae.metrics.importance import IwNll, effective_samples, log_mean_weight, log_weights
from distvae.metrics.subject import Subject
from distvae.nets import Mlp
from distvae.trial import Evaluate, Train, Trial
from distvae.vae import Model

W = [[1.0, 0.5], [1.0, -0.5], [0.5, 0.5], [-0.5, 0.5]]  # orthogonal columns
SIGMA = 0.6


def exact(subject, w=W, sigma=SIGMA):
    """-log N(x; 0, W W' + s^2 I) of each test example."""
    w = np.asarray(w)
    law = multivariate_normal(np.zeros(len(w)), w @ w.T + sigma**2 * np.eye(len(w)))
    return -law.logpdf(subject.pixels("test").numpy())


def test_with_the_exact_posterior_every_number_of_samples_is_exact():
    subject = linear(W, SIGMA)
    for samples in (1, 3, 50):
        got = IwNll(samples=samples).measure(subject, "test")
        assert got["iw_nll_nats"] == pytest.approx(exact(subject).mean(), abs=1e-10)
        assert got["iw_nll_se"] == pytest.approx(exact(subject).std(ddof=1) / math.sqrt(60), abs=1e-10)
        assert got["iw_ess"] == pytest.approx(samples, rel=1e-9) and got["iw_samples"] == samples


def test_with_another_posterior_it_falls_to_the_likelihood():
    encoder = 0.8 * torch.tensor(W, dtype=F).T / SIGMA**2 / 8.0
    subject = linear(W, SIGMA, n=200, encoder=encoder, log_var=torch.tensor([-1.0, -0.5], dtype=F))
    truth = exact(subject).mean()
    got = [IwNll(samples=s).measure(subject, "test") for s in (1, 4, 16, 64, 4000)]
    nll = [g["iw_nll_nats"] for g in got]
    assert nll == sorted(nll, reverse=True)
    assert nll[0] - truth > 1.0 and 0.0 < nll[-1] - truth < 0.02
    for g, samples in zip(got, (1, 4, 16, 64, 4000), strict=True):
        assert 1.0 - 1e-9 <= g["iw_ess"] <= samples * (1 + 1e-9)
    assert got[-1]["iw_ess"] < 2000


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"posterior": posteriors.Du()},
        {"prior": priors.Binarized(r=1.5)},
        {"prior": priors.Mixture(components=4)},
        {"prior": priors.Mixture(by="label", means="circle", scale=2.0)},
        {"likelihood": Gaussian(sigma=0.3)},
        {"posterior": posteriors.Bernoulli(), "prior": priors.Bernoulli(p=0.3)},
        {"posterior": posteriors.Categorical(), "prior": priors.Categorical()},
    ],
    ids=str,
)
def test_at_one_sample_it_is_the_elbo_of_the_evaluation_passs_z(model):
    subject = digits(scale=2.0, **model)
    z, q, n = subject.latents("test"), subject.posterior("test"), len(subject.split("test"))
    elbo = -subject.measured("test").distortion + log_prior(model.get("prior"), subject, z) - log_posterior(q, z)
    got = IwNll(samples=1).measure(subject, "test")
    assert got["iw_nll_nats"] == pytest.approx(-float(elbo.mean()), abs=1e-9)
    assert got["iw_nll_se"] == pytest.approx(float(elbo.std()) / math.sqrt(n), abs=1e-9)
    assert got["iw_ess"] == pytest.approx(1.0)


def log_posterior(q, z):
    if hasattr(q, "var"):
        return log_normal(z, q.mu, q.var)
    p = q.logits.sigmoid() if isinstance(q, posteriors.bernoulli.BernoulliQ) else q.logits.softmax(-1)
    bits = torch.where(z > 0.5, p.log(), (1 - p).log())
    return bits.sum(-1) if isinstance(q, posteriors.bernoulli.BernoulliQ) else (z * p.log()).sum(-1)


@torch.no_grad()
def log_prior(prior, subject, z):
    """Of the normalised prior, by its definition."""
    if isinstance(prior, priors.Binarized):
        at = [log_normal(z[..., None], m * prior.r, 1.0) for m in (-1, 1)]
        return torch.stack(at).logsumexp(0).sub(math.log(2)).sum(-1)
    if isinstance(prior, priors.Mixture):
        p = subject.vae.prior
        each = log_normal(z[:, None], p.mean, p.logvar.exp())
        return (each + p.logits.log_softmax(0)).logsumexp(-1)
    if isinstance(prior, priors.Bernoulli):
        return (z * math.log(prior.p) + (1 - z) * math.log(1 - prior.p)).sum(-1)
    if isinstance(prior, priors.Categorical):
        return torch.full((len(z),), -math.log(3), dtype=F)
    return log_normal(z, 0.0, 1.0)


def test_bits_tend_to_the_sum_over_all_codes():
    subject = digits(scale=3.0, posterior=posteriors.Bernoulli(), prior=priors.Bernoulli(p=0.4))
    codes = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=F)] * 3)
    (batch,) = subject.batches("test", 500)
    nll = subject.vae.distortion(codes.expand(len(batch.x), -1, -1), batch).numpy()
    log_p = (codes * math.log(0.4) + (1 - codes) * math.log(0.6)).sum(-1).numpy()
    truth = -logsumexp(log_p - nll, axis=1).mean()
    assert IwNll(samples=3000).measure(subject, "test")["iw_nll_nats"] == pytest.approx(truth, abs=0.01)


def test_no_chunk_changes_it(monkeypatch):
    subject = digits(prior=priors.Mixture(components=4))
    whole = IwNll(samples=7).measure(subject, "test")
    for latents, outputs in ((1, 1), (50, 64 * 3), (2**20, 64 * 5)):
        monkeypatch.setattr(importance, "LATENTS", latents)
        monkeypatch.setattr(importance, "OUTPUTS", outputs)
        assert IwNll(samples=7).measure(subject, "test") == pytest.approx(whole, rel=1e-11)
    single = digits(dtype="float32", prior=priors.Mixture(components=4))
    assert IwNll(samples=7).measure(single, "test")["iw_nll_nats"] == pytest.approx(whole["iw_nll_nats"], rel=1e-5)


@pytest.mark.parametrize("kind", ["gaussian", "von_mises_fisher", "categorical"])
def test_the_first_samples_of_more_are_the_same(kind):
    more = {"von_mises_fisher": priors.UniformSphere(), "categorical": priors.Categorical()}
    part = next(p for p in posteriors.Posterior.__args__ if p().type == kind)()
    subject = digits(posterior=part, prior=more.get(kind, priors.Normal()))
    batch = next(subject.batches("test", 5))
    few, many = (log_weights(subject.vae, batch, s, outputs=o) for s, o in ((4, 64), (11, 10**6)))
    torch.testing.assert_close(many[:, :4], few, rtol=1e-12, atol=1e-12)
    assert many.dtype == F and many.shape == (5, 11)
    assert len(many[0].unique()) == (3 if kind == "categorical" else 11)


def test_sums_of_weights():
    log_w = torch.tensor([[0.0, math.log(3.0)], [-2000.0, -2000.0], [5.0, -1e5]])
    torch.testing.assert_close(
        log_mean_weight(log_w), torch.tensor([math.log(2.0), -2000.0, 5.0 - math.log(2.0)], dtype=F)
    )
    torch.testing.assert_close(effective_samples(log_w), torch.tensor([16 / 10, 2.0, 1.0], dtype=F))


def test_the_optimal_sigma_is_the_one_frozen_from_train(tmp_path):
    trial = Trial(
        data=Digits(),
        vae=Model(encoder=Mlp(hidden=(16,)), latent_dim=3, likelihood=Gaussian(mode="optimal")),
        train=Train(epochs=2),
        evaluate=Evaluate(every=2),
    )
    result = distvae.train(trial, out=tmp_path)
    again = distvae.train(trial, out=tmp_path)  # the kept weights
    rows = {r["split"]: r for r in result.rows.to_pylist()}
    var = rows["train"]["distortion_mse"]
    for vae in (result.model, again.model):
        subject = Subject(trial, vae)
        z, q, x = subject.latents("test"), subject.posterior("test"), subject.pixels("test").flatten(1).double()
        y = vae.decode(z).flatten(1).double()
        bound = log_normal(x, y, torch.tensor(var)) + log_normal(z, 0.0, 1.0) - log_normal(z, q.mu, q.var)
        got = IwNll(samples=1).measure(subject, "test")["iw_nll_nats"]
        assert got == pytest.approx(-float(bound.mean()), abs=1e-3)
        better = IwNll(samples=50).measure(subject, "test")["iw_nll_nats"]
        assert better < -rows["test"]["elbo_nats"]


def test_where_there_is_none_it_says_why():
    metric, delta = IwNll(), digits(posterior=posteriors.Delta())
    assert "delta posterior has no density" in metric.why_not(delta)
    fitted = digits(likelihood=Gaussian(mode="optimal_per_image"))
    assert "not a density of x" in metric.why_not(fitted)
    assert metric.why_not(digits()) is None
    names = [c.name for c in metric.columns(delta.trial)]
    assert names == list(replace(metric, samples=2).measure(digits(), "test"))
