"""Gaussian likelihood p(x|z) = N(x; y(z), sigma_x^2 I) with all its constants, and six ways to get sigma_x (S4).

    -log p = P/2 ln(2 pi sigma^2) + |x - y|^2 / (2 sigma^2)

fixed                sigma_x = `sigma`. With beta the minimiser depends on beta sigma^2 only: `equivalence.py` converts.
learned              one shared log sigma, bounded below by softplus as in sigma-VAE's code (log sigma >= -6).
optimal              sigma*^2 = MSE of the global batch, gradient through it: -log p = P/2 (ln(2 pi MSE) + 1).
                     Erratum: sigma-VAE Eq. 5 lacks the square (its authors acknowledge sigma*^2 = MSE). For
                     evaluation sigma* is frozen from the training examples: estimated on the data it is judged on it
                     would peek, and is reported as a surrogate only.
optimal_per_image    sigma*^2 = each image's own MSE (BS-VAE, S4). Not a normalised density of x, so `measure` and
                     every bound are null.
per_pixel            log sigma_x of every pixel from the decoder: outputs P .. 2P, raw, with the floor of `learned` and
                     counted from `sigma`, so that outputs of 0 mean sigma_x = `sigma`.
per_image            one sigma_x per image from the decoder: the mean of the raw map over pixels (a convolutional
                     decoder has no other scalar to give), then as per_pixel. A function of z alone, so a density."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import torch
from torch import Tensor, nn

from distvae.batch import Batch
from distvae.likelihoods.likelihood import LikelihoodPart
from distvae.likelihoods.scale import check_start, log_sigma, log_sigma_from, raw_of
from distvae.part import Hyper, hold

Mode = Literal["fixed", "learned", "optimal", "optimal_per_image", "per_image", "per_pixel"]
NET = ("per_image", "per_pixel")  # sigma_x from the decoder
MSE_MIN = 1e-8  # per pixel: below it a perfect reconstruction's density would be infinite


@dataclass(frozen=True, kw_only=True)
class Gaussian(LikelihoodPart):
    """Gaussian pixels with sigma_x fixed, learned, optimal, or from the decoder (S4)."""

    type: Literal["gaussian"] = "gaussian"
    mode: Annotated[Mode, Hyper(doc=f"where sigma_x comes from: {', '.join(get_args(Mode))}")] = "fixed"
    sigma: Annotated[
        float,
        Hyper(
            above=0.0,
            symbol="sigma_x",
            doc="std per pixel (fixed), or its start (learned, per_image, per_pixel); unused by optimal modes",
        ),
    ] = 1.0
    output: Annotated[Literal["identity", "sigmoid"], Hyper(doc="map of the decoder's output to the mean")] = "identity"

    def __post_init__(self) -> None:
        if self.mode in ("learned", *NET):
            check_start(self.mode, self.sigma)

    @property
    def measure(self) -> str | None:
        return None if self.mode == "optimal_per_image" else "density"

    @property
    def whole_batch(self) -> bool:
        return self.mode == "optimal"

    @property
    def calibrated(self) -> bool:
        return self.mode == "optimal"

    def width(self, x_shape: Sequence[int]) -> int:
        return super().width(x_shape) * (2 if self.mode in NET else 1)

    def build(self, x_shape: Sequence[int]) -> GaussianLikelihood:
        return GaussianLikelihood(self)


class GaussianLikelihood(nn.Module):
    sigma: Tensor
    frozen_var: Tensor

    def __init__(self, part: Gaussian):
        super().__init__()
        self.mode, self.output = part.mode, part.output
        hold(self, sigma=part.sigma)
        self.register_buffer(
            "frozen_var", torch.ones((), dtype=torch.float64)
        )  # `optimal`: MSE of the training examples
        if self.mode == "learned":
            self.raw = nn.Parameter(raw_of(part.sigma))

    def variance(self) -> Tensor:
        """sigma_x^2 as evaluation uses it, 0-d (`fixed`, `learned`, and `optimal` once calibrated)."""
        if self.mode == "fixed":
            return self.sigma.square()
        if self.mode == "learned":
            return (2.0 * log_sigma(self.raw[0])).exp()
        return self.frozen_var

    def nll(self, y: Tensor, x: Tensor, batch: Batch) -> Tensor:
        """-log p(x|z) `[B, S]` nats of the decoder's `y` `[B, S, P]` (or `2P`) and pixels `x` `[B, P]`."""
        if self.mode in NET:
            return self._nll_of_net(y, x)
        sse = (self.mean(y) - x[:, None]).square().sum(-1)  # [B, S]
        pixels = y.shape[-1]
        if self.mode == "optimal_per_image":
            var = (sse / pixels).clamp_min(MSE_MIN)
        elif self.mode == "optimal" and self.training:
            var = (batch.gather(sse.mean(1)).mean() / pixels).clamp_min(MSE_MIN)
        else:
            var = self.variance()
        return gaussian_nll(sse, var, pixels)

    def _nll_of_net(self, y: Tensor, x: Tensor) -> Tensor:
        raw = y.unflatten(-1, (2, -1))[..., 1, :]  # [B, S, P]
        if self.mode == "per_image":
            raw = raw.mean(-1, keepdim=True).expand_as(raw)
        log_s = log_sigma_from(raw, self.sigma)
        scaled = (self.mean(y) - x[:, None]) * (-log_s).exp()
        return (0.5 * (math.log(2.0 * math.pi) + scaled.square()) + log_s).sum(-1)

    def calibrate(self, mse: Tensor) -> None:
        """Freeze sigma*^2 at the mean squared error per pixel of the training examples (0-d)."""
        self.frozen_var.copy_(mse.clamp_min(MSE_MIN))

    def mean(self, y: Tensor) -> Tensor:
        """E[x|z] `[..., P]`."""
        if self.mode in NET:
            y = y.unflatten(-1, (2, -1))[..., 0, :]
        return y.sigmoid() if self.output == "sigmoid" else y


def gaussian_nll(sse: Tensor, var: Tensor, pixels: int) -> Tensor:
    """-log N(x; y, var I) in nats from |x - y|^2, with the normaliser."""
    return 0.5 * (pixels * (2.0 * math.pi * var).log() + sse / var)
