"""Densities of single dimensions: the prior's against its joint density integrated by scipy, the aggregated posterior's
against a sum of scipy's normals, the sphere's against what is known."""

from typing import get_args

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from distvae.batch import Noise
from distvae.nets import Mlp
from distvae.plots.marginals import aggregated_density, modes, prior_density
from distvae.posteriors.bernoulli import BernoulliQ
from distvae.posteriors.gaussian import NormalQ
from distvae.priors import Binarized, Mixture, Normal, Prior, UniformSphere, Vamp
from distvae.vae import Model, Vae

REAL = [kind() for kind in get_args(Prior) if kind().space == "real"]
MIXED = [Mixture(components=3, scale=2.0), Mixture(components=3, by="label", scale=2.0), Vamp(components=4)]
PRIORS = [*REAL, *MIXED, *(Binarized(r=1.5, over=over) for over in MIXED)]


def law(prior, d=2):
    """p(z) of a model that was not trained."""
    vae = Vae(Model(encoder=Mlp(hidden=(5,)), latent_dim=d, prior=prior), (1, 4, 4), seed=3, dtype=torch.float64)
    return vae.prior_for(Noise(0, 0, np.arange(0)))


@pytest.mark.parametrize("prior", PRIORS, ids=str)
def test_a_priors_marginal_is_its_joint_density_integrated(prior):
    p = law(prior)
    at = np.array([[-1.3, 0.4], [0.2, 2.1]])  # [G, D]
    got = prior_density(p, at)

    def joint(*z):
        with torch.no_grad():
            return float(p.log_prob(torch.tensor([z], dtype=torch.float64)).exp())

    for (z0, z1), both in zip(at, got, strict=True):
        first = quad(lambda t, z0=z0: joint(z0, t), -15, 15, limit=200)[0]
        second = quad(lambda t, z1=z1: joint(t, z1), -15, 15, limit=200)[0]
        assert both == pytest.approx([first, second], rel=1e-6)


@pytest.mark.parametrize(
    ("d", "exact"),
    [
        (1, lambda t: 1 / (np.pi * np.sqrt(1 - t**2))),  # a circle: the arcsine law
        (2, lambda t: 0.5 + 0 * t),  # Archimedes
        (3, lambda t: 2 / np.pi * np.sqrt(1 - t**2)),  # Wigner's semicircle
    ],
)
def test_a_coordinate_on_the_uniform_sphere(d, exact):
    t = np.array([-0.9, -0.2, 0.0, 0.7])
    got = prior_density(UniformSphere().build(d), np.repeat(t[:, None], d + 1, 1))
    assert got == pytest.approx(np.repeat(exact(t)[:, None], d + 1, 1), rel=1e-12)


def test_a_prior_whose_marginals_are_not_known_has_none():
    assert prior_density(object(), np.zeros((3, 2))) is None and modes(object(), 0) == []


def test_the_aggregated_posterior_is_the_mean_of_the_posteriors():
    rng = np.random.default_rng(0)
    mu, var = rng.normal(size=(7, 2)), rng.uniform(0.1, 2.0, size=(7, 2))
    grid = np.linspace(-3, 3, 11)[:, None] * np.ones(2)
    got = aggregated_density(NormalQ(torch.from_numpy(mu), torch.from_numpy(var)), grid)
    want = norm.pdf(grid[:, None], mu, np.sqrt(var)).mean(1)
    assert got == pytest.approx(want, rel=1e-9)
    assert aggregated_density(BernoulliQ(torch.zeros(2, 2)), grid) is None


def test_modes():
    assert modes(law(Normal()), 1) == [0.0] == modes(law(Binarized(r=0.0)), 0)
    assert modes(law(Binarized(r=1.5)), 0) == [-1.5, 1.5]
    means = law(MIXED[0]).mean[:, 1].tolist()
    assert modes(law(MIXED[0]), 1) == modes(law(MIXED[1]), 1) == sorted(means)
    both = sorted(m + s for m in means for s in (-1.5, 1.5))
    assert modes(law(Binarized(r=1.5, over=MIXED[0])), 1) == pytest.approx(both)
