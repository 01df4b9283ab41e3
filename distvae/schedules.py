"""Schedules: pure functions of the optimizer step, giving a factor in [0, 1]. In absolute steps, never fractions of a
run, so that a longer run extends a shorter one and the number of epochs stays out of the trial key."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from distvae.part import Hyper, Part


@dataclass(frozen=True, kw_only=True)
class Constant(Part):
    """Full weight from the first step."""

    type: Literal["constant"] = "constant"

    def __call__(self, step: int) -> float:
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Linear(Part):
    """Linear warm-up from `start` to 1 in `steps` (Bowman et al. 2016; S2 anneals 0 -> 1 in its first 10 epochs)."""

    type: Literal["linear"] = "linear"
    steps: Annotated[int, Hyper(low=1, doc="optimizer steps of the ramp")]
    start: Annotated[float, Hyper(low=0.0, high=1.0, doc="factor at step 0")] = 0.0

    def __call__(self, step: int) -> float:
        return min(1.0, self.start + (1.0 - self.start) * step / self.steps)


@dataclass(frozen=True, kw_only=True)
class Cyclic(Part):
    """Cyclic annealing (Fu et al. 2019): in every `period` steps, ramp 0 -> 1 over the fraction `ramp`, then hold 1."""

    type: Literal["cyclic"] = "cyclic"
    period: Annotated[int, Hyper(low=2, doc="optimizer steps of one cycle")]
    ramp: Annotated[float, Hyper(above=0.0, below=1.0, doc="fraction of a cycle spent rising")] = 0.5

    def __call__(self, step: int) -> float:
        return min(1.0, (step % self.period) / (self.ramp * self.period))


@dataclass(frozen=True, kw_only=True)
class Cosine(Part):
    """Half a cosine from 1 down to `final` in `steps`, then constant: a learning-rate schedule."""

    type: Literal["cosine"] = "cosine"
    steps: Annotated[int, Hyper(low=1, doc="optimizer steps of the descent")]
    final: Annotated[float, Hyper(low=0.0, high=1.0, doc="factor at the end")] = 0.0

    def __call__(self, step: int) -> float:
        t = min(step, self.steps) / self.steps
        return self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * t))


WarmUp = Constant | Linear | Cyclic
LearningRate = Constant | Linear | Cosine
