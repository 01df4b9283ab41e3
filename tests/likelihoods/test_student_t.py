"""Student-t pixels against scipy, and the Gaussian at its far end."""

import math

import mpmath
import numpy as np
import pytest
import torch
from pixels import F, ask, built, nll, randn
from scipy.stats import t as reference

from distvae.likelihoods import Gaussian, StudentT
from distvae.likelihoods.student_t import log_normaliser


def data():
    return randn(5, 3, 6), randn(5, 6, seed=1)  # y, x


@pytest.mark.parametrize("mode", ["fixed", "learned"])
@pytest.mark.parametrize("nu", [1.01, 2.0, 4.0, 30.0, 500.0])
@pytest.mark.parametrize("sigma", [0.01, 2.0])
def test_it_is_scipys_density(nu, sigma, mode):
    y, x = data()
    wanted = torch.from_numpy(-reference.logpdf(x[:, None].numpy(), nu, y.numpy(), sigma).sum(-1))
    torch.testing.assert_close(nll(StudentT(nu=nu, sigma=sigma, mode=mode), y, x).detach(), wanted)


def test_many_degrees_of_freedom_are_the_gaussian():
    y, x = data()
    wanted = nll(Gaussian(sigma=0.7), y, x)
    for nu, tol in ((1e4, 1e-2), (1e8, 1e-6), (1e15, 1e-9)):
        torch.testing.assert_close(nll(StudentT(nu=nu, sigma=0.7), y, x), wanted, rtol=tol, atol=0)
        narrow = nll(StudentT(nu=nu, sigma=0.7), y.float(), x.float())  # two ln Gamma of 1e16 would leave no digit
        torch.testing.assert_close(narrow.double(), wanted, rtol=max(tol, 1e-5), atol=0)


def test_the_normaliser_to_rounding():
    nu = np.array([1.001, 1.5, 7.0, 150.0, 199.9, 200.1, 1e3, 1e6, 1e12])
    with mpmath.workdps(50):
        wanted = [
            float(
                mpmath.loggamma(mpmath.mpf(v) / 2)
                - mpmath.loggamma((mpmath.mpf(v) + 1) / 2)
                + mpmath.log(v * mpmath.pi) / 2
            )
            for v in nu
        ]
    np.testing.assert_allclose(log_normaliser(torch.from_numpy(nu)).numpy(), wanted, rtol=1e-12)
    assert wanted[-1] == pytest.approx(0.5 * math.log(2 * math.pi))


def test_an_outlier_pulls_less_the_farther_it_is():
    """The heavy tail: the gradient of the mean falls off, where the Gaussian's grows."""
    y = torch.zeros(1, 1, 1, dtype=F, requires_grad=True)
    pull = []
    for far in (1.0, 10.0, 100.0):
        x = torch.tensor([[far]], dtype=F)
        (g,) = torch.autograd.grad(nll(StudentT(nu=3.0, sigma=0.1), y, x).sum(), y)
        pull.append(float(g.abs()))
    assert pull[0] > 9 * pull[1] > 81 * pull[2]


def test_the_mean_is_the_centre_and_a_learned_scale_fits():
    y, _ = data()
    torch.testing.assert_close(built(StudentT(), 6).mean(y), y)
    torch.testing.assert_close(built(StudentT(output="sigmoid"), 6).mean(y), 1 / (1 + (-y).exp()))
    x = torch.from_numpy(reference.rvs(4.0, scale=0.3, size=(2000, 1), random_state=0))
    likelihood = built(StudentT(nu=4.0, sigma=2.0, mode="learned"), 1)
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        ask(likelihood, torch.zeros(2000, 1, 1, dtype=F), x).mean().backward()
        optimizer.step()
    wanted = reference.fit(x.numpy().ravel(), fdf=4.0, floc=0.0)[2]
    scale = math.exp(-6 + math.log1p(math.exp(float(likelihood.raw.detach()))))
    assert scale == pytest.approx(wanted, rel=0.01) and scale == pytest.approx(0.3, rel=0.1)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"sigma: a learned sigma_x starts above 0.00248"):
        StudentT(mode="learned", sigma=1e-3)
