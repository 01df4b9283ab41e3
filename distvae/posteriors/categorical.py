"""Categorical posterior (S5 Section V): one of c classes, z a one-hot of length c, logits eta from the encoder.

    q(z|x) = exp(eta.z - A(eta)),   A(eta) = ln sum_i e^eta_i,   q = softmax(eta)                            Eq. 27

The paper fixes the last entry of eta at 0 (c - 1 free); c free logits, as its Table I has them, span the same family.
Erratum: Table I prints Cat(xi / (e^xi + eta)) for softmax(eta).

A sample is the inverse CDF of one uniform. The relaxation is Gumbel-softmax (Jang et al. 2017), softmax((eta + g) /
temperature), whose argmax is an exact sample too (the Gumbel-max trick), from other noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from distvae.batch import Batch, Noise
from distvae.posteriors.posterior import PosteriorPart, Space, to_double


def one_hot(k: Tensor, like: Tensor) -> Tensor:
    """`[...]` classes to `[..., c]`, c the last axis of `like`; torch's own waits for the device to check its range."""
    return (k[..., None] == torch.arange(like.shape[-1], device=k.device)).to(like.dtype)


class CategoricalQ(NamedTuple):
    """A batch of single draws from c classes."""

    logits: Tensor  # [B, c], up to a constant

    @property
    def mu(self) -> Tensor:
        """q(z = e_i|x) `[B, c]`."""
        return self.logits.softmax(-1)

    def rsample(self, noise: Noise, samples: int) -> Tensor:
        """z `[B, samples, c]` one-hot, no gradient."""
        u = noise.uniforms(samples, 1, self.logits)
        below = self.logits.detach().double().softmax(-1).cumsum(-1)[:, None, :-1]  # the last class takes the rest
        return one_hot((u >= below).sum(-1), self.logits)

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z|x) `[B, S]` nats of z `[B, S, c]`."""
        return (z * self.logits.log_softmax(-1)[:, None]).sum(-1)

    def relaxed(self, noise: Noise, samples: int, temperature: Tensor) -> Tensor:
        """Gumbel-softmax z `[B, samples, c]` in the simplex, with gradients."""
        u = noise.uniforms(samples, self.logits.shape[-1], self.logits)
        gumbel = -torch.log(-torch.log(u)).to(self.logits.dtype)
        return ((self.logits[:, None] + gumbel) / temperature).softmax(-1)

    def harden(self, z: Tensor) -> Tensor:
        """The code that a relaxed one stands for."""
        return one_hot(z.argmax(-1), z)

    def support(self) -> Tensor:
        """Every code: the identity `[c, c]`."""
        return torch.eye(self.logits.shape[-1], dtype=self.logits.dtype, device=self.logits.device)

    def double(self) -> CategoricalQ:
        return to_double(self)


@dataclass(frozen=True, kw_only=True)
class Categorical(PosteriorPart):
    """One of latent_dim classes, a one-hot z (S5)."""

    type: Literal["categorical"] = "categorical"

    space: ClassVar[Space] = "onehot"
    reparameterized: ClassVar[bool] = False

    def width(self, latent_dim: int) -> int:
        return latent_dim

    def build(self, latent_dim: int) -> CategoricalHead:
        return CategoricalHead()


class CategoricalHead(nn.Module):
    def forward(self, h: Tensor, batch: Batch) -> CategoricalQ:
        return CategoricalQ(h)
