"""The prior a binarized model is over, without its modes (S1 Section 4.4, the approximation): z ~ N(mu_p, sigma_p^2).

S1 samples this way "in all of our experiments", as "approximately" its mixture of modes "when r is small". The mixture's
variance is sigma_p^2 + r^2 per dimension, so that is false from r = 0.5 on (variance 1.25; 2 at r = 1, 5 at r = 2): the
decoder never sees the rest of its latent space, and every z falls between the modes it was trained on. Sampler `prior` is
the mixture itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from distvae.priors import Binarized
from distvae.samplers.sampler import Fitted, SamplerPart, drawn
from distvae.vae import Vae


@dataclass(frozen=True, kw_only=True)
class Unbinarized(SamplerPart):
    """z from a binarized model's prior without its modes (what S1's experiments used)."""

    type: Literal["unbinarized"] = "unbinarized"

    def refusal(self, vae: Vae) -> str | None:
        return only_binarized(vae)

    def _fit(self, vae: Vae, x: Any, seed: int) -> Fitted:
        return UnbinarizedSampler(vae)


class UnbinarizedSampler(Fitted):
    @torch.no_grad()
    def latents(self, n: int, seed: int = 0) -> Tensor:
        noise = drawn(n, seed)
        return self.vae.prior_for(noise).base.sample(noise, next(self.vae.encoder.parameters()))


def only_binarized(vae: Vae) -> str | None:
    """The refusal of samplers about the two modes."""
    kind = vae.model.prior
    if isinstance(kind, Binarized):
        return None
    return f"is about the modes of a binarized prior, and this model's is {kind.type} (use prior)"
