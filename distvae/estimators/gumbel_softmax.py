"""Gumbel-softmax / concrete relaxation (Jang et al. 2017; Maddison et al. 2017): the codes are softened to z =
softmax((eta + g) / temperature) (bits: the binary concrete), and the gradient passes through them.

Biased: what is differentiated is E[l(z)] of the *relaxed* z, another model's distortion, which only tends to ours as
the temperature tends to 0, where the gradient's variance grows without bound. `hard: true` sends the decoder the exact
sample that z stands for and the gradient of the soft one (straight-through Gumbel): the right value, still a biased
gradient. Evaluation always uses exact samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from torch import Tensor

from distvae.batch import Batch
from distvae.estimators.discrete import DiscretePart
from distvae.estimators.estimator import EstimatorModule, PerSample
from distvae.part import Hyper, hold


@dataclass(frozen=True, kw_only=True)
class GumbelSoftmax(DiscretePart):
    """Relaxed codes with a temperature (Jang et al. 2017): biased, low variance."""

    type: Literal["gumbel_softmax"] = "gumbel_softmax"
    temperature: Annotated[
        float, Hyper(low=0.01, symbol="tau", doc="temperature of the relaxed codes; towards 0 they harden")
    ] = 0.5
    hard: Annotated[bool, Hyper(doc="exact codes forward, relaxed ones backward (straight-through Gumbel)")] = False

    def build(self) -> GumbelSoftmaxEstimator:
        return GumbelSoftmaxEstimator(self)


class GumbelSoftmaxEstimator(EstimatorModule):
    temperature: Tensor

    def __init__(self, part: GumbelSoftmax):
        super().__init__()
        hold(self, temperature=part.temperature)
        self.hard = part.hard

    def forward(self, q: Any, p: Any, nll: PerSample, batch: Batch) -> tuple[Tensor, Tensor]:
        z = q.relaxed(batch.noise, batch.samples, self.temperature)
        if self.hard:
            z = q.harden(z).detach() + (z - z.detach())
        return nll(z).mean(1), z
