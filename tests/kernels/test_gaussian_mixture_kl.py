"""gaussian_mixture_kl against the integral of q ln(q / p), and its limits."""

import itertools
import math

import numpy as np
import oracles
import pytest
import torch
from cases import agree, logvars, means, randn, same_bits, strided
from scipy.integrate import quad
from scipy.stats import norm

from distvae.kernels import gaussian_kl, gaussian_mixture_kl

R = (0.0, 1e-3, 0.1, 0.5, 1.0, 2.0, 30.0)  # one per trial


def hard(b, d):
    """`[K, B, D]`: every r once with usual posteriors, once with sigma 1e-3 to 1e2 and |mu| to 1e3, once with those
    that a trained model has, narrow and next to one of the modes, where terms of the size of r cancel."""
    usual = [(randn(b, d, seed=k), randn(b, d, seed=50 + k)) for k in range(len(R))]
    every = [(means(b, d, seed=k), logvars(b, d, seed=k)) for k in range(len(R))]
    settled = [(mode(r, b, d) + 1e-2 * randn(b, d, seed=k), randn(b, d, seed=50 + k) - 4.0) for k, r in enumerate(R)]
    mu, logvar = (torch.stack(x) for x in zip(*usual, *every, *settled, strict=True))
    return mu, logvar, torch.tensor(R * 3)


def mode(r, b, d):
    return r * randn(b, d, seed=77).sign()


def oracle(mu, logvar, r):
    flat = oracles.mixture_kl(mu.flatten(), logvar.flatten(), r.double().repeat_interleave(mu[0].numel()))
    return flat.reshape(mu.shape)


def test_the_oracle_is_adaptive_integration():
    """The two integrals share nothing but the integrand."""
    for mu, sigma, r in ((0.3, 0.5, 0.7), (-2.0, 3.0, 2.0), (0.001, 20.0, 1.0), (5.0, 0.01, 30.0)):

        def integrand(x, mu=mu, sigma=sigma, r=r):
            z = mu + sigma * x
            p = np.logaddexp(norm.logpdf(z, -r), norm.logpdf(z, r)) - math.log(2.0)
            return norm.pdf(x) * (norm.logpdf(x) - math.log(sigma) - p)

        exact, _ = quad(
            integrand, -12, 12, points=[min(max(-mu / sigma, -12), 12)], epsabs=1e-12, epsrel=1e-11, limit=200
        )
        one = [torch.tensor([x], dtype=torch.float64) for x in (mu, 2 * math.log(sigma), r)]
        assert oracles.mixture_kl(*one).item() == pytest.approx(exact, rel=1e-9, abs=1e-10)


@pytest.mark.parametrize(("b", "d"), [(1, 1), (5, 3), (2, 33)])
def test_values_and_gradients(back_end, b, d):
    mu, logvar, r = hard(b, d)
    wide = oracles.double(mu), oracles.double(logvar)
    wanted = oracle(*wide, r)
    mu, logvar = (strided(x).to(back_end).requires_grad_() for x in (mu, logvar))
    out = gaussian_mixture_kl(mu, logvar, r.to(back_end))
    agree(out, wanted)
    up = randn(*mu.shape, seed=9)
    grads = torch.autograd.grad((out * up.to(out)).sum(), (mu, logvar))
    for a, b_ in zip(grads, torch.autograd.grad((wanted * up.double()).sum(), wide), strict=True):
        agree(a, b_)


def test_it_is_within_1e_6_nats_of_the_integral_over_its_usual_range():
    """Docstring; in float64, where rounding hides nothing. r sigma from 0.01 to 30, over the change of quadrature."""
    mu, logvar, r = (
        torch.tensor(x, dtype=torch.float64)
        for x in zip(
            *itertools.product(
                (0.0, 0.1, -0.7, 2.0, 8.0), (-4.0, -0.02, 0.0, 0.02, 2.0, 4.0), (0.1, 0.5, 0.99, 1.0, 1.01, 4.0)
            ),
            strict=True,
        )
    )
    out = gaussian_mixture_kl(mu[:, None, None], logvar[:, None, None], r)[:, 0, 0]
    assert (out - oracles.mixture_kl(mu, logvar, r)).abs().max() < 1e-6


