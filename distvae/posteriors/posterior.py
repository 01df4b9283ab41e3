"""What every posterior head states about itself, and what its q must offer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from torch import Tensor, nn

from distvae.batch import Noise
from distvae.part import Part

Space = Literal["real", "sphere", "bits", "onehot"]  # where z lives


class Q(Protocol):
    """A batch of posteriors q(z|x): a NamedTuple of tensors `[B, ...]`."""

    @property
    def mu(self) -> Tensor:
        """E[z|x] `[B, Z]`"""
        ...

    def rsample(self, noise: Noise, samples: int) -> Tensor:
        """z `[B, S, Z]` by addressed noise, never relaxed; differentiable if the part is `reparameterized`."""
        ...

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z|x) `[B, S]` of z `[B, S, Z]`, nats (mass if z is discrete)."""
        ...

    def double(self) -> Q:
        """In float64."""
        ...


@dataclass(frozen=True, kw_only=True)
class PosteriorPart(Part):
    """Defaults: a reparameterised density on R^D."""

    space: ClassVar[Space] = "real"
    gaussian: ClassVar[bool] = False  # is q a `NormalQ`?
    reparameterized: ClassVar[bool] = True  # do gradients pass through z?
    density: ClassVar[bool] = True  # else it has no KL, and rate and bound are null
    head_bias: ClassVar[bool] = True  # does the encoder's last layer have a bias?
    whole_batch: ClassVar[bool] = False  # statistics over the global batch: refused with gradient accumulation

    def width(self, latent_dim: int) -> int:
        """Encoder outputs."""
        raise NotImplementedError

    def code_dim(self, latent_dim: int) -> int:
        """Entries of z: decoder inputs."""
        return latent_dim

    def build(self, latent_dim: int) -> nn.Module:
        """A module `(h [B, width], batch) -> Q`."""
        raise NotImplementedError


def to_double(q: Any) -> Any:
    """A NamedTuple of tensors in float64."""
    return type(q)(*(t.double() for t in q))
