"""What every prior states about itself, and what it must offer once it has been conditioned on the step's batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from distvae.batch import Noise
from distvae.part import Part
from distvae.posteriors.posterior import Q, Space

Encode = Callable[[Tensor], Any]  # x [K, *x_shape] -> q(z|x)


class P(Protocol):
    """p(z) of one step."""

    def divergence(self, q: Any, z: Tensor) -> Tensor:
        """What the objective weighs, nats: `[B, D]` where it is a sum over dimensions, else `[B, 1]`; z `[B, S, Z]` ~ q
        for those that need a Monte Carlo mean."""
        ...

    def rate(self, q: Any, z: Tensor) -> Tensor:
        """KL(q || p) to the *normalised* prior, nats, `[B, D]` or `[B, 1]`."""
        ...

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) `[...]`, nats, of z `[..., Z]`: the normalised prior, all dimensions together."""
        ...

    def sample(self, noise: Noise, like: Tensor) -> Tensor:
        """One z for each address of `noise`, `[B, Z]`."""
        ...

    def locate(self, z: Tensor) -> Tensor:
        """z relative to its mode: the identity but for `binarized` (S1 Eq. 3)."""
        ...

    @property
    def base(self) -> P:
        """The law of `locate(z)`: itself but for `binarized`, whose is the prior it is over."""
        ...


class PriorModule(nn.Module):
    """A prior that is the same in every step, and its own `P`."""

    @property
    def offset(self) -> Tensor | float | None:
        """r, where the divergence is what `kernels.sample_kl` computes: the KL to the nearer of two unit normals at -r
        and r. None: it is something else."""
        return None

    def forward(self, encode: Encode, batch: Any) -> Any:
        return self

    def locate(self, z: Tensor) -> Tensor:
        return z

    @property
    def base(self) -> P:
        return self  # type: ignore[return-value]


@dataclass(frozen=True, kw_only=True)
class PriorPart(Part):
    """Defaults: a closed-form, factorised KL on R^D."""

    space: ClassVar[Space] = "real"
    closed_form: ClassVar[bool] = True  # do divergence and rate do without z?
    factorised: ClassVar[bool] = True  # is the divergence a sum over dimensions?
    surrogate: ClassVar[bool] = False  # is `divergence` something else than the rate?
    labels: ClassVar[bool] = False  # does it need class labels?

    def build(self, latent_dim: int, x_shape: Sequence[int]) -> nn.Module:
        """A module `(encode, batch) -> P`; `encode` runs encoder and posterior on pseudo-inputs."""
        raise NotImplementedError


def monte_carlo_kl(q: Q, z: Tensor, log_p: Tensor) -> Tensor:
    """mean_s [log q(z_s|x) - log p(z_s)] `[B, 1]`, nats, of z `[B, S, Z]` ~ q and `log_p` `[B, S]`."""
    return (q.log_prob(z) - log_p).mean(1, keepdim=True)
