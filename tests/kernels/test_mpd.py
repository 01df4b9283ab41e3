"""mpd against all pairs. A composite of torch operations: the back end changes nothing."""

import math

import oracles
import pytest
import torch
from cases import agree, logvars, means, randn, same_bits, strided

from distvae.kernels import mpd


@pytest.mark.parametrize("statistic", ["v", "u"])
@pytest.mark.parametrize(("n", "d"), [(2, 1), (3, 33), (65, 7), (40, 130)])
def test_it_is_the_mean_over_all_pairs(n, d, statistic):
    regimes = {
        "usual": (randn(n, d, seed=1), randn(n, d, seed=2)),
        "every": (means(n, d, seed=1), logvars(n, d, seed=1)),
        "nearly equal, far from 0": (1000.0 + 1e-2 * randn(n, d, seed=3), 1e-2 * randn(n, d, seed=4) - 12.0),
        "nearly collapsed": (1e-3 * randn(n, d, seed=5), 1e-3 * randn(n, d, seed=6)),
    }
    mu, logvar = (torch.stack(x) for x in zip(*regimes.values(), strict=True))
    wide, up = (oracles.double(mu), oracles.double(logvar)), randn(len(mu), seed=7)
    wanted = oracles.mpd(*wide, statistic)
    mu, logvar = strided(mu).requires_grad_(), strided(logvar).requires_grad_()
    out = mpd(mu, logvar, statistic=statistic)
    agree(out, wanted)
    grads = torch.autograd.grad((out * up).sum(), (mu, logvar))
    for a, b in zip(grads, torch.autograd.grad((wanted * up.double()).sum(), wide), strict=True):
        agree(a, b)


def test_it_is_the_papers_formula_with_1_taken_off_once_a_dimension():
    mu, logvar = randn(50, 4, seed=1, dtype=torch.float64), randn(50, 4, seed=2, dtype=torch.float64)
    var, apart = logvar.exp(), mu[:, None] - mu[None]  # S2, Eqs. 2-3
    twice = (apart.square() / var).mean((0, 1)) + var.mean(0) * (1 / var).mean(0) - 1
    agree(mpd(mu, logvar), 0.5 * twice.sum(), trials=False, within=1e-12)


def test_u_leaves_out_the_pairs_of_an_example_with_itself():
    mu, logvar = randn(5, 3, seed=1, dtype=torch.float64), randn(5, 3, seed=2, dtype=torch.float64)
    agree(mpd(mu, logvar, statistic="u"), mpd(mu, logvar) * 5 / 4, trials=False, within=1e-12)


def test_equal_posteriors_have_none():
    same = torch.full((7, 3), 0.3)
    assert abs(mpd(same, same).item()) < 1e-6
    assert abs(mpd(same[:1], same[:1]).item()) < 1e-6  # of one example, V


def test_leading_axes_are_alone_nan_included():
    mu, logvar = randn(2, 3, 20, 5, seed=1), randn(2, 3, 20, 5, seed=2)
    clean = mpd(mu, logvar)
    assert clean.shape == (2, 3)
    same_bits(mpd(mu[1, 2], logvar[1, 2]), clean[1, 2])
    mu[1, 0, 3, 4] = math.nan
    out = mpd(mu, logvar)
    assert out[1, 0].isnan()
    out[1, 0] = clean[1, 0]
    same_bits(out, clean)


def test_no_dimensions_no_divergence():
    assert mpd(torch.zeros(3, 0), torch.zeros(3, 0)).item() == 0.0
    assert mpd(torch.zeros(0, 3, 2), torch.zeros(0, 3, 2)).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_sums_in_more(dtype):
    mu, logvar = randn(500, 5, seed=1, dtype=dtype), randn(500, 5, seed=2, dtype=dtype)
    out = mpd(mu, logvar)
    assert out.dtype == dtype
    agree(out, oracles.mpd(mu.double(), logvar.double(), "v"), trials=False, within=torch.finfo(dtype).eps / 2)


def test_gradcheck():
    args = [randn(4, 3, seed=s, dtype=torch.float64).requires_grad_() for s in (1, 2)]
    assert torch.autograd.gradcheck(mpd, args) and torch.autograd.gradgradcheck(mpd, args)
