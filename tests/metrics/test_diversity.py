"""MPD over all pairs and over distinct ones, and the entropy, by torch.distributions on trained and hand-made posteriors."""

import math

import pytest
import torch
from subjects import digits
from torch.distributions import Normal, kl_divergence

from distvae import posteriors
from distvae.metrics.diversity import Diversity


@pytest.mark.parametrize("posterior", [posteriors.Gaussian(), posteriors.Du(gamma=0.7)], ids=lambda p: p.type)
def test_it_is_the_mean_over_pairs(posterior):
    subject, metric = digits(scale=3.0, posterior=posterior), Diversity()
    q, n = subject.posterior("test"), len(subject.split("test"))
    a, b = (Normal(q.mu[i], q.var[i].sqrt()) for i in ((slice(None), None), (None, slice(None))))
    pairs = kl_divergence(a, b).sum(-1)
    got = metric.measure(subject, "test")
    assert list(got) == [c.name for c in metric.columns(subject.trial)]
    assert got["mpd_nats"] == pytest.approx(float(pairs.mean()), rel=1e-9) and got["mpd_nats"] > 0.05
    apart = pairs[~torch.eye(n, dtype=torch.bool)]
    assert got["mpd_distinct_nats"] == pytest.approx(float(apart.mean()), rel=1e-9)
    entropy = Normal(q.mu, q.var.sqrt()).entropy().sum(-1).mean()
    assert got["conditional_entropy_nats"] == pytest.approx(float(entropy), rel=1e-9)
    if posterior.type == "du":  # the variance floor 1 / (2 pi e) is where a Gaussian's entropy is 0
        assert got["conditional_entropy_nats"] > 0 and float(q.var.min()) > 1 / (2 * math.pi * math.e)


def test_of_gaussians_only():
    assert Diversity().why_not(digits()) is None
    for posterior in (posteriors.Delta(), posteriors.Bernoulli()):
        assert posterior.type in Diversity().why_not(digits(posterior=posterior))
