"""Free bits (Kingma et al. 2016): the KL costs nothing until it exceeds lambda nats. The field means three things by it:

total        max(KL_i, lambda)                         per example, all dimensions together (bn-vae's code, fb = 1)
sample_dim   sum_d max(KL_id, lambda)                  per example and dimension (bn-vae's code, fb = 2, where the
                                                       lambda given is of all D dimensions: theirs / D is ours)
batch_dim    sum_d max(mean_i KL_id, lambda)           per dimension, of the batch's mean (Kingma et al. with groups of
                                                       one dimension; DU-IAF)

    loss = -log p + beta w(step) of it

bn-vae's code multiplies by a mask, so a KL below lambda counts 0, not lambda: the gradient is the same. With `batch_dim`
an example's loss has its own KL in the dimensions whose mean exceeds lambda, and lambda in the others: its mean over the
batch is the formula, its gradient too, and lambda = 0 is `elbo` bit for bit in all three (a Monte Carlo KL may be below
0, and is not cut there)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from distvae.batch import Batch
from distvae.objectives.objective import ObjectivePart, Terms, factor
from distvae.part import Hyper, hold
from distvae.schedules import Constant, WarmUp


@dataclass(frozen=True, kw_only=True)
class FreeBits(ObjectivePart):
    """ELBO whose KL is free up to some nats: in total, per sample and dimension, or per dimension of the batch."""

    type: Literal["free_bits"] = "free_bits"
    nats: Annotated[float, Hyper(low=0.0, symbol="lambda", doc="free KL, nats (in total, or per dimension)")] = 0.5
    of: Annotated[
        Literal["total", "sample_dim", "batch_dim"], Hyper(doc="which KL is free below lambda (three meanings)")
    ] = "batch_dim"
    beta: Annotated[float, Hyper(low=0.0, symbol="beta", doc="weight of the divergence")] = 1.0
    schedule: Annotated[WarmUp, Hyper(doc="factor on beta over the optimizer steps")] = Constant()  # noqa: RUF009

    lean: ClassVar[bool] = True

    @property
    def whole_batch(self) -> bool:
        return self.of == "batch_dim"

    @property
    def factorised(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.of != "total"

    @property
    def weighs(self) -> bool:
        return self.beta > 0

    def factor(self, step: int) -> float:
        return self.schedule(step)

    def build(self) -> FreeBitsObjective:
        return FreeBitsObjective(self)


class FreeBitsObjective(nn.Module):
    beta: Tensor
    nats: Tensor

    def __init__(self, part: FreeBits):
        super().__init__()
        hold(self, beta=part.beta, nats=part.nats)
        self.of, self.schedule = part.of, part.schedule

    def forward(self, terms: Terms, batch: Batch) -> Tensor:
        """Loss per example `[B]`, nats."""
        kl = terms.divergence.sum(-1, keepdim=True) if self.of == "total" else terms.divergence
        judged = batch.gather(kl.detach()).mean(0) if self.of == "batch_dim" else kl
        counts = (judged > self.nats) | (self.nats == 0)
        return terms.distortion + self.beta * factor(self.schedule, batch) * torch.where(counts, kl, self.nats).sum(-1)
