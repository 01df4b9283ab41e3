"""beta against sigma_x (S4): with sigma_x fixed, a beta-VAE *is* a VAE with another sigma_x.

    -log p + beta KL = |x - y|^2 / (2 sigma^2) + beta KL + P ln(sigma sqrt(2 pi))

has, for fixed sigma, the minimisers of |x - y|^2 / 2 + (beta sigma^2) KL: only beta sigma^2 matters, so beta = 1 with
sigma' = sigma sqrt(beta) has the same encoder, decoder, rate and squared error. What differs is -log p, by its
constants. Losses written with a squared error and a weight differ by how they write the error alone:

               loss, + weight KL                  weight               beta = 1 at sigma_x =
    nll        -log p at sigma, normalised        beta                 sigma sqrt(weight)
    sse        |x - y|^2, summed over P pixels    2 beta sigma^2       sqrt(weight / 2)
    half_sse   |x - y|^2 / 2                      beta sigma^2         sqrt(weight)
    mean_mse   |x - y|^2 / P, mean over pixels    2 beta sigma^2 / P   sqrt(weight P / 2)

The KL is everywhere summed over latent dimensions, nats per example; a loss that averages it over D dimensions has D
times less weight. S4's slide gives 2 sigma^2, sigma^2 and 2 sigma^2 / P at beta = 1. Not for a learned or optimal
sigma_x, which moves with beta, nor for any other likelihood."""

from __future__ import annotations

import math
from typing import Literal

Convention = Literal["nll", "sse", "half_sse", "mean_mse"]


def _factor(convention: Convention, sigma: float, pixels: int | None) -> float:
    """beta sigma^2 of a weight of 1."""
    if convention == "mean_mse" and pixels is None:
        raise ValueError("pixels: the mean over pixels needs their number P = prod(x_shape)")
    return {"nll": sigma * sigma, "sse": 0.5, "half_sse": 1.0, "mean_mse": 0.5 * (pixels or 1)}[convention]


def kl_weight(beta: float, sigma: float, convention: Convention = "sse", *, pixels: int | None = None) -> float:
    """The weight of the KL in a loss of `convention` that has the minimisers of `-log p + beta KL` at fixed sigma."""
    return beta * sigma * sigma / _factor(convention, sigma, pixels)


def equivalent_sigma(
    weight: float, sigma: float = 1.0, convention: Convention = "nll", *, pixels: int | None = None
) -> float:
    """The sigma_x at which a plain VAE (beta = 1) has the minimisers of a loss of `convention` with this weight of the
    KL; `sigma` is that of `nll`, unused by the others. 0 for weight 0, an autoencoder."""
    return math.sqrt(weight * _factor(convention, sigma, pixels))
