"""The model's own prior, normalised: of a binarized model the mixture of both modes, S1's reduced-bias sampling (Section
4.4, first equation); of a mixture, vamp, sphere or discrete prior that prior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from distvae.samplers.sampler import Fitted, SamplerPart
from distvae.vae import Vae


@dataclass(frozen=True, kw_only=True)
class Prior(SamplerPart):
    """z from the model's own prior (binarized: both modes alike, S1's reduced-bias sampling)."""

    type: Literal["prior"] = "prior"

    def _fit(self, vae: Vae, x: Any, seed: int) -> Fitted:
        return PriorSampler(vae)


class PriorSampler(Fitted):
    def latents(self, n: int, seed: int = 0) -> Tensor:
        return self.vae.latents(n, seed=seed)
