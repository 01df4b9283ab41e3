"""Whole models with bits, one-hots, points and spheres: unbiased end to end, trainable in float32 and bfloat16, bounds
that are bounds, and combinations refused at load."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from distvae.batch import Batch, Noise
from distvae.estimators import Enumerate, GumbelSoftmax, Score, StraightThrough
from distvae.kernels.philox import Stream
from distvae.likelihoods import Gaussian as GaussianLikelihood
from distvae.nets import Mlp
from distvae.objectives import Elbo
from distvae.posteriors import Bernoulli, Categorical, Delta, VonMisesFisher
from distvae.priors import Bernoulli as BernoulliPrior
from distvae.priors import Categorical as CategoricalPrior
from distvae.priors import Normal, UniformSphere
from distvae.rules import refusals
from distvae.trial import Train, Trial
from distvae.vae import Model, Vae

F = torch.float64
BITS = {"posterior": Bernoulli(), "prior": BernoulliPrior(p=0.4)}
ONEHOT = {"posterior": Categorical(), "prior": CategoricalPrior()}
SPHERE = {"posterior": VonMisesFisher(), "prior": UniformSphere()}
POINT = {"posterior": Delta(), "prior": Normal()}
MODELS = [
    *({**space, "estimator": e} for space in (BITS, ONEHOT) for e in (None, GumbelSoftmax(), GumbelSoftmax(hard=True))),
    *({**space, "estimator": e} for space in (BITS, ONEHOT) for e in (StraightThrough(), Enumerate())),
    {**BITS, "estimator": Score(proposal="mixture", baseline="leave_one_out")},
    {**SPHERE, "estimator": None},
    {**SPHERE, "estimator": Score(baseline="leave_one_out")},
    {**POINT, "estimator": None},
]


def named(m):
    return f"{m['posterior'].type}-{getattr(m['estimator'], 'type', None)}"


def vae(parts, *, dtype=F, latent_dim=3, hidden=(8,)):
    return Vae(Model(encoder=Mlp(hidden=hidden), latent_dim=latent_dim, **parts), (1, 3, 3), seed=2, dtype=dtype)


def batch(x, *, step=0, samples=2, latent=Stream.LATENT):
    return Batch(x=x, noise=Noise(3, step, np.arange(len(x)), latent), total=len(x), samples=samples, step=step)


def two_images(n, dtype=F):
    """Two patterns, in turn."""
    x = torch.tensor([[1, 0, 1, 0, 1, 0, 1, 0, 1], [0, 1, 1, 1, 1, 0, 0, 0, 0]], dtype=dtype)
    return x[torch.arange(n) % 2].reshape(n, 1, 3, 3)


@pytest.mark.parametrize("space", [BITS, ONEHOT], ids=["bits", "onehot"])
@pytest.mark.parametrize("score", [Score(), Score(proposal="mixture", w=0.4, baseline="leave_one_out")], ids=repr)
def test_the_gradient_of_the_whole_model_is_unbiased(space, score):
    """One image under 4000 addresses: the mean gradient of every weight is that of enumeration, within its error."""
    n, exact, noisy = 4000, vae({**space, "estimator": Enumerate()}), vae({**space, "estimator": score})
    x = two_images(1)
    weights = lambda m: [*m.encoder.parameters(), *m.decoder.parameters()]  # noqa: E731

    def gradient(model, b):
        terms = model(b)
        loss = (terms.distortion + terms.divergence.sum(-1)).mean()
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights(model))])

    wanted = gradient(exact, batch(x))
    index = np.arange(n).reshape(20, -1)
    several = [
        gradient(noisy, replace(batch(x.expand(n // 20, -1, -1, -1)), noise=Noise(3, 0, rows))) for rows in index
    ]
    got = torch.stack(several)
    error = float((got.mean(0) - wanted).square().sum())
    expected = float(got.var(0).sum()) / 20  # E of the squared error, if unbiased
    assert error < 3 * expected < 0.1 * float(wanted.square().sum())


@pytest.mark.parametrize("parts", MODELS, ids=named)
def test_training_lowers_the_loss(parts):
    """In float32; with the nets in bfloat16 where the estimator is left out."""
    model = vae(parts, dtype=torch.float32)
    model.autocast = torch.bfloat16 if parts["estimator"] is None else None
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    x, losses = two_images(32, torch.float32), []
    objective = Elbo(beta=0.1 if model.model.posterior.density else 0.0).build()
    for step in range(40):
        b = batch(x, step=step)
        loss = objective(model(b), b).mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 1.0


@pytest.mark.parametrize("parts", [BITS, ONEHOT, {**BITS, "estimator": Enumerate()}, SPHERE], ids=lambda m: str(len(m)))
def test_the_bound_is_a_bound(parts):
    """-(rate + distortion) <= log p(x): the latter by enumeration, or on the sphere by many importance samples."""
    model = vae(parts, latent_dim=3).eval()
    x = two_images(40)
    m = model.measure(batch(x, samples=50, latent=Stream.EVALUATE))
    q = model.encode(x)
    prior = model.prior_at(batch(x))
    if hasattr(q, "support"):
        z = q.support().expand(40, -1, -1)
        log_w = prior.log_prob(z)
    else:
        z = q.rsample(Noise(9, 0, np.arange(40)), 2000)
        log_w = prior.log_prob(z) - q.log_prob(z) - math.log(2000)
    with torch.no_grad():
        nll = model.likelihood.nll(model._generate(z, None), x.flatten(1), batch(x))
    log_p = (log_w - nll).logsumexp(1)
    gap = log_p + m.rate + m.distortion
    assert m.rate.min() >= 0 and float(gap.mean()) > -4 * float(gap.std()) / math.sqrt(40)
    if isinstance(model.model.estimator, Enumerate):
        assert (gap > 0).all()  # no sampling error at all


def test_samples_of_the_prior_decode():
    for parts, code in ((BITS, 3), (ONEHOT, 3), (SPHERE, 4), (POINT, 3)):
        model = vae(parts)
        assert model.sample(5, seed=1).shape == (5, 1, 3, 3)
        assert model.model.posterior.code_dim(3) == code


def test_what_is_refused_at_load():
    def why(trial):
        return dict(refusals(trial))

    sigma = GaussianLikelihood(mode="optimal")
    for estimator, refused in ((Score(), True), (Enumerate(), True), (GumbelSoftmax(), False)):
        trial = Trial(vae=Model(likelihood=sigma, latent_dim=4, estimator=estimator, **BITS))
        assert ("vae.likelihood" in why(trial)) is refused
    trial = Trial(vae=Model(estimator=Score(baseline="leave_one_out"), latent_dim=4, **BITS))
    assert "2" in why(trial)["train.samples"]
    assert not why(replace(trial, train=Train(samples=2)))
    assert "uniform_sphere" in why(Trial(vae=Model(posterior=VonMisesFisher())))["vae.prior"]
    assert "objective" in why(Trial(vae=Model(posterior=Delta())))
    assert "2^16" in why(Trial(vae=Model(estimator=Enumerate(), **BITS)))["vae.estimator"]
