"""Successive halving inside a group: ASHA's rungs (Li et al. 2020), decided per configuration with all its seeds
together, on the valid split.

A rung is an epoch, `grace` * `eta`^k. When every member has been measured there, configurations are ranked by the mean
of `metric` over their seeds and the best 1/eta go on; all seeds of a configuration share its fate. The members are those
of the *plan*, ended ones too, so a resumed group decides as an uninterrupted one did."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from distvae.part import Hyper, Part
from distvae.training.scores import score


@dataclass(frozen=True, kw_only=True)
class Ranking(Part):
    """By what a scheduler ranks trials."""

    metric: Annotated[
        Literal["elbo_nats", "objective"],
        Hyper(doc="what ranks, on the valid split: the bound (higher is better), or what training minimises (lower)"),
    ] = "elbo_nats"

    def score(self, rows: Sequence[Mapping[str, Any]], epoch: int) -> float | None:
        """What a trial scored at an epoch, higher is better, NaN if it has no value; None if it was not measured
        there."""
        return score(rows, epoch, self.metric)


@dataclass(frozen=True, kw_only=True)
class Halving(Ranking):
    """Our own successive halving, inside groups: per configuration, all its seeds together."""

    type: Literal["halving"] = "halving"
    grace: Annotated[int, Hyper(low=1, high=10**6, doc="epochs of the first rung")] = 1
    eta: Annotated[float, Hyper(above=1.0, high=100.0, doc="1 / eta of the configurations pass a rung")] = 3.0

    def rungs(self, epochs: int) -> list[int]:
        """Epochs before the last at which it decides."""
        found: list[int] = []
        at = float(self.grace)
        while round(at) < epochs:
            if not found or round(at) > found[-1]:
                found.append(round(at))
            at *= self.eta
        return found

    def stops(self, scores: Mapping[str, Iterable[float]]) -> set[str]:
        """The configurations that end at a rung, of the scores (higher is better; NaN: diverged) of the seeds of every
        one that reached it. At least one goes on. Does not depend on the order of anything: ties go by key."""
        mean = {c: _mean(s) for c, v in scores.items() if (s := list(v))}
        order = sorted(mean, key=lambda c: (-mean[c], c))
        return set(order[max(1, math.ceil(len(order) / self.eta)) :])


def _mean(scores: Sequence[float]) -> float:
    """-inf if one diverged; else correctly rounded, whatever their order."""
    return math.fsum(scores) / len(scores) if all(map(math.isfinite, scores)) else -math.inf
