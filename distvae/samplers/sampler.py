"""What every sampler states about itself, and what fitting one to a trained model returns.

A sampler belongs to no trial: it is chosen when images are drawn from a trained model. All draws are addressed, by
(seed, stream, step, index of the image): the first n of n + m images are the n."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from distvae.batch import Noise
from distvae.kernels.philox import Stream
from distvae.part import Hyper, Part
from distvae.vae import Vae

CHUNK = 1000  # examples through a net at a time
Of = Annotated[Literal["draws", "means"], Hyper(doc="what stands for an example: z ~ q(z|x), or its mean")]


class SamplerError(Exception):
    """A sampler that does not fit the model, or lacks its examples (exit code 2)."""


class Fitted:
    """A sampler fitted to a model. Images are decoded at `beta`, None: at the model's own."""

    def __init__(self, vae: Vae, beta: float | None = None):
        self.vae, self.beta = vae, beta

    def latents(self, n: int, seed: int = 0) -> Tensor:
        """z `[n, Z]`."""
        raise NotImplementedError

    def images(self, n: int, seed: int = 0) -> Tensor:
        """E[x|z] `[n, *x_shape]`."""
        return decode(self.vae, self.latents(n, seed), self.beta)


@dataclass(frozen=True, kw_only=True)
class SamplerPart(Part):
    """A way to draw z for a trained model."""

    type: str
    examples: ClassVar[bool] = False  # is it fitted to training examples?

    def refusal(self, vae: Vae) -> str | None:
        """Why it cannot be used with this model, and the likely fix; None if it can."""
        return None

    def fit(self, vae: Vae, x: Tensor | None = None, seed: int = 0) -> Fitted:
        """Fit it to a trained model and, where it needs them, training examples `[N, *x_shape]`. A beta-input model is
        used at `vae.beta`. Raises SamplerError."""
        why = self.refusal(vae)
        if why:
            raise SamplerError(f"sampler: {self.type} {why}")
        if self.examples and (x is None or not len(x)):
            raise SamplerError(f"sampler: {self.type} is fitted to training examples, and there are none (give x)")
        return self._fit(vae, x, seed)

    def _fit(self, vae: Vae, x: Any, seed: int) -> Fitted:
        """`fit`, once all is there: x is a tensor if `examples`."""
        raise NotImplementedError


def posterior(vae: Vae, x: Tensor, beta: float | None = None) -> Any:
    """q(z|x) of many examples. Raises SamplerError if the model has diverged."""
    device = next(vae.encoder.parameters()).device
    parts = [vae.encode(some.to(device), beta=beta) for some in x.split(CHUNK)]
    q = type(parts[0])(*(torch.cat(column) for column in zip(*parts, strict=True)))
    if not all(t.isfinite().all() for t in q):
        raise SamplerError("sampler: the model's q(z|x) is not finite: it has diverged, or x is not finite")
    return q


def decode(vae: Vae, z: Tensor, beta: float | None = None) -> Tensor:
    """E[x|z] of many latents."""
    return torch.cat([vae.decode(some, beta=beta) for some in z.split(CHUNK)])


def codes(q: Any, of: Literal["draws", "means"], seed: int, step: int = 0) -> Tensor:
    """One z `[N, Z]` for each example that `q` is of."""
    if of == "means":
        return q.mu
    return q.rsample(Noise(seed, step, np.arange(len(q.mu)), Stream.EVALUATE), 1)[:, 0]


def drawn(n: int, seed: int, step: int = 0) -> Noise:
    """The noise of n images."""
    return Noise(seed, step, np.arange(n), Stream.SAMPLE)


def only_real(vae: Vae) -> str | None:
    """The refusal of samplers whose z is anywhere in R^d."""
    kind = vae.model.posterior
    if kind.space == "real":
        return None
    return f"draws z in R^d, and the {kind.type} posterior's do not live there (use prior)"
