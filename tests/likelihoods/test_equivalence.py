"""beta against sigma_x: the conversions by hand, by stationarity, and by the exact curve of a linear VAE (methods S4.3,
5.2.1)."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pixels import F, ask, built

from distvae.likelihoods import Gaussian
from distvae.likelihoods.equivalence import equivalent_sigma, kl_weight

CONVENTIONS = ("nll", "sse", "half_sse", "mean_mse")


def test_by_hand():
    """S4 at beta = 1: 2 sigma^2 (sse), sigma^2 (half), 2 sigma^2 / P (mean)."""
    assert kl_weight(1.0, 1.0, "sse") == 2.0 and kl_weight(3.0, 0.5, "sse") == 1.5 == kl_weight(3.0, 0.5)
    assert kl_weight(1.0, 0.5, "half_sse") == 0.25 and kl_weight(1.0, 0.5, "mean_mse", pixels=50) == 0.01
    assert kl_weight(4.0, 0.5, "nll") == 4.0
    assert equivalent_sigma(4.0, 0.5) == 1.0 and equivalent_sigma(1.0, 0.3) == pytest.approx(0.3)
    assert equivalent_sigma(2.0, convention="sse") == 1.0 and equivalent_sigma(4.0, convention="half_sse") == 2.0
    assert equivalent_sigma(0.02, convention="mean_mse", pixels=100) == 1.0
    assert equivalent_sigma(0.0, 0.5) == 0.0


def test_the_mean_over_pixels_asks_how_many():
    with pytest.raises(ValueError, match="pixels"):
        kl_weight(1.0, 1.0, "mean_mse")
    with pytest.raises(ValueError, match="pixels"):
        equivalent_sigma(1.0, convention="mean_mse")


@given(beta=st.floats(1e-3, 1e3), sigma=st.floats(1e-3, 1e3), pixels=st.integers(1, 10**6))
def test_there_and_back(beta, sigma, pixels):
    for c in CONVENTIONS:
        weight = kl_weight(beta, sigma, c, pixels=pixels)
        assert equivalent_sigma(weight, sigma, c, pixels=pixels) == pytest.approx(sigma * math.sqrt(beta))
        assert kl_weight(1.0, sigma * math.sqrt(beta), c, pixels=pixels) == pytest.approx(weight) or c == "nll"


def losses(y, x, kl, beta, sigma):
    """The same problem in five spellings: -log p + beta KL, the three squared errors, and beta = 1."""
    error = (y - x[:, None]).square()
    pixels = x.shape[1]
    other = equivalent_sigma(beta, sigma)
    return {
        "nll": ask(built(Gaussian(sigma=sigma), pixels), y, x).mean(1) + beta * kl,
        "beta 1": ask(built(Gaussian(sigma=other), pixels), y, x).mean(1) + kl,
        "sse": error.sum(-1).mean(1) + kl_weight(beta, sigma, "sse") * kl,
        "half_sse": 0.5 * error.sum(-1).mean(1) + kl_weight(beta, sigma, "half_sse") * kl,
        "mean_mse": error.mean(-1).mean(1) + kl_weight(beta, sigma, "mean_mse", pixels=pixels) * kl,
    }


@settings(max_examples=50, deadline=None, derandomize=True)
@given(beta=st.floats(0.05, 10), sigma=st.floats(0.1, 3), a=st.floats(-3, 3), x=st.floats(-3, 3))
def test_all_are_stationary_at_the_best_posterior_of_a_fixed_decoder(beta, sigma, a, x):
    """x = a z in two pixels: the best q(z|x) at fixed sigma, in closed form."""
    v = beta * sigma**2
    mu = torch.tensor([2 * a * x / (2 * a * a + v)], dtype=F, requires_grad=True)
    var = torch.tensor([v / (2 * a * a + v)], dtype=F, requires_grad=True)
    kl = 0.5 * (mu.square() + var - 1 - var.log())
    z = mu + var.sqrt() * torch.tensor([[-1.0], [1.0]], dtype=F)  # two points: exact for a quadratic
    y, target = (a * z).T[..., None].expand(1, 2, 2), torch.full((1, 2), x, dtype=F)
    for name, loss in losses(y, target, kl, beta, sigma).items():
        for g in torch.autograd.grad(loss.sum(), (mu, var), retain_graph=True):
            assert float(g) == pytest.approx(0.0, abs=1e-7 * (1 + 1 / v)), name


LAM = np.array([4.0, 2.0, 1.0, 0.25])  # variances of the data in four directions


def images():
    """Eight points with covariance diag(LAM), exactly: signs of a Hadamard matrix."""
    h = np.array([[1.0]])
    for _ in range(3):
        h = np.block([[h, h], [h, -h]])
    return torch.from_numpy(h[:, [1, 2, 4, 7]] * np.sqrt(LAM))


def trained(loss_of, dim=3):
    """(rate, squared error) per example of a linear VAE brought to its minimum: everything exact but the optimiser."""
    g = torch.Generator().manual_seed(0)
    x = images()
    v, w = (0.5 * torch.randn(*s, dtype=F, generator=g) for s in ((dim, 4), (4, dim)))
    rho = torch.zeros(dim, dtype=F)
    parameters = [t.requires_grad_() for t in (v, w, rho)]
    points = math.sqrt(dim) * torch.cat([torch.eye(dim, dtype=F), -torch.eye(dim, dtype=F)])  # exact for a quadratic

    def terms():
        mu, var = x @ v.T, rho.exp()
        kl = 0.5 * (mu.square() + var - 1 - rho).sum(-1)
        y = (mu[:, None] + var.sqrt() * points) @ w.T
        return y, kl

    optimizer = torch.optim.LBFGS(
        parameters, lr=1.0, max_iter=2000, tolerance_grad=1e-6, tolerance_change=1e-13, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        y, kl = terms()
        loss = loss_of(y, x, kl).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    y, kl = terms()
    return float(kl.mean().detach()), float((y - x[:, None]).square().sum(-1).mean().detach())


@pytest.mark.parametrize(("beta", "sigma"), [(0.4, 0.5), (6.0, 0.5), (3.0, 0.2)])
def test_beta_and_its_sigma_are_one_point_of_the_exact_curve(beta, sigma):
    """Reverse water-filling at theta = beta sigma^2, with three latents for four directions."""
    theta = beta * sigma**2
    kept = LAM[:3]
    rate = (0.5 * np.log(kept / theta)).clip(0).sum()
    error = np.minimum(kept, theta).sum() + LAM[3:].sum()
    names = ("nll", "beta 1", "sse", "half_sse", "mean_mse") if beta == 6.0 else ("nll", "beta 1")
    points = {n: trained(lambda y, x, kl, n=n: losses(y, x, kl, beta, sigma)[n]) for n in names}
    for name, point in points.items():
        assert point == pytest.approx((rate, error), rel=1e-4), name
    assert points["nll"] == pytest.approx(points["beta 1"], rel=1e-4)
