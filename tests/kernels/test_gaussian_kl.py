"""gaussian_kl against torch.distributions, and against 50 digits where float64 itself cancels. Composite torch
operations: the back end changes nothing."""

import itertools
import math

import oracles
import pytest
import torch
from cases import agree, logvars, means, randn, same_bits, strided

from distvae.kernels import gaussian_kl


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 33), (2, 37, 130)])
@pytest.mark.parametrize("regime", ["usual", "every", "collapsed"])
def test_values_and_gradients_in_every_argument(shape, regime):
    k, _, d = shape
    scale = {"usual": 1.0, "every": None, "collapsed": 1e-4}[regime]
    mu, logvar = (
        (means(*shape), logvars(*shape)) if scale is None else (randn(*shape) * scale, randn(*shape, seed=1) * scale)
    )
    mu[..., 0] = 0.0
    prior_mu, prior_logvar = torch.zeros(k, 1, d), torch.zeros(k, 1, d)
    if regime != "collapsed":
        prior_mu, prior_logvar = randn(k, 1, d, seed=2), randn(k, 1, d, seed=3)
        prior_mu[..., 0] = 0.0  # where mu = prior_mu the prior is the upper one
    r = torch.linspace(0.0, 1.0, k) if regime != "collapsed" else torch.zeros(k)
    up = randn(*shape, seed=4)

    wide = [oracles.double(x) for x in (mu, logvar, r, prior_mu, prior_logvar)]
    wanted = oracles.binarized_kl(wide[0], wide[1].exp(), wide[2][:, None, None], wide[3], wide[4].exp())
    mine = [
        strided(x).requires_grad_() if x.dim() > 1 else x.requires_grad_()
        for x in (mu, logvar, r, prior_mu, prior_logvar)
    ]
    out = gaussian_kl(mine[0], mine[1], r=mine[2], prior_mu=mine[3], prior_logvar=mine[4])
    agree(out, wanted)
    which = [0, 1] if regime == "collapsed" else [0, 1, 3, 4]
    grads = torch.autograd.grad((out * up).sum(), [mine[i] for i in which])
    goals = torch.autograd.grad((wanted * up.double()).sum(), [wide[i] for i in which])
    for a, b in zip(grads, goals, strict=True):
        agree(a, b)


def test_the_gradient_of_r_and_second_derivatives_exist():
    args = [randn(2, 3, seed=s, dtype=torch.float64).requires_grad_() for s in (1, 2)]
    args += [torch.tensor([0.3, 0.7], dtype=torch.float64).requires_grad_()]
    args += [randn(2, 3, seed=s, dtype=torch.float64).requires_grad_() for s in (3, 4)]

    def kl(mu, logvar, r, prior_mu, prior_logvar):
        return gaussian_kl(mu, logvar, r=r, prior_mu=prior_mu, prior_logvar=prior_logvar)

    assert torch.autograd.gradcheck(kl, args)
    assert torch.autograd.gradgradcheck(kl, args)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_near_the_prior_it_keeps_its_relative_accuracy(dtype):
    sizes = [10.0**-e for e in range(9)] + [0.2499, 0.2501]
    mu = torch.tensor([0.0, 1e-5] * 2 * len(sizes), dtype=dtype)
    logvar = torch.tensor([s * x for x in sizes for s in (1, 1, -1, -1)], dtype=dtype).requires_grad_()
    kl = gaussian_kl(mu, logvar)
    (slope,) = torch.autograd.grad(kl.sum(), logvar)
    exact = [oracles.kl_of_50_digits(m, x) for m, x in zip(mu.tolist(), logvar.tolist(), strict=True)]
    exact = torch.tensor(exact, dtype=torch.float64)
    within = 8 * torch.finfo(dtype).eps
    agree(kl, exact[:, 0], within=within)  # element by element
    agree(slope, exact[:, 1], within=within)


def test_it_is_zero_at_the_prior_alone_and_nowhere_negative():
    mu, logvar = means(200, seed=1), logvars(200, seed=1)
    assert (gaussian_kl(mu, logvar, r=0.5) > 0).all()
    at = torch.tensor([-0.5, 0.5])
    assert not gaussian_kl(at, torch.zeros(2), r=0.5).any()
    assert not gaussian_kl(at + 2.0, torch.ones(2), r=0.5, prior_mu=2.0, prior_logvar=1.0).any()


def test_r_0_is_the_plain_kl_bit_for_bit():
    mu, logvar = means(3, 7, seed=2), logvars(3, 7, seed=2)
    same_bits(gaussian_kl(mu, logvar, r=0.0), gaussian_kl(mu, logvar))
    same_bits(gaussian_kl(mu, logvar, r=torch.zeros(3)), gaussian_kl(mu, logvar))


@pytest.mark.parametrize("dims", range(4))
def test_a_prior_with_fewer_axes_has_the_leading_ones(dims):
    mu, logvar, full = randn(2, 3, 4, seed=1), randn(2, 3, 4, seed=2), randn(2, 3, 4, seed=3).abs()
    x = full[(slice(None),) * dims + (0,) * (3 - dims)]  # [], [2], [2, 3], [2, 3, 4]
    spread = x.reshape(x.shape + (1,) * (3 - dims)).expand(2, 3, 4)
    for name in ("r", "prior_mu", "prior_logvar"):
        same_bits(gaussian_kl(mu, logvar, **{name: x}), gaussian_kl(mu, logvar, **{name: spread}))
        if not dims:
            same_bits(gaussian_kl(mu, logvar, **{name: x.item()}), gaussian_kl(mu, logvar, **{name: spread}))


def test_trials_are_alone_in_the_batch_nan_included():
    mu, logvar, r = randn(3, 33, 5, seed=1), randn(3, 33, 5, seed=2), torch.tensor([0.0, 0.4, 2.0])
    clean = gaussian_kl(mu, logvar, r=r)
    for k, each in enumerate(r):
        same_bits(gaussian_kl(mu[k], logvar[k], r=each), clean[k])
    mu[1, 2, 3] = math.nan
    out = gaussian_kl(mu, logvar, r=r)
    assert out[1, 2, 3].isnan()
    out[1, 2, 3] = clean[1, 2, 3]
    same_bits(out, clean)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_the_rounding_of_float32(dtype):
    mu, logvar = randn(33, 5, seed=1, dtype=dtype), randn(33, 5, seed=2, dtype=dtype)
    out = gaussian_kl(mu, logvar, r=0.3, prior_mu=0.1, prior_logvar=-0.2)
    assert out.dtype == dtype
    same_bits(out, gaussian_kl(mu.float(), logvar.float(), r=0.3, prior_mu=0.1, prior_logvar=-0.2).to(dtype))


@pytest.mark.parametrize("shape", [*itertools.permutations((0, 2, 3)), (0,), (1,)])
def test_any_shape_nothing_included(shape):
    assert gaussian_kl(torch.zeros(shape), torch.zeros(shape), r=0.1).shape == shape
