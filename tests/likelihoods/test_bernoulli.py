"""Bernoulli pixels against torch.distributions, and what cross-entropy means on grey ones."""

from itertools import product

import numpy as np
import torch
from torch.distributions import Bernoulli as Reference

from distvae.batch import Batch, Noise
from distvae.likelihoods import Bernoulli

F = torch.float64


def nll(y, x):
    batch = Batch(x=x, noise=Noise(0, 0, np.arange(len(x))), total=len(x))
    return Bernoulli().build((x.shape[1],)).nll(y, x, batch)


def test_binary_images_are_torchs_log_probability():
    x = (torch.rand(5, 7) < 0.5).to(F)
    y = 4 * torch.randn(5, 3, 7, dtype=F)
    torch.testing.assert_close(nll(y, x), -Reference(logits=y).log_prob(x[:, None].expand_as(y)).sum(-1))


def test_grey_images_are_the_expectation_over_binary_draws():
    x, y = torch.rand(4, 6, dtype=F), torch.randn(4, 2, 6, dtype=F)
    expected = torch.zeros(4, 2, dtype=F)
    for bits in product((0.0, 1.0), repeat=6):  # every one of the 64 binary images
        b = torch.tensor(bits, dtype=F).expand(4, 6)
        weight = Reference(probs=x).log_prob(b).sum(-1).exp()
        expected -= weight[:, None] * Reference(logits=y).log_prob(b[:, None].expand_as(y)).sum(-1)
    torch.testing.assert_close(nll(y, x), expected)


def test_its_mean_is_the_probability_and_its_measure_is_of_binary_images():
    y = torch.randn(4, 2, 6, dtype=F)
    torch.testing.assert_close(Bernoulli().build((6,)).mean(y), Reference(logits=y).mean)
    assert Bernoulli().measure == "binary" and not Bernoulli().whole_batch and not Bernoulli().calibrated
    assert Bernoulli().width((1, 2, 3)) == 6


def test_extreme_logits_stay_finite():
    y = torch.tensor([[[1e4, -1e4]]], dtype=F)
    torch.testing.assert_close(nll(y, torch.tensor([[1.0, 0.0]], dtype=F)), torch.zeros(1, 1, dtype=F))
    torch.testing.assert_close(nll(y, torch.tensor([[0.0, 1.0]], dtype=F)), torch.full((1, 1), 2e4, dtype=F))
