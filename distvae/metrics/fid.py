"""Frechet distance between features (Heusel et al. 2017, Eq. 6: FID, where the features are Inception's): the squared
2-Wasserstein distance between the Gaussians with the sets' means and covariances (divisor N - 1),

    d^2 = |m - m_w|^2 + tr(C + C_w - 2 (C C_w)^(1/2))

The trace of the root, without a root of a non-symmetric matrix: C C_w is similar to A A' with A = C^(1/2) C_w^(1/2), so
it is the sum of A's singular values. Roots of the covariances are by eigenvalues, of which those below 0 are rounding;
all in float64. It is real and exact for singular covariances too (fewer images than features).

Biased upwards: two sets of N images of the same law have a distance of order F/N. The number of images is a column, and
the floor next to it has the same bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from distvae.metrics.against_real import AgainstReal, Figure


def fid(x: Tensor, y: Tensor) -> float:
    """Of features x `[n, F]` and y `[m, F]`, n, m >= 2; the features' unit squared. Raises ValueError."""
    return frechet(*moments(x), *moments(y))


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean `[F]` and covariance `[F, F]`, float64."""
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"x: shape {list(x.shape)}, expected [N >= 2, F]")
    x = x.double()
    mean = x.mean(0)
    centred = x - mean
    return mean, centred.T @ centred / (len(x) - 1)


def frechet(mean: Tensor, cov: Tensor, mean_w: Tensor, cov_w: Tensor) -> float:
    """Eq. 6 of means `[F]` and covariances `[F, F]`."""
    shared = torch.linalg.svdvals(_root(cov) @ _root(cov_w)).sum()  # tr (C C_w)^(1/2)
    d2 = (mean.double() - mean_w.double()).square().sum() + cov.double().trace() + cov_w.double().trace() - 2.0 * shared
    return max(0.0, float(d2))


def _root(cov: Tensor) -> Tensor:
    values, axes = torch.linalg.eigh(cov.double())
    return (axes * values.clamp_min(0.0).sqrt()) @ axes.T


@dataclass(frozen=True, kw_only=True)
class Fid(AgainstReal):
    """Frechet distance between features of the model's images and real ones (Heusel et al. 2017)."""

    type: Literal["fid"] = "fid"

    def figures(self) -> tuple[Figure, ...]:
        return (Figure("fid", "squared feature", "Frechet distance (0 = same mean and covariance; lower is better)"),)

    def compare(self, drawn: Tensor, real: Tensor) -> tuple[float, ...]:
        return (fid(drawn, real),)
