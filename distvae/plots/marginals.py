"""Densities of single dimensions of z: the prior's p(z_d) and its modes, and the aggregated posterior's q(z_d).

q(z_d) = 1/N sum_i q(z_d | x_i) is exact where q is Gaussian. The uniform distribution on the sphere S^d in R^{d+1} has
coordinates of density (1 - t^2)^{(d - 2) / 2} / B(1/2, d/2) on [-1, 1]."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distvae.kernels import log_marginals
from distvae.posteriors.gaussian import NormalQ
from distvae.priors.binarized import BinarizedMixture, BinarizedPrior
from distvae.priors.mixture import GaussianMixture
from distvae.priors.normal import NormalPrior
from distvae.priors.uniform_sphere import UniformSpherePrior


@torch.no_grad()
def prior_density(p: Any, grid: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """p(z_d) `[G, Z]` of a grid `[G, Z]` of values of each dimension; None for a prior whose marginals are not known."""
    z = torch.from_numpy(grid)
    if isinstance(p, UniformSpherePrior):
        return _sphere(z, p.latent_dim).numpy()
    if isinstance(p, NormalPrior | BinarizedPrior):  # every dimension alike
        return p.log_prob(z[..., None]).double().exp().numpy()
    mixture = getattr(p, "mixture", p)  # by label, binarized
    if not isinstance(mixture, GaussianMixture):
        return None
    columns = []
    for d in range(z.shape[1]):
        one: Any = GaussianMixture(mixture.log_w, mixture.mean[:, d : d + 1], mixture.var[:, d : d + 1])
        one = BinarizedMixture(one, p.r) if isinstance(p, BinarizedMixture) else one
        columns.append(one.log_prob(z[:, d : d + 1]).double().exp())
    return torch.stack(columns, -1).numpy()


def _sphere(t: Tensor, d: int) -> Tensor:
    log_beta = math.lgamma(0.5) + math.lgamma(0.5 * d) - math.lgamma(0.5 * (d + 1))
    inside = torch.exp((0.5 * d - 1.0) * torch.log1p(-t.square()) - log_beta)
    return torch.where(t.abs() < 1, inside, 0.0)


@torch.no_grad()
def modes(p: Any, d: int) -> list[float]:
    """Where the prior's Gaussians lie along dimension d: 0; -r and r; a mixture's means, r to either side of each."""
    if isinstance(p, NormalPrior):
        return [0.0]
    r = float(p.r) if isinstance(p, BinarizedPrior | BinarizedMixture) else 0.0
    mixture = getattr(p, "mixture", p)
    if isinstance(p, BinarizedPrior):
        means = [0.0]
    else:
        means = mixture.mean[:, d].tolist() if isinstance(mixture, GaussianMixture) else []
    return sorted({m + side * r for m in means for side in (-1, 1)})


def aggregated_density(q: Any, grid: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """q(z_d) `[G, Z]` of a grid `[G, Z]`; None where q is no Gaussian (draw its samples)."""
    if not isinstance(q, NormalQ):
        return None
    return log_marginals(torch.from_numpy(grid), q.mu, q.var.log()).exp().numpy()
