"""Mixtures by other means: torch.distributions, and expectations under a diagonal Gaussian by Gauss-Hermite."""

import numpy as np
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily
from torch.distributions import Normal as Reference

from distvae.posteriors.gaussian import NormalQ
from distvae.priors.mixture import GaussianMixture

F = torch.float64


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=F, generator=torch.Generator().manual_seed(seed))


def a_mixture(k=3, d=2, seed=0):
    log_w = randn(k, seed=seed).log_softmax(0)
    return GaussianMixture(log_w, 2 * randn(k, d, seed=seed + 1), (0.5 * randn(k, d, seed=seed + 2)).exp())


def reference(m, shift=0.0):
    return MixtureSameFamily(Categorical(m.log_w.exp()), Independent(Reference(m.mean + shift, m.var.sqrt()), 1))


def some_q(b=5, d=2, seed=7):
    return NormalQ(1.5 * randn(b, d, seed=seed), (0.7 * randn(b, d, seed=seed + 1) - 1).exp())


def expectation(q, f, nodes=48):
    """E_q[f(z)] `[B]` of f on z `[B, nodes^D, D]`, for D <= 2."""
    t, w = np.polynomial.hermite_e.hermegauss(nodes)
    t, w = torch.from_numpy(t), torch.from_numpy(w / w.sum())
    d = q.mu.shape[-1]
    grid = torch.cartesian_prod(*[t] * d).reshape(-1, d)
    weight = torch.cartesian_prod(*[w] * d).reshape(-1, d).prod(-1)
    return f(q.mu[:, None] + q.var.sqrt()[:, None] * grid) @ weight


def exact_kl(q, log_p, nodes=48):
    """KL(q || p) `[B]` by quadrature."""
    return expectation(q, lambda z: q.log_prob(z) - log_p(z), nodes)


def grid(low, high, n, d):
    """(points `[n^d, d]`, volume of a cell)"""
    line = torch.linspace(low, high, n, dtype=F)
    return torch.cartesian_prod(*[line] * d).reshape(-1, d), float(line[1] - line[0]) ** d
