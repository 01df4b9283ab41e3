"""Recursive sampling across beta, for a beta-input model (S4: "the posterior sampler of a VAE is often easily implemented
as a second VAE. Can one beta-input VAE perform complete sampling of other beta-input VAE?").

S4 states the idea and, of the heuristic tried, only that its results were bad; the protocol is ours:

    z_1 ~ p(z);   x_k = E[x|z_k; beta_k],   z_{k+1} ~ q(z|x_k; beta_{k+1});   the image is E[x|z_K; beta_K]

with beta_1 > ... > beta_K. At a large beta the aggregated posterior is near the prior: what is drawn decodes to a
plausible if blurred image; every smaller beta encodes it into where its own posteriors lie, and decodes it sharper."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal

from torch import Tensor

from distvae.part import Hyper
from distvae.samplers.sampler import Fitted, Of, SamplerError, SamplerPart, decode, drawn, posterior
from distvae.vae import Vae


@dataclass(frozen=True, kw_only=True)
class Recursive(SamplerPart):
    """Decode at one beta, encode at the next, down a list of betas (S4; beta-input models)."""

    type: Literal["recursive"] = "recursive"
    betas: Annotated[
        tuple[float, ...],
        Hyper(above=0.0, symbol="beta", doc="betas in turn; default: those the model was evaluated at, largest first"),
    ] = ()
    of: Of = "draws"

    def refusal(self, vae: Vae) -> str | None:
        if vae.model.conditioning is not None:
            return None
        return "goes from one beta to another, and this model is told none (use prior; or train with vae.conditioning)"

    def _fit(self, vae: Vae, x: Any, seed: int) -> RecursiveSampler:
        betas = self.betas or tuple(sorted(vae.betas, reverse=True))
        if not betas:
            raise SamplerError("sampler.betas: this model does not say at which betas it was evaluated: give some")
        return RecursiveSampler(vae, betas, self.of == "means")


class RecursiveSampler(Fitted):
    """Images are decoded at the last beta."""

    def __init__(self, vae: Vae, betas: tuple[float, ...], means: bool):
        super().__init__(vae, betas[-1])
        self.betas, self.means = betas, means

    def latents(self, n: int, seed: int = 0) -> Tensor:
        z = self.vae.latents(n, seed=seed)
        for k, (now, then) in enumerate(pairwise(self.betas), start=1):
            q = posterior(self.vae, decode(self.vae, z, now), then)
            z = q.mu if self.means else q.rsample(drawn(n, seed, step=k), 1)[:, 0]
        return z
