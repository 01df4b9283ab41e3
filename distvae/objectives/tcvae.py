"""beta-TCVAE (Chen et al. 2018): the KL in three parts, each with a weight (methods S4.7).

    loss = -log p + w(step) (mi_weight MI + beta TC + dimension_weight DWKL)
    MI   = E[log q(z|x) - log q(z)]                    index-code mutual information
    TC   = E[log q(z)   - sum_d log q(z_d)]            total correlation
    DWKL = E[sum_d log q(z_d) - log p(z)]              dimension-wise KL, where p factorises; else the rest of the KL

MI + TC + DWKL is the KL's estimate from one z, whatever q(z) is taken for. The paper calls the weights alpha, beta and
gamma, and sweeps beta alone. q(z) is estimated from the global batch, of M out of N training examples, with the log-weight
of a pair counted once (kernels/density.py; disentangling-vae issues 58 and 60 count it D times):

    weighted      minibatch-weighted sampling, biased
    stratified    minibatch-stratified sampling (their Appendix C), unbiased for q(z)

Both are q(z) itself once the batch is the whole data set, as in evaluation: then it is the plain mean of the posteriors.
(Only then: between batches that are not, `weighted` moves MI by +ln N, TC by (D - 1) ln N and DWKL by -D ln N, constants
of no gradient.)

Choices. One z per example, the first sample. p is the *normalised* prior, so over `binarized` no surrogate is trained. Chen
et al. warm up beta alone; here the schedule weighs all three, so that equal weights are `elbo` with its warm-up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from torch import Tensor, nn

from distvae.batch import Batch
from distvae.kernels import log_density, log_marginals
from distvae.objectives.objective import ObjectivePart, Terms, factor
from distvae.part import Hyper, hold
from distvae.schedules import Constant, WarmUp


@dataclass(frozen=True, kw_only=True)
class TcVae(ObjectivePart):
    """KL split into mutual information, total correlation and dimension-wise KL (beta-TCVAE)."""

    type: Literal["tcvae"] = "tcvae"
    beta: Annotated[float, Hyper(low=0.0, symbol="beta", doc="weight of the total correlation")] = 6.0
    mi_weight: Annotated[float, Hyper(low=0.0, symbol="alpha", doc="weight of the mutual information")] = 1.0
    dimension_weight: Annotated[float, Hyper(low=0.0, doc="weight of the dimension-wise KL (the paper's gamma)")] = 1.0
    sampling: Annotated[
        Literal["weighted", "stratified"], Hyper(doc="estimate of q(z) from a batch (Chen et al. 2018)")
    ] = "weighted"
    schedule: Annotated[WarmUp, Hyper(doc="factor on all weights over the optimizer steps")] = Constant()  # noqa: RUF009

    gaussian: ClassVar[bool] = True
    pathwise: ClassVar[bool] = True

    @property
    def whole_batch(self) -> bool:
        return True

    def factor(self, step: int) -> float:
        return self.schedule(step)

    def build(self) -> TcVaeObjective:
        return TcVaeObjective(self)


class TcVaeObjective(nn.Module):
    beta: Tensor
    mi_weight: Tensor
    dimension_weight: Tensor

    def __init__(self, part: TcVae):
        super().__init__()
        hold(self, beta=part.beta, mi_weight=part.mi_weight, dimension_weight=part.dimension_weight)
        self.sampling, self.schedule = part.sampling, part.schedule

    def forward(self, terms: Terms, batch: Batch) -> Tensor:
        """Loss per example `[B]`, nats; the three parts are the batch's means."""
        mi, tc, dwkl = (part.mean() for part in self.parts(terms, batch))
        penalty = self.mi_weight * mi + self.beta * tc + self.dimension_weight * dwkl
        return terms.distortion + factor(self.schedule, batch) * penalty

    def parts(self, terms: Terms, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """(MI, TC, DWKL), each `[total]`, nats, at the z of every example of the global batch."""
        q, z = terms.q, batch.gather(terms.z)
        mu, logvar = batch.gather(q.mu), batch.gather(q.var.log())
        given_x = batch.gather(q.log_prob(terms.z[:, None])[:, 0])
        prior = batch.gather(terms.p.log_prob(terms.z))
        estimate = self._estimate(len(z), batch.dataset)
        pairs = tuple(t.to(self.beta.dtype) for t in (z, mu, logvar))  # evaluation's float64 would cost N^2 D of it
        joint = log_density(*pairs, **estimate)
        marginals = log_marginals(*pairs, **estimate).sum(-1)
        return given_x - joint, joint - marginals, marginals - prior

    def _estimate(self, m: int, n: int) -> dict:
        """How `m` posteriors stand for those of `n` examples."""
        if m >= n:
            return {"sampling": "mean"}
        return {"sampling": self.sampling if m > 1 else "weighted", "dataset_size": n}
