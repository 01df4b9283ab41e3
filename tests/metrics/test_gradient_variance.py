"""Gradient variance of whole models: against numpy on gradients taken one by one, and in the order theory has."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from distvae.batch import Batch, Noise
from distvae.estimators import Enumerate, Pathwise, Score, StraightThrough
from distvae.metrics.gradient import gradient_variance
from distvae.nets import Mlp
from distvae.objectives import Elbo
from distvae.posteriors import Bernoulli, Delta, Du, Gaussian, VonMisesFisher
from distvae.priors import Bernoulli as BernoulliPrior
from distvae.priors import Normal, UniformSphere
from distvae.vae import Model, Vae

F = torch.float64
BITS = {"posterior": Bernoulli(), "prior": BernoulliPrior()}


def vae(estimator=None, posterior=BITS["posterior"], prior=BITS["prior"], dtype=F):
    net = Mlp(hidden=(4,))
    model = Model(encoder=net, latent_dim=3, posterior=posterior, prior=prior, estimator=estimator)
    return Vae(model, (1, 3, 3), seed=1, dtype=dtype)


def batch(n=6, samples=2, dtype=F):
    x = torch.rand(n, 1, 3, 3, dtype=F, generator=torch.Generator().manual_seed(0)).to(dtype)
    return Batch(x=x, noise=Noise(3, 100, np.arange(n)), total=n, samples=samples, step=2)


OBJECTIVE = Elbo(beta=0.7).build().to(F)


@pytest.mark.parametrize(
    ("posterior", "prior", "estimator"),
    [
        (Bernoulli(), BernoulliPrior(), Score()),
        (Gaussian(), Normal(), Pathwise()),
        (Du(p_keep=0.5), Normal(), Pathwise()),
        (VonMisesFisher(), UniformSphere(), Pathwise()),
    ],
    ids=lambda p: p.type,
)
def test_it_is_the_variance_of_the_gradients(posterior, prior, estimator):
    model, draws = vae(estimator, posterior, prior), 5
    rows = []
    for n in range(draws):
        b = replace(batch(), noise=replace(batch().noise, step=100 + n))
        model.zero_grad()
        (OBJECTIVE(model(b), b).mean()).backward()
        rows.append(np.concatenate([p.grad.numpy().ravel() for p in model.encoder.parameters()]))
    model.zero_grad()
    trace, square = gradient_variance(model, OBJECTIVE, batch(), draws)
    assert trace == pytest.approx(np.var(rows, axis=0, ddof=1).sum(), rel=1e-9)
    assert square == pytest.approx(np.square(rows).sum(1).mean(), rel=1e-9)
    assert trace > 0


def test_without_noise_it_is_0():
    for model, objective in (
        (vae(Enumerate()), OBJECTIVE),
        (vae(posterior=Delta(), prior=Normal()), Elbo(beta=0.0).build().to(F)),
    ):
        trace, square = gradient_variance(model, objective, batch(), 3)
        assert trace == 0.0 and square > 0


def test_the_order_of_the_estimators():
    """Four samples beat one by about 4, the baseline beats none, straight-through (biased) is lower still."""

    def trace(estimator, samples):
        return gradient_variance(vae(estimator), OBJECTIVE, batch(samples=samples), 80).trace

    one, four = trace(Score(), 1), trace(Score(), 4)
    assert 2.8 < one / four < 5.7
    baseline = trace(Score(baseline="leave_one_out"), 4)
    assert baseline < 0.1 * four
    assert trace(StraightThrough(), 4) < baseline


def test_it_leaves_everything_as_it_was():
    model = vae(posterior=Du(p_keep=0.5), prior=Normal()).eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        first = gradient_variance(model, OBJECTIVE, batch(), 3)
    assert not model.training and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert gradient_variance(model, OBJECTIVE, batch(), 3) == first


def test_float32_gradients_are_summed_in_float64():
    model = vae(Score(), dtype=torch.float32)
    single = gradient_variance(model, Elbo(beta=0.7).build(), batch(dtype=torch.float32), 20)
    assert single == pytest.approx(gradient_variance(vae(Score()), OBJECTIVE, batch(), 20), rel=1e-3)


def test_a_variance_needs_two_draws():
    with pytest.raises(ValueError, match="at least 2"):
        gradient_variance(vae(), OBJECTIVE, batch(), 1)
