"""Bernoulli posterior (S5 Section IV): c independent bits, logits eta from the encoder.

    q(z|x) = exp(eta.z - A(eta)),   A(eta) = sum_i ln(1 + e^eta_i),   q_i = sigmoid(eta_i)                  Eqs. 4, 19-20

A bit is 1 where u < q_i, which is where eta_i + logit(1 - u) > 0: so the binary concrete relaxation (Maddison et al.
2017), sigmoid((eta_i + logit(1 - u)) / temperature) of the same uniforms, tends to the sample as the temperature tends
to 0, and rounding it gives the sample at any temperature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from distvae.batch import Batch, Noise
from distvae.posteriors.posterior import PosteriorPart, Space, to_double

BITS_MAX = 12  # all codes are listed up to here: 4096


class BernoulliQ(NamedTuple):
    """A batch of c independent bits."""

    logits: Tensor  # [B, c]

    @property
    def mu(self) -> Tensor:
        """q(z_i = 1|x) `[B, c]`."""
        return self.logits.sigmoid()

    def rsample(self, noise: Noise, samples: int) -> Tensor:
        """z `[B, samples, c]` in {0, 1}, no gradient."""
        u = noise.uniforms(samples, self.logits.shape[-1], self.logits)
        return (u < self.logits.detach().double().sigmoid()[:, None]).to(self.logits.dtype)

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z|x) `[B, S]` nats of z `[B, S, c]`."""
        return -binary_cross_entropy_with_logits(self.logits[:, None].expand_as(z), z, reduction="none").sum(-1)

    def relaxed(self, noise: Noise, samples: int, temperature: Tensor) -> Tensor:
        """Binary concrete z `[B, samples, c]` in [0, 1], with gradients."""
        u = noise.uniforms(samples, self.logits.shape[-1], self.logits)
        logistic = (torch.log1p(-u) - u.log()).to(self.logits.dtype)
        return ((self.logits[:, None] + logistic) / temperature).sigmoid()

    def harden(self, z: Tensor) -> Tensor:
        """The code that a relaxed one stands for."""
        return (z > 0.5).to(z.dtype)

    def support(self) -> Tensor:
        """Every code, `[2^c, c]`, the first bit fastest."""
        c = self.logits.shape[-1]
        if c > BITS_MAX:
            raise ValueError(f"{c} bits have 2^{c} codes: listed up to {BITS_MAX} bits")
        codes = torch.arange(2**c, device=self.logits.device)[:, None]
        return (codes >> torch.arange(c, device=self.logits.device) & 1).to(self.logits.dtype)

    def double(self) -> BernoulliQ:
        return to_double(self)


@dataclass(frozen=True, kw_only=True)
class Bernoulli(PosteriorPart):
    """Bits, each with its probability from the encoder (S5); latent_dim bits."""

    type: Literal["bernoulli"] = "bernoulli"

    space: ClassVar[Space] = "bits"
    reparameterized: ClassVar[bool] = False

    def width(self, latent_dim: int) -> int:
        return latent_dim

    def build(self, latent_dim: int) -> BernoulliHead:
        return BernoulliHead()


class BernoulliHead(nn.Module):
    def forward(self, h: Tensor, batch: Batch) -> BernoulliQ:
        return BernoulliQ(h)
