"""Capacity objective of the disentangling beta-VAE (Burgess et al. 2018; S1 "DBETA"): -log p + weight |KL - C w(step)|.

The capacity objective's gamma is called `weight`; `gamma` is DU-VAE's. Three readings of |.|, per example and in nats:

sample        mean_i |KL_i - C|             each image has the capacity (pythae; the default)
batch_mean    |mean_i KL_i - C|             the average image has it
batch_sum     |sum_i KL_i - C| / N          S1's released code: the *batch* shares it (C = 10 at batch 64: 10/64 nats an image)"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from torch import Tensor, nn

from distvae.batch import Batch
from distvae.objectives.objective import ObjectivePart, Terms, factor
from distvae.part import Hyper, hold
from distvae.schedules import Constant, Linear


@dataclass(frozen=True, kw_only=True)
class Capacity(ObjectivePart):
    """Distortion plus weight times the distance of the KL from a capacity that may ramp up."""

    type: Literal["capacity"] = "capacity"
    capacity: Annotated[float, Hyper(low=0.0, symbol="C", doc="target KL, nats")] = 10.0
    weight: Annotated[float, Hyper(low=0.0, symbol="gamma", doc="weight of |KL - C|")] = 10.0
    reduction: Annotated[Literal["sample", "batch_mean", "batch_sum"], Hyper(doc="what |KL - C| is taken of")] = (
        "sample"
    )
    ramp: Annotated[Constant | Linear, Hyper(doc="factor on C over the optimizer steps")] = Constant()  # noqa: RUF009

    lean: ClassVar[bool] = True
    maskable: ClassVar[bool] = True

    @property
    def whole_batch(self) -> bool:
        return self.reduction != "sample"

    @property
    def weighs(self) -> bool:
        return self.weight > 0

    def factor(self, step: int) -> float:
        return self.ramp(step)

    def build(self) -> CapacityObjective:
        return CapacityObjective(self)


class CapacityObjective(nn.Module):
    capacity: Tensor
    weight: Tensor

    def __init__(self, part: Capacity):
        super().__init__()
        hold(self, capacity=part.capacity, weight=part.weight)
        self.reduction, self.ramp = part.reduction, part.ramp

    def forward(self, terms: Terms, batch: Batch) -> Tensor:
        """Loss per example `[B]`, nats."""
        c, divergence = self.capacity * factor(self.ramp, batch), terms.divergence.sum(-1)
        if self.reduction == "sample":
            gap = (divergence - c).abs()
        elif self.reduction == "batch_mean":
            gap = (batch.gather(divergence).mean() - c).abs()
        else:
            gap = (batch.gather(divergence).sum() - c).abs() / batch.total
        return terms.distortion + self.weight * gap
