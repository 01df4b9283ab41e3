"""Each likelihood that claims a measure is one: densities integrate to 1 (quadrature, in one pixel and in two), masses
sum to 1 over the 256 values, binary ones over the binary images; and the mean is the expectation under them. Walks the
union, so a likelihood without a case fails."""

import itertools
from typing import get_args

import numpy as np
import pytest
import torch
from pixels import F, ask, built, every_byte, randn, some_bytes
from scipy.integrate import quad

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

CASES = [
    Bernoulli(),
    *(Gaussian(mode=m, sigma=0.3) for m in ("fixed", "learned", "optimal", "per_image", "per_pixel")),
    Gaussian(mode="per_pixel", sigma=0.05, output="sigmoid"),
    Gaussian(mode="optimal_per_image"),
    ContinuousBernoulli(),
    StudentT(sigma=0.2),
    StudentT(mode="learned", nu=1.5, sigma=0.1, output="sigmoid"),
    LogisticMixture(),
    LogisticMixture(components=1),
    LogisticMixture(components=3, log_scale_min=-3.0),
    LogisticMixture(components=2, log_scale_min=-20.0),
    Categorical256(),
    BitwiseCategorical(),
]
DENSITIES = [p for p in CASES if p.measure == "density"]
MASSES = [p for p in CASES if p.measure == "mass256"]
DTYPES = {F: 1e-9, torch.float32: 1e-5}  # how nearly 1


def test_every_likelihood_has_a_case_and_a_measure_of_the_four():
    assert {type(p) for p in CASES} == set(get_args(Likelihood))
    assert {p.measure for p in CASES} == {"binary", "density", "mass256", None}
    assert [p for p in CASES if p.measure is None] == [Gaussian(mode="optimal_per_image")]
    assert all(p.levels == (256 if p.measure == "mass256" else None) for p in CASES)
    assert {type(p) for p in CASES if p.unit} == {Bernoulli, ContinuousBernoulli}


def outputs(part, pixels, seed, dtype, scale=1.0):
    return (scale * randn(part.width((pixels,)), seed=seed)).to(dtype)


def evaluated(part, pixels, dtype):
    likelihood = built(part, pixels, dtype).eval()
    if part.calibrated:
        likelihood.calibrate(torch.tensor(0.09, dtype=dtype))
    return likelihood


# --- densities --------------------------------------------------------------------------------------------------------


def axis(part, n):
    """Nodes and weights `[n]` on the support: [0, 1], or the line by x = tan(pi t / 2) (heavy tails reach the ends)."""
    t, w = np.polynomial.legendre.leggauss(n)
    if part.unit:
        return (t + 1) / 2, w / 2
    return np.tan(0.5 * np.pi * t), w * 0.5 * np.pi / np.cos(0.5 * np.pi * t) ** 2


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("part", DENSITIES, ids=repr)
def test_a_density_integrates_to_one(part, seed, dtype):
    likelihood, y = evaluated(part, 1, dtype), outputs(part, 1, seed, dtype)
    centre = float(likelihood.mean(y[None])[0, 0].detach())

    def density(t):
        x = torch.tensor([[t]], dtype=dtype)
        return float(ask(likelihood, y.expand(1, 1, -1), x).double().neg().exp().detach())

    ends = (0.0, 1.0) if part.unit else (-np.inf, np.inf)
    total = sum(
        quad(density, *side, limit=200, epsabs=DTYPES[dtype])[0] for side in ((ends[0], centre), (centre, ends[1]))
    )
    assert total == pytest.approx(1.0, abs=3 * DTYPES[dtype])


@pytest.mark.parametrize("part", DENSITIES, ids=repr)
def test_two_pixels_integrate_to_one_and_to_the_mean(part):
    likelihood, y = evaluated(part, 2, F), outputs(part, 2, 5, F)
    nodes, weights = (torch.from_numpy(a) for a in axis(part, 500))
    x = torch.cartesian_prod(nodes, nodes)
    w = torch.cartesian_prod(weights, weights).prod(-1)
    p = w * ask(likelihood, y.expand(len(x), 1, -1), x)[:, 0].neg().exp().detach()
    heavy = isinstance(part, StudentT)
    assert float(p.sum()) == pytest.approx(1.0, abs=1e-6)
    if not heavy or part.nu > 3:  # by a symmetric rule, and a tail of x^-nu, nodes are too few for the mean at nu = 1.5
        torch.testing.assert_close((p[:, None] * x).sum(0), likelihood.mean(y).detach(), atol=1e-5, rtol=0)


