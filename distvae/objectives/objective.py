"""What every objective states about itself, and the terms it combines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from distvae.batch import Batch, Noise
from distvae.part import Part


def factor(schedule: Callable[[int], float], batch: Batch) -> float | Tensor:
    """The schedule's factor at the batch's step: the trainer's, where trials with schedules of their own are stacked."""
    return schedule(batch.step) if batch.factor is None else batch.factor


class Terms(NamedTuple):
    """One step's terms, nats."""

    distortion: Tensor  # [B] E_q[-log p(x|z)]
    divergence: Tensor  # [B, D] where it is a sum over dimensions, else [B, 1]: the KL, or a surrogate
    q: Any  # the posteriors; None for an objective that is `lean`
    z: Tensor  # [B, Z] the first latent sample
    p: Any  # the prior


@dataclass(frozen=True, kw_only=True)
class ObjectivePart(Part):
    """Defaults: a weighted sum of the terms, whatever the parts."""

    gaussian: ClassVar[bool] = False  # needs a Gaussian posterior
    pathwise: ClassVar[bool] = False  # needs gradients through z
    factorised: ClassVar[bool] = False  # needs a divergence per dimension
    beta_input: ClassVar[bool] = False  # one network for every beta
    maskable: ClassVar[bool] = False  # is a dimension with z = 0 and no divergence one that is not there?
    lean: ClassVar[bool] = False  # does it read distortion and divergence alone?

    @property
    def whole_batch(self) -> bool:
        """Does it need the global batch? Refused with gradient accumulation."""
        return False

    @property
    def weighs(self) -> bool:
        """Does it weigh the divergence at all? (A `delta` posterior has none.)"""
        return True

    def factor(self, step: int) -> float:
        """The factor of its schedule at an optimizer step."""
        return 1.0

    def warm(self, step: int) -> float:
        """1 when the schedule is at full weight, else 0: gates DU-VAE's dropout."""
        return float(self.factor(step) >= 1.0)

    def draw(self, noise: Noise, like: Tensor) -> Tensor | None:
        """The beta of each example `[B]` of a beta-input model, else None."""
        return None

    def grid(self) -> tuple[float | None, ...]:
        """The betas that evaluation visits, each with rows of its own; (None,) where the model has one."""
        return (None,)

    def build(self) -> nn.Module:
        """A module `(terms, batch) -> [B]`, loss per example, nats."""
        raise NotImplementedError
