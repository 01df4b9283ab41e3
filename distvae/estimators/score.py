"""Score-function (importance sampling) estimator (S5 Eqs. 13-18): no gradient need pass through z.

    L = 1/M sum_m l(z_m) q(z_m|x) / q_I(z_m),   z_m ~ q_I held fixed,   l(z) = -log p(x|z)                     Eq. 14

The encoder's gradient goes through the ratio (Eq. 17), the decoder's through l weighted by it (Eq. 18); both are
unbiased for any q_I that covers q. `proposal` is q_I:

posterior   q itself without gradient: ratio 1, the usual Monte Carlo value, REINFORCE (Eq. 23)
prior       p(z): the ratio reaches 2^c for c bits, so the variance grows without mercy (S5 after Eq. 22)
mixture     (1 - w) q + w p: the ratio is at most 1 / (1 - w), a defensive mixture

Erratum: in Eqs. 21-22 -(A(eta) - A(xi)) belongs inside the exponential; here it is log q - log q_I.

`baseline: leave_one_out` subtracts from l(z_m) the mean of the others, b_m = sum_{j != m} r_j l(z_j) / sum_{j != m}
r_j, r = q / q_I (VIMCO's and RLOO's idea). It changes no value, since only b_m (r_m - stop(r_m)) = 0 is subtracted, and
no expected gradient: b_m depends on the other samples only, so

    E[b_m grad r_m] = E[b_m] sum_z q_I(z) grad q(z) / q_I(z) = E[b_m] grad 1 = 0

whatever q_I and with or without self-normalising b_m, which keeps it between the smallest and largest l.

The z that it returns are q's own whatever the proposal, for what else wants samples of q."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from distvae.batch import Batch, Noise
from distvae.estimators.estimator import EstimatorModule, EstimatorPart, PerSample
from distvae.kernels.philox import Stream
from distvae.part import Hyper, hold
from distvae.posteriors.posterior import PosteriorPart

_BLOCK = 1 << 24  # the prior's sample m is drawn at step + m 2^24: priors draw one z an address


@dataclass(frozen=True, kw_only=True)
class Score(EstimatorPart):
    """Importance sampling (S5): unbiased for any posterior with a density; train.samples samples."""

    type: Literal["score"] = "score"
    proposal: Annotated[
        Literal["posterior", "prior", "mixture"], Hyper(doc="where samples come from; mixture: (1 - w) q + w p")
    ] = "posterior"
    w: Annotated[float, Hyper(above=0.0, below=1.0, doc="weight of the prior in proposal: mixture; else unused")] = 0.1
    baseline: Annotated[
        Literal["none", "leave_one_out"], Hyper(doc="what is subtracted; leave_one_out needs train.samples >= 2")
    ] = "none"

    whole_batch: ClassVar[bool] = False  # the ratio is of an example's own z

    @property
    def least_samples(self) -> int:
        """Samples a step needs."""
        return 2 if self.baseline == "leave_one_out" else 1

    def refusal(self, posterior: PosteriorPart, latent_dim: int) -> str | None:
        if posterior.density:
            return None
        return "it weighs samples by their density, and this posterior is a point (use pathwise)"

    def build(self) -> ScoreEstimator:
        return ScoreEstimator(self)


class ScoreEstimator(EstimatorModule):
    w: Tensor

    def __init__(self, part: Score):
        super().__init__()
        hold(self, w=part.w)
        self.part = part

    def forward(self, q: Any, p: Any, nll: PerSample, batch: Batch) -> tuple[Tensor, Tensor]:
        own = q.rsample(batch.noise, batch.samples).detach()
        z = self._propose(own, p, batch)
        log_q = q.log_prob(z)
        log_r = log_q - self._log_proposal(log_q.detach(), p, z)
        r, cost = log_r.exp(), nll(z)  # [B, M]
        value = r * cost  # Eq. 14
        if self.part.baseline == "leave_one_out":
            value = value - leave_one_out(cost.detach(), log_r.detach()) * (r - r.detach())
        return value.mean(1), own

    def _propose(self, own: Tensor, p: Any, batch: Batch) -> Tensor:
        """z `[B, M, Z]` ~ q_I, no gradient. A sample of the mixture is q's or the prior's, never both, so they may share
        noise."""
        if self.part.proposal == "posterior":
            return own
        noise, samples = batch.noise, own.shape[1]
        foreign = torch.stack([p.sample(_later(noise, m), own) for m in range(samples)], 1).detach()
        if self.part.proposal == "prior":
            return foreign
        u = _later(noise, samples).uniforms(samples, 1, own, Stream.CHOICE)
        return torch.where(u < self.w.double(), foreign, own)

    def _log_proposal(self, log_q: Tensor, p: Any, z: Tensor) -> Tensor:
        """log q_I `[B, M]`, no gradient."""
        if self.part.proposal == "posterior":
            return log_q
        log_p = p.log_prob(z).detach()
        if self.part.proposal == "prior":
            return log_p
        return torch.logaddexp((-self.w).log1p() + log_q, self.w.log() + log_p)


def _later(noise: Noise, m: int) -> Noise:
    return replace(noise, step=noise.step + m * _BLOCK)


def leave_one_out(cost: Tensor, log_r: Tensor) -> Tensor:
    """b_m = sum_{j != m} r_j cost_j / sum_{j != m} r_j, `[B, M]`, M >= 2."""
    m = cost.shape[1]
    others = log_r[:, None].masked_fill(torch.eye(m, dtype=torch.bool, device=cost.device), -math.inf)
    return (others.softmax(-1) * cost[:, None]).sum(-1)  # [B, m, j]
