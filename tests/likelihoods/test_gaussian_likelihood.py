"""Gaussian pixels against scipy, and the six homes of sigma_x (S4)."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from distvae.batch import Batch, Noise
from distvae.likelihoods import Gaussian
from distvae.likelihoods.gaussian import MSE_MIN

F = torch.float64


def a_batch(x, total=None, **kw):
    return Batch(x=x, noise=Noise(0, 0, np.arange(len(x))), total=total or len(x), **kw)


def build(pixels=6, **kw):
    return Gaussian(**kw).build((pixels,)).to(F)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=F, generator=torch.Generator().manual_seed(seed))


def data(b=5, s=3, p=6):
    return randn(b, s, p), randn(b, p, seed=1)  # y, x


def logpdf(x, y, sigma):
    """-log p(x|y) `[B, S]` by scipy."""
    return torch.from_numpy(-norm.logpdf(x[:, None].numpy(), y.numpy(), sigma).sum(-1))


@pytest.mark.parametrize("sigma", [0.01, 1.0, 3.0])
def test_fixed_sigma_is_scipys_density(sigma):
    y, x = data()
    torch.testing.assert_close(build(sigma=sigma).nll(y, x, a_batch(x)), logpdf(x, y, sigma))


@pytest.mark.parametrize("kw", [{"sigma": 0.3}, {"mode": "learned", "sigma": 0.3}])
def test_the_density_integrates_to_one(kw):
    likelihood, y = build(1, **kw), torch.tensor([[[0.2]]], dtype=F)

    def density(t):
        x = torch.tensor([[t]], dtype=F)
        return float(likelihood.nll(y, x, a_batch(x)).neg().exp().detach())

    assert quad(density, -4, 0.2)[0] + quad(density, 0.2, 4)[0] == pytest.approx(1.0, abs=1e-9)


def test_a_sigmoid_output_bounds_the_mean():
    y, x = data()
    likelihood = build(output="sigmoid", sigma=0.5)
    torch.testing.assert_close(likelihood.nll(y, x, a_batch(x)), logpdf(x, y.sigmoid(), 0.5))
    torch.testing.assert_close(likelihood.mean(y), 1 / (1 + (-y).exp()))


# --- learned ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.003, 0.1, 1.0, 20.0])
def test_learned_sigma_starts_at_sigma(sigma):
    y, x = data()
    likelihood = build(mode="learned", sigma=sigma)
    torch.testing.assert_close(likelihood.nll(y, x, a_batch(x)).detach(), logpdf(x, y, sigma))


def test_learned_sigma_is_stationary_at_the_root_mean_squared_error():
    y, x = data()
    rms = float((y - x[:, None]).square().mean().sqrt())
    for start, sign in ((rms, 0), (0.5 * rms, -1), (2 * rms, 1)):  # too small grows, too large shrinks
        likelihood = build(mode="learned", sigma=start)
        likelihood.nll(y, x, a_batch(x)).mean().backward()
        assert float(likelihood.raw.grad) == pytest.approx(0, abs=1e-9) if sign == 0 else likelihood.raw.grad * sign > 0


def test_learned_sigma_cannot_fall_below_its_floor():
    likelihood = build(mode="learned")
    with torch.no_grad():
        likelihood.raw.fill_(-1e3)
    assert float(likelihood.variance().detach()) == pytest.approx(math.exp(-12))


@pytest.mark.parametrize("sigma", [math.exp(-6), 1e-3])
def test_a_learned_sigma_cannot_start_below_its_floor(sigma):
    with pytest.raises(ValueError, match=r"sigma: .* above 0.00248 .* mode: fixed"):
        Gaussian(mode="learned", sigma=sigma)
    assert Gaussian(mode="fixed", sigma=sigma).sigma == sigma


# --- optimal ----------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None, derandomize=True)
@given(sigma=st.floats(1e-2, 1e2), scale=st.floats(0.01, 10), seed=st.integers(0, 9))
def test_no_fixed_sigma_beats_the_optimal_one(sigma, scale, seed):
    y, x = scale * randn(5, 3, 6, seed=seed), randn(5, 6, seed=seed + 10)
    best = build(mode="optimal").nll(y, x, a_batch(x)).mean()
    assert float(best) <= float(build(sigma=sigma).nll(y, x, a_batch(x)).mean()) + 1e-9


def test_the_optimal_variance_is_the_mse_not_its_root():
    y, x = data()
    mse = (y - x[:, None]).square().mean()
    nll = build(mode="optimal").nll(y, x, a_batch(x))
    torch.testing.assert_close(nll.mean(), 6 / 2 * ((2 * math.pi * mse).log() + 1))
    torch.testing.assert_close(nll, logpdf(x, y, float(mse.sqrt())))
    assert float(nll.mean()) < float(logpdf(x, y, float(mse.sqrt().sqrt())).mean())


def test_the_gradient_flows_through_the_optimal_sigma():
    y, x = data()
    y = y.requires_grad_()
    nll = build(mode="optimal").nll(y, x, a_batch(x))
    (other,) = torch.autograd.grad(nll[0].sum(), y)  # image 0's loss feels image 1's error, through sigma* alone
    assert other[1].abs().max() > 1e-3


def test_two_shards_share_the_whole_batchs_sigma():
    y, x = data()
    wanted = build(mode="optimal").nll(y, x, a_batch(x))[:2]
    rest = (y[2:] - x[2:, None]).square().sum(-1).mean(1)
    shard = a_batch(x[:2], total=5, gather=lambda t: torch.cat([t, rest]))
    torch.testing.assert_close(build(mode="optimal").nll(y[:2], x[:2], shard), wanted)


def test_evaluation_uses_the_frozen_sigma_not_the_examples_it_judges():
    y, x = data()
    likelihood = build(mode="optimal").eval()
    likelihood.calibrate(torch.tensor(0.49, dtype=F))
    torch.testing.assert_close(likelihood.nll(y, x, a_batch(x)), logpdf(x, y, 0.7))
    torch.testing.assert_close(likelihood.nll(y[:1], x[:1], a_batch(x[:1])), logpdf(x[:1], y[:1], 0.7))
    assert Gaussian(mode="optimal").calibrated and Gaussian(mode="optimal").whole_batch
    saved = likelihood.state_dict()
    assert float(saved["frozen_var"]) == 0.49  # a checkpoint keeps it


def test_a_perfect_reconstruction_is_finite():
    x = randn(4, 6)
    y = x[:, None].clone().requires_grad_()
    for mode in ("optimal", "optimal_per_image"):
        nll = build(mode=mode).nll(y, x, a_batch(x))
        torch.testing.assert_close(nll, torch.full((4, 1), 3 * math.log(2 * math.pi * MSE_MIN), dtype=F))
        assert torch.autograd.grad(nll.sum(), y)[0].isfinite().all()


def test_per_image_sigma_is_each_images_mse_and_no_density():
    y, x = data()
    mse = (y - x[:, None]).square().mean(-1)
    for training in (True, False):
        nll = build(mode="optimal_per_image").train(training).nll(y, x, a_batch(x))
        torch.testing.assert_close(nll, 3 * ((2 * math.pi * mse).log() + 1))
    normalised = ("fixed", "learned", "optimal", "per_image", "per_pixel")
    assert Gaussian(mode="optimal_per_image").measure is None
    assert all(Gaussian(mode=m).measure == "density" for m in normalised)


# --- from the decoder -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["per_image", "per_pixel"])
def test_sigma_from_the_decoder_is_scipys_density(mode):
    y, x = data()
    h = randn(5, 3, 6, seed=2)
    likelihood = build(mode=mode, sigma=0.4)
    assert Gaussian(mode=mode).width((1, 2, 3)) == 12
    raw = h if mode == "per_pixel" else h.mean(-1, keepdim=True)
    start = math.log(math.expm1(math.log(0.4) + 6))
    sigma = (-6 + (raw + start).exp().log1p()).exp().numpy()  # softplus with the floor, from 0.4 at an output of 0
    torch.testing.assert_close(likelihood.nll(torch.cat([y, h], -1), x, a_batch(x)), logpdf(x, y, sigma))
    torch.testing.assert_close(likelihood.mean(torch.cat([y, h], -1)), y)
    at_0 = likelihood.nll(torch.cat([y, 0 * h], -1), x, a_batch(x))
    torch.testing.assert_close(at_0, logpdf(x, y, 0.4))
    floor = likelihood.nll(torch.cat([y, 0 * h - 1e3], -1), x, a_batch(x))
    torch.testing.assert_close(floor, logpdf(x, y, math.exp(-6)))
    with pytest.raises(ValueError, match=rf"sigma: a {mode} sigma_x starts above 0.00248"):
        Gaussian(mode=mode, sigma=1e-3)


def test_an_images_sigma_is_of_its_code_not_of_its_pixels():
    """What `optimal_per_image` does wrong: here x does not move sigma_x, so it is a density."""
    likelihood, y = build(2, mode="per_image"), randn(1, 1, 4)
    scales = []
    for x in (torch.zeros(1, 2, dtype=F), torch.ones(1, 2, dtype=F)):
        z = y.clone().requires_grad_()
        (g,) = torch.autograd.grad(likelihood.nll(z, x, a_batch(x)).sum(), z)
        scales.append((g[..., :2] / (y[..., :2] - x)).ravel())  # 1 / sigma^2
    torch.testing.assert_close(*scales)


# --- optimal sigma, by optimisation (methods 5.2.5) -------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["learned", "per_image", "per_pixel"])
def test_a_trained_sigma_is_the_root_mean_squared_error(mode):
    """Of everything, of the image, of the pixel (over its samples): within 1%."""
    y, x = randn(4, 50, 6), randn(4, 6, seed=1)
    error = (y - x[:, None]).square()
    wanted = error.mean() if mode == "learned" else error.mean((1, 2) if mode == "per_image" else 1)
    likelihood = build(mode=mode, sigma=3.0)
    h = torch.zeros(4, 1, 6, dtype=F, requires_grad=True)  # the decoder's second map
    parameters = list(likelihood.parameters()) or [h]
    optimizer = torch.optim.Adam(parameters, lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        both = y if mode == "learned" else torch.cat([y, h.expand(-1, 50, -1)], -1)
        likelihood.nll(both, x, a_batch(x)).mean().backward()
        optimizer.step()
    if mode == "learned":
        got = likelihood.variance().detach()
    else:
        raw = h.detach()[:, 0] if mode == "per_pixel" else h.detach().mean((1, 2))
        got = (2 * (-6 + torch.nn.functional.softplus(raw + math.log(math.expm1(math.log(3.0) + 6))))).exp()
    torch.testing.assert_close(got, wanted, rtol=0.01, atol=0)
