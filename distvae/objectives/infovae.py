"""InfoVAE (Zhao, Song and Ermon 2019), with the MMD as the divergence between aggregated posterior and prior.

    loss = -log p + (1 - alpha) w KL(q(z|x) || p) + (alpha + lambda - 1) w MMD^2(q(z), p(z)),        w = w(step)

alpha weighs the mutual information that is kept, lambda the whole misfit of q(z); `weight` is lambda. Limits: alpha = 0,
weight = 1 is `elbo` (bit for bit); alpha = 1 is `wae` of the same weight, weight = 1 the MMD-VAE of Zhao et al. A sum
alpha + lambda under 1 would reward the misfit, and is refused. The MMD is that of `wae` (locate, addresses, kernels)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from torch import Tensor, nn

from distvae.batch import Batch
from distvae.metrics.mmd import Kernel
from distvae.objectives.objective import ObjectivePart, Terms, factor
from distvae.objectives.wae import mmd_to_prior
from distvae.part import Hyper, hold
from distvae.schedules import Constant, WarmUp


@dataclass(frozen=True, kw_only=True)
class InfoVae(ObjectivePart):
    """ELBO that keeps mutual information and matches the prior by MMD (InfoVAE)."""

    type: Literal["infovae"] = "infovae"
    alpha: Annotated[float, Hyper(high=1.0, symbol="alpha", doc="1 - alpha weighs the divergence")] = 0.5
    weight: Annotated[float, Hyper(symbol="lambda", doc="alpha + lambda - 1 >= 0 weighs MMD^2")] = 10.0
    kernel: Annotated[Kernel, Hyper(doc="inverse multiquadratics at 7 scales, or one Gaussian")] = "imq"
    bandwidth: Annotated[float, Hyper(above=0.0, symbol="h", doc="std of the prior; kernels have C = 2 d h^2")] = 1.0
    schedule: Annotated[WarmUp, Hyper(doc="factor on both weights over the optimizer steps")] = Constant()  # noqa: RUF009

    pathwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.alpha + self.weight < 1.0:
            raise ValueError(
                f"weight: {self.weight:g} with alpha {self.alpha:g} weighs MMD^2 by {self.alpha + self.weight - 1:g}, "
                f"and would reward it (weight: {1 - self.alpha:g} or more)"
            )

    @property
    def whole_batch(self) -> bool:
        return True

    @property
    def weighs(self) -> bool:
        return self.alpha < 1

    def factor(self, step: int) -> float:
        return self.schedule(step)

    def build(self) -> InfoVaeObjective:
        return InfoVaeObjective(self)


class InfoVaeObjective(nn.Module):
    kl_weight: Tensor
    mmd_weight: Tensor
    bandwidth: Tensor

    def __init__(self, part: InfoVae):
        super().__init__()
        hold(self, kl_weight=1 - part.alpha, mmd_weight=part.alpha + part.weight - 1, bandwidth=part.bandwidth)
        self.kernel: Kernel = part.kernel
        self.schedule = part.schedule

    def forward(self, terms: Terms, batch: Batch) -> Tensor:
        """Loss per example `[B]`, nats; the penalty is the batch's."""
        penalty, w = mmd_to_prior(terms, batch, self.kernel, self.bandwidth), factor(self.schedule, batch)
        return terms.distortion + self.kl_weight * w * terms.divergence.sum(-1) + self.mmd_weight * w * penalty
