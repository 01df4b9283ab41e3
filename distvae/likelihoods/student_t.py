"""Student-t likelihood (the heavy-tailed row of S4's table, after Takahashi et al., IJCAI 2018), pixels independent:

    -log p = sum_i -ln G((nu+1)/2) + ln G(nu/2) + ln(nu pi)/2 + ln sigma + (nu+1)/2 ln(1 + (x_i - y_i)^2 / (nu sigma^2))

`sigma` is the scale, not the standard deviation (which is sigma sqrt(nu / (nu - 2)), infinite for nu <= 2); nu -> inf
is the Gaussian. nu > 1, so that E[x|z] = y exists. Choice: nu is a knob; in the paper the net gives nu, location and
scale of every pixel. beta and sigma do not trade here as they do for the Gaussian."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from distvae.batch import Batch
from distvae.likelihoods.likelihood import LikelihoodPart
from distvae.likelihoods.scale import check_start, log_sigma, raw_of
from distvae.part import Hyper, hold


@dataclass(frozen=True, kw_only=True)
class StudentT(LikelihoodPart):
    """Student-t pixels: heavy tails, scale fixed or learned."""

    type: Literal["student_t"] = "student_t"
    mode: Annotated[Literal["fixed", "learned"], Hyper(doc="where the scale comes from: fixed, learned")] = "fixed"
    nu: Annotated[float, Hyper(above=1.0, symbol="nu", doc="degrees of freedom; large is Gaussian")] = 4.0
    sigma: Annotated[
        float, Hyper(above=0.0, symbol="sigma_x", doc="scale per pixel (fixed), or its start (learned)")
    ] = 1.0
    output: Annotated[Literal["identity", "sigmoid"], Hyper(doc="map of the decoder's output to the mean")] = "identity"

    def __post_init__(self) -> None:
        if self.mode == "learned":
            check_start(self.mode, self.sigma)

    def build(self, x_shape: Sequence[int]) -> StudentTLikelihood:
        return StudentTLikelihood(self)


class StudentTLikelihood(nn.Module):
    nu: Tensor
    sigma: Tensor

    def __init__(self, part: StudentT):
        super().__init__()
        self.mode, self.output = part.mode, part.output
        hold(self, nu=part.nu, sigma=part.sigma)
        if self.mode == "learned":
            self.raw = nn.Parameter(raw_of(part.sigma))

    def nll(self, y: Tensor, x: Tensor, batch: Batch) -> Tensor:
        """-log p(x|z) `[B, S]` nats of the decoder's `y` `[B, S, P]` and pixels `x` `[B, P]`."""
        log_s = log_sigma(self.raw[0]) if self.mode == "learned" else self.sigma.log()
        scaled = ((self.mean(y) - x[:, None]) * (-log_s).exp()).square()
        tail = 0.5 * (self.nu + 1.0) * torch.log1p(scaled / self.nu)
        return (log_normaliser(self.nu).to(y.dtype) + log_s + tail).sum(-1)

    def mean(self, y: Tensor) -> Tensor:
        """E[x|z], the shape of `y`."""
        return y.sigmoid() if self.output == "sigmoid" else y


def log_normaliser(nu: Tensor) -> Tensor:
    """ln G(nu/2) - ln G((nu+1)/2) + ln(nu pi)/2, float64; ln(2 pi)/2 as nu -> inf. Stirling's series for large nu, where
    the two ln G are large and nearly equal."""
    h = 0.5 * nu.double()
    exact = torch.lgamma(h) - torch.lgamma(h + 0.5)
    series = -0.5 * h.log() + 1.0 / (8.0 * h) - 1.0 / (192.0 * h**3)  # h > 100: dropped terms below 1e-12
    return torch.where(h > 100.0, series, exact) + 0.5 * (2.0 * math.pi * h).log()
