"""The standard normal prior against torch.distributions."""

import numpy as np
import torch
from torch.distributions import Normal as Reference
from torch.distributions import kl_divergence

from distvae.batch import Noise
from distvae.kernels.philox import Stream
from distvae.posteriors.gaussian import NormalQ
from distvae.priors import Normal

F = torch.float64


def test_the_kl_is_torchs_per_dimension():
    q = NormalQ(3 * torch.randn(50, 4, dtype=F), torch.logspace(-8, 2, 200, dtype=F).reshape(50, 4))
    wanted = kl_divergence(Reference(q.mu, q.var.sqrt()), Reference(torch.zeros((), dtype=F), torch.ones((), dtype=F)))
    prior = Normal().build(4)
    torch.testing.assert_close(prior.divergence(q), wanted)
    torch.testing.assert_close(prior.rate(q), wanted)


def test_log_prob_is_torchs_and_samples_are_the_noise():
    z = torch.linspace(-9, 9, 40, dtype=F).reshape(10, 4)
    prior = Normal().build(4)
    torch.testing.assert_close(prior.log_prob(z), Reference(torch.zeros((), dtype=F), 1.0).log_prob(z).sum(-1))
    noise = Noise(3, 0, np.arange(10), Stream.SAMPLE)
    assert torch.equal(prior.sample(noise, z), noise.normal(1, 4, z)[:, 0])
    assert torch.equal(prior.locate(z), z)
