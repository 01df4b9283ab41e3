"""The diagonal Gaussian posterior against torch.distributions, and the addressed noise it is sampled with."""

import numpy as np
import torch

from distvae.batch import Batch, Noise
from distvae.posteriors import Gaussian
from distvae.posteriors.gaussian import NormalQ

F = torch.float64


def a_batch(n, **kw):
    return Batch(x=torch.zeros(n, 1), noise=Noise(3, 0, np.arange(n)), total=n, **kw)


def test_the_head_is_mean_and_log_variance_per_dimension():
    part = Gaussian()
    h = torch.randn(5, part.width(3), dtype=F)
    q = part.build(3)(h, a_batch(5))
    for d in range(3):
        assert torch.equal(q.mu[:, d], h[:, 2 * d])
        assert torch.equal(q.var[:, d], h[:, 2 * d + 1].exp())


def test_the_head_of_fewer_dimensions_is_a_prefix():
    h = torch.randn(5, 8, dtype=F)
    wide, narrow = (Gaussian().build(d)(h[:, : 2 * d], a_batch(5)) for d in (4, 2))
    assert torch.equal(wide.mu[:, :2], narrow.mu) and torch.equal(wide.var[:, :2], narrow.var)


def test_rsample_is_torchs_with_the_same_noise():
    q = NormalQ(torch.randn(4, 3, dtype=F, requires_grad=True), torch.rand(4, 3, dtype=F).requires_grad_())
    reference = torch.distributions.Normal(q.mu, q.var.sqrt())
    noise = Noise(3, 1, np.arange(4))
    eps = noise.normal(6, 3, q.mu)
    z = q.rsample(noise, 6)
    assert z.shape == (4, 6, 3)
    torch.testing.assert_close(z, reference.loc[:, None] + reference.scale[:, None] * eps)
    torch.testing.assert_close(q.log_prob(z), reference.log_prob(z.transpose(0, 1)).sum(-1).T)
    z.sum().backward()  # dz/dmu = 1, dz/dvar = eps / (2 sigma)
    torch.testing.assert_close(q.mu.grad, torch.full((4, 3), 6.0, dtype=F))
    torch.testing.assert_close(q.var.grad, (eps.sum(1) / (2 * q.var.sqrt())).detach())


def test_samples_have_the_posteriors_moments():
    q = NormalQ(torch.tensor([[1.5, -2.0]], dtype=F), torch.tensor([[0.25, 4.0]], dtype=F))
    z = q.rsample(Noise(0, 0, np.arange(1)), 20_000)[0]
    assert ((z.mean(0) - q.mu[0]).abs() < 4 * (q.var[0] / 20_000).sqrt()).all()
    assert ((z.var(0) / q.var[0] - 1).abs() < 4 * (2 / 20_000) ** 0.5).all()


def test_noise_is_by_example_not_by_place_and_in_the_dtype_asked_for():
    like = torch.zeros(1, dtype=F)
    whole = Noise(3, 7, np.arange(10)).normal(2, 3, like)
    rows = np.array([8, 1])
    assert torch.equal(Noise(3, 7, rows).normal(2, 3, like), whole[rows])
    half = Noise(3, 7, np.arange(10)).normal(2, 3, like.float())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, whole.float(), rtol=4 * 2.0**-23, atol=1e-6)  # as the kernels' normals
