"""The beta-weighted ELBO (Higgins et al. 2017): loss_i = -log p(x_i|z_i) + beta w(step) KL_i, a surrogate unless beta
w = 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from torch import Tensor, nn

from distvae.batch import Batch
from distvae.objectives.objective import ObjectivePart, Terms, factor
from distvae.part import Hyper, hold
from distvae.schedules import Constant, WarmUp


@dataclass(frozen=True, kw_only=True)
class Elbo(ObjectivePart):
    """Negative beta-ELBO, per example."""

    type: Literal["elbo"] = "elbo"
    beta: Annotated[float, Hyper(low=0.0, symbol="beta", doc="weight of the divergence")] = 1.0
    schedule: Annotated[WarmUp, Hyper(doc="factor on beta over the optimizer steps")] = Constant()  # noqa: RUF009

    lean: ClassVar[bool] = True
    maskable: ClassVar[bool] = True

    @property
    def weighs(self) -> bool:
        return self.beta > 0

    def factor(self, step: int) -> float:
        return self.schedule(step)

    def build(self) -> ElboObjective:
        return ElboObjective(self)


class ElboObjective(nn.Module):
    beta: Tensor

    def __init__(self, part: Elbo):
        super().__init__()
        hold(self, beta=part.beta)
        self.schedule = part.schedule

    def forward(self, terms: Terms, batch: Batch) -> Tensor:
        """Loss per example `[B]`, nats."""
        return terms.distortion + self.beta * factor(self.schedule, batch) * terms.divergence.sum(-1)