def test_gradcheck():
    mu, logvar = (randn(2, 4, 3, seed=s, dtype=torch.float64).requires_grad_() for s in (1, 2))
    r = torch.tensor([0.4, 3.0], dtype=torch.float64)
    # the two expectations of value and slope are two quadratures: they meet to 1e-6
    assert torch.autograd.gradcheck(lambda m, lv: gaussian_mixture_kl(m, lv, r), (mu, logvar), atol=3e-6)


def test_between_0_and_the_surrogate_plus_ln_2(back_end):
    mu, logvar, r = hard(20, 5)
    kl = gaussian_mixture_kl(mu.to(back_end), logvar.to(back_end), r.to(back_end)).cpu()
    surrogate = gaussian_kl(mu, logvar, r=r)
    assert (kl >= -1e-5).all()
    assert (kl <= (surrogate + math.log(2.0)) * (1 + 1e-5)).all()


def test_its_limits(back_end):
    mu, logvar = randn(9, 3, seed=1).to(back_end), randn(9, 3, seed=2).to(back_end)
    agree(gaussian_mixture_kl(mu, logvar, 0.0), gaussian_kl(mu, logvar), trials=False)  # one mode
    far = gaussian_mixture_kl(mu + 30.0, logvar, 30.0)  # the other mode is out of sight; r^2 is not
    agree(far, gaussian_kl(mu + 30.0, logvar, r=30.0) + math.log(2.0), trials=False)
    agree(gaussian_mixture_kl(-mu, logvar, 0.7), gaussian_mixture_kl(mu, logvar, 0.7), trials=False, within=1e-6)


def test_near_the_prior_at_r_0_it_keeps_its_relative_accuracy(back_end):
    sizes = torch.tensor([1.0, 0.3, 1e-2, 1e-3, 1e-4])
    logvar = torch.cat([sizes, -sizes])[:, None].to(back_end).requires_grad_()
    kl = gaussian_mixture_kl(torch.zeros_like(logvar), logvar, 0.0)
    (slope,) = torch.autograd.grad(kl.sum(), logvar)
    exact = torch.tensor([oracles.kl_of_50_digits(0.0, x) for x in logvar[:, 0].tolist()], dtype=torch.float64)
    agree(kl[:, 0], exact[:, 0])
    agree(slope[:, 0], exact[:, 1])


def test_one_trial_numbers_and_nothing(back_end):
    mu, logvar, r = (x.to(back_end) for x in hard(5, 3))
    whole = gaussian_mixture_kl(mu, logvar, r)
    for k in range(len(r)):
        same_bits(gaussian_mixture_kl(mu[k], logvar[k], r[k]), whole[k])
        same_bits(gaussian_mixture_kl(mu[k], logvar[k], r[k].item()), whole[k])
    for shape in ((0, 3), (3, 0), (0, 2, 3), (2, 0, 3)):
        x = torch.zeros(shape, device=back_end).requires_grad_()
        out = gaussian_mixture_kl(x, x, 0.5)
        assert out.shape == torch.autograd.grad(out.sum(), x)[0].shape == shape


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_the_rounding_of_float32(back_end, dtype):
    mu, logvar = randn(33, 5, seed=1).to(back_end, dtype), randn(33, 5, seed=2).to(back_end, dtype)
    out = gaussian_mixture_kl(mu, logvar, 0.5)
    assert out.dtype == dtype
    agree(out, gaussian_mixture_kl(mu.float(), logvar.float(), 0.5), trials=False, within=torch.finfo(dtype).eps / 2)
