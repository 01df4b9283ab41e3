"""Beta-input models (S4; "You Only Train Once", Dosovitskiy and Djolonga 2020; Multi-Rate VAE, Bae et al. 2022): one
network, told beta, for the whole rate-distortion curve.

    loss_i = -log p(x_i|z_i; beta_i) + beta_i w(step) KL_i(beta_i),      log beta_i ~ U(log low, log high), per example

Per example, as in YOTO; drawn by (trial seed, step, example), so the same on any number of workers. How the nets hear
of beta is `vae.conditioning`. Evaluation visits `betas`, one row (`point` 0, 1, ...) each, every one a valid bound of the
model at that beta: the weights are shared, the bound is not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from torch import Tensor, nn

from distvae.batch import Batch, Noise
from distvae.kernels.philox import Stream
from distvae.objectives.objective import ObjectivePart, Terms, factor
from distvae.part import Hyper
from distvae.schedules import Constant, WarmUp

POINTS = 9


@dataclass(frozen=True, kw_only=True)
class BetaInput(ObjectivePart):
    """One network for every beta in [low, high], log-uniform per example (YOTO, MR-VAE, S4)."""

    type: Literal["beta_input"] = "beta_input"
    low: Annotated[float, Hyper(above=0.0, doc="smallest beta trained on", static=True)] = 0.01
    high: Annotated[float, Hyper(above=0.0, doc="largest beta trained on", static=True)] = 10.0
    betas: Annotated[
        tuple[float, ...],
        Hyper(
            above=0.0,
            symbol="beta",
            doc=f"betas evaluated; default: {POINTS} from low to high, equal ratios",
            static=True,
        ),
    ] = ()
    schedule: Annotated[WarmUp, Hyper(doc="factor on every beta over the optimizer steps")] = Constant()  # noqa: RUF009

    beta_input: ClassVar[bool] = True
    lean: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise ValueError(f"low: {self.low:g} is not below high: {self.high:g} (swap them, or widen the interval)")
        for b in self.betas:
            if not self.low <= b <= self.high:
                raise ValueError(
                    f"betas: {b:g} is outside [{self.low:g}, {self.high:g}], where the network is trained: "
                    "remove it, or widen low and high"
                )

    def factor(self, step: int) -> float:
        return self.schedule(step)

    def draw(self, noise: Noise, like: Tensor) -> Tensor:
        u = noise.uniform(Stream.BETA, 1, like)[:, 0]
        return (math.log(self.low) + u * (math.log(self.high) - math.log(self.low))).exp().to(like.dtype)

    def grid(self) -> tuple[float, ...]:
        return self.betas or tuple(np.geomspace(self.low, self.high, POINTS).tolist())

    def build(self) -> BetaInputObjective:
        return BetaInputObjective(self)


class BetaInputObjective(nn.Module):
    def __init__(self, part: BetaInput):
        super().__init__()
        self.schedule = part.schedule

    def forward(self, terms: Terms, batch: Batch) -> Tensor:
        """Loss per example `[B]`, nats, at `batch.beta` `[B]`."""
        assert batch.beta is not None, "the trainer draws beta, the evaluator visits the grid"
        return terms.distortion + batch.beta * factor(self.schedule, batch) * terms.divergence.sum(-1)
