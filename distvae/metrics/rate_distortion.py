"""The exact rate-distortion curve of a linear beta-VAE with fixed sigma_x: reverse water-filling (Cover and Thomas
2006, Theorem 10.3.3; methods S4).

With linear encoder and decoder the loss -log p(x|z) + beta KL separates over the principal components of x (variances
lambda_i), and with theta = beta sigma_x^2

    squared error_i = min(lambda_i, theta),        rate_i = 1/2 ln(lambda_i / theta)+   nats"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def water_filling(
    eigenvalues: Sequence[float], beta: float, sigma: float, latent_dim: int | None = None
) -> tuple[float, float]:
    """(rate in nats, summed squared error) at the optimum, per example; with fewer latent dimensions than components,
    the largest are coded."""
    lam = np.sort(np.asarray(eigenvalues, dtype=np.float64))[::-1]
    theta = beta * sigma * sigma
    coded = np.arange(len(lam)) < (len(lam) if latent_dim is None else latent_dim)
    rate = 0.5 * np.log(np.maximum(lam / theta, 1.0)) * coded
    return float(rate.sum()), float(np.where(coded, np.minimum(lam, theta), lam).sum())


def exact_curve(
    eigenvalues: Sequence[float], sigma: float, latent_dim: int | None = None, points: int = 200
) -> list[tuple[float, float]]:
    """(rate nats, distortion nats) for theta from a tenth of the smallest to the largest variance, distortion with its
    Gaussian normaliser."""
    d = len(eigenvalues)
    constant = 0.5 * d * math.log(2.0 * math.pi * sigma * sigma)
    curve = []
    for theta in np.geomspace(0.1 * min(eigenvalues), max(eigenvalues), points):
        rate, sse = water_filling(eigenvalues, float(theta) / sigma**2, sigma, latent_dim)
        curve.append((rate, constant + sse / (2.0 * sigma * sigma)))
    return curve