# --- masses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("scale", [0.0, 1.0, 5.0, 30.0, 1e4], ids=lambda s: f"x{s:g}")
@pytest.mark.parametrize("part", MASSES, ids=repr)
def test_the_256_masses_sum_to_one_and_give_the_mean(part, scale, dtype):
    for seed in range(4):
        y = outputs(part, 1, seed, dtype, scale)
        likelihood = built(part, 1, dtype)
        log_p = -ask(likelihood, *every_byte(y))[:, 0].double()
        assert log_p.isfinite().all()
        p = log_p.exp()
        assert float(p.sum()) == pytest.approx(1.0, abs=1e-6)
        mean = float((p * torch.arange(256, dtype=F) / 255).sum())
        assert float(likelihood.mean(y)[0]) == pytest.approx(mean, abs=DTYPES[dtype])


@pytest.mark.parametrize("part", MASSES, ids=repr)
def test_pixels_and_samples_keep_to_themselves(part):
    """[B, S, W] parameter-major: a pixel's output is at its place whatever its neighbours are."""
    x, y = some_bytes(3, 2), randn(3, 2, part.width((2,)))
    alone = [ask(built(part, 1), y.unflatten(-1, (-1, 2))[..., i], x[:, i : i + 1]) for i in (0, 1)]
    torch.testing.assert_close(ask(built(part, 2), y, x), sum(alone))
    means = [built(part, 1).mean(y.unflatten(-1, (-1, 2))[..., i]) for i in (0, 1)]
    torch.testing.assert_close(built(part, 2).mean(y), torch.cat(means, -1))


def test_bernoulli_sums_to_one_over_binary_images():
    x = torch.tensor(list(itertools.product((0.0, 1.0), repeat=3)), dtype=F)
    p = ask(built(Bernoulli(), 3), (2 * randn(3)).expand(8, 1, -1), x)[:, 0].neg().exp()
    assert float(p.sum()) == pytest.approx(1.0, abs=1e-12)


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", CASES, ids=repr)
def test_extreme_outputs_stay_finite_with_their_gradients(part):
    """What a net in bfloat16 may put out, as float32."""
    x = some_bytes(6, 3).float()
    for scale in (0.0, 1e-3, 1.0, 1e2, 1e4):
        y = (scale * randn(6, 2, part.width((3,)), seed=1)).bfloat16().float().requires_grad_()
        likelihood = built(part, 3, torch.float32)
        value = ask(likelihood, y, x)
        assert value.dtype == torch.float32 and value.isfinite().all(), scale
        (grad,) = torch.autograd.grad(value.sum(), y)
        assert grad.isfinite().all(), scale
        assert likelihood.mean(y).isfinite().all() and likelihood.mean(y).shape == (6, 2, 3)


@pytest.mark.parametrize("part", CASES, ids=repr)
@pytest.mark.parametrize("scale", [0.0, 1.0, 8.0], ids=lambda s: f"x{s:g}")
def test_gradients_against_finite_differences(part, scale):
    x, likelihood = some_bytes(2, 2, seed=3), built(part, 2)
    y = (scale * randn(2, 2, part.width((2,)), seed=4)).requires_grad_()
    if scale == 0.0 and part.measure in (None, "density"):
        x = 0.2 + 0.5 * x  # off a perfect reconstruction
    inputs = (y, *likelihood.parameters())
    assert torch.autograd.gradcheck(lambda *_: ask(likelihood, y, x), inputs, atol=1e-6, rtol=1e-4, fast_mode=True)
    assert torch.autograd.gradcheck(lambda *_: likelihood.mean(y), (y,), atol=1e-6, rtol=1e-4, fast_mode=True)


@pytest.mark.parametrize("part", CASES, ids=repr)
def test_float32_is_float64_rounded(part):
    x = some_bytes(4, 3)
    y = randn(4, 2, part.width((3,)), seed=2)
    wide, narrow = ask(built(part, 3), y, x), ask(built(part, 3, torch.float32), y.float(), x.float())
    torch.testing.assert_close(narrow.double(), wide, atol=2e-5, rtol=2e-5)
