"""DIP-VAE (Kumar, Sattigeri and Balakrishnan 2018): the ELBO, and the aggregated posterior's covariance pulled to I.

    loss = -log p + beta KL + lambda_od sum_{i != j} C_ij^2 + lambda_d sum_i (C_ii - 1)^2
    C = Cov_x[mu(x)]                               DIP-VAE-I
    C = Cov_x[mu(x)] + E_x[diag var(x)]            DIP-VAE-II: the covariance of q(z)

over the global batch (1/N, as the authors estimate it). They take lambda_d = 10 lambda_od for I and lambda_d = lambda_od
for II. mu goes through the prior's `locate`, so a binarized DIP-VAE is `prior: {type: binarized}` (S1 Eq. 3; the paper
gives no formula). The schedule weighs everything but the distortion; lambda_od = lambda_d = 0 is `elbo` bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from torch import Tensor, nn

from distvae.batch import Batch
from distvae.objectives.objective import ObjectivePart, Terms, factor
from distvae.part import Hyper, hold
from distvae.schedules import Constant, WarmUp


@dataclass(frozen=True, kw_only=True)
class Dip(ObjectivePart):
    """ELBO with the covariance of the code pulled to the identity (DIP-VAE I and II)."""

    type: Literal["dip"] = "dip"
    version: Annotated[Literal["I", "II"], Hyper(doc="covariance of the means (I), or of the code (II)")] = "I"
    beta: Annotated[float, Hyper(low=0.0, symbol="beta", doc="weight of the divergence")] = 1.0
    lambda_od: Annotated[float, Hyper(low=0.0, symbol="lambda_od", doc="weight of the off-diagonal squares")] = 10.0
    lambda_d: Annotated[float, Hyper(low=0.0, symbol="lambda_d", doc="weight of (variance - 1)^2")] = 100.0
    schedule: Annotated[WarmUp, Hyper(doc="factor on all weights over the optimizer steps")] = Constant()  # noqa: RUF009

    gaussian: ClassVar[bool] = True

    @property
    def whole_batch(self) -> bool:
        return True

    @property
    def weighs(self) -> bool:
        return self.beta > 0

    def factor(self, step: int) -> float:
        return self.schedule(step)

    def build(self) -> DipObjective:
        return DipObjective(self)


class DipObjective(nn.Module):
    beta: Tensor
    lambda_od: Tensor
    lambda_d: Tensor

    def __init__(self, part: Dip):
        super().__init__()
        hold(self, beta=part.beta, lambda_od=part.lambda_od, lambda_d=part.lambda_d)
        self.version, self.schedule = part.version, part.schedule

    def forward(self, terms: Terms, batch: Batch) -> Tensor:
        """Loss per example `[B]`, nats; the penalty is the batch's."""
        c = covariance(batch.gather(terms.p.locate(terms.q.mu)))
        if self.version == "II":
            c = c + batch.gather(terms.q.var).mean(0).diag()
        diagonal = c.diagonal()
        off = c.square().sum() - diagonal.square().sum()
        penalty = self.lambda_od * off + self.lambda_d * (diagonal - 1.0).square().sum()
        w = factor(self.schedule, batch)
        return terms.distortion + self.beta * w * terms.divergence.sum(-1) + w * penalty


def covariance(mu: Tensor) -> Tensor:
    """1/N sum_i (mu_i - mean)(mu_i - mean)' `[D, D]` of `[N, D]`."""
    centred = mu - mu.mean(0)
    return centred.T @ centred / len(mu)
