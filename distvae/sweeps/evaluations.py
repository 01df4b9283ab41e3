"""What a scheduler of Tune is told of one configuration: one report for each evaluation, in order, when all seeds that
still run have it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from distvae.sweeps.schedulers import mean_score
from distvae.training.halving import Ranking


@dataclass
class Evaluations:
    """The evaluations of a configuration's seeds (by trial key) under a `rule`."""

    rule: Ranking
    keys: Sequence[str]
    told: int = 0  # epoch of the last report
    scores: dict[str, dict[int, float]] = field(default_factory=dict)  # key -> epoch -> score
    ended: dict[str, int] = field(default_factory=dict)  # key -> epoch

    def add(self, key: str, rows: Iterable[Mapping[str, Any]], epoch: int, status: str | None) -> None:
        """What a seed reported."""
        rows, mine = list(rows), self.scores.setdefault(key, {})
        for at in {r["epoch"] for r in rows if r["split"] == "valid"}:
            score = self.rule.score(rows, at)
            assert score is not None
            mine[at] = score
        if status is not None:
            self.ended[key] = epoch
            if status == "diverged" or epoch not in mine:
                mine[epoch] = math.nan

    def next(self) -> tuple[int, float] | None:
        """(epoch, mean score) of the next evaluation that all seeds have; None until then. A seed that diverged is
        NaN from there on."""
        due = sorted({e for mine in self.scores.values() for e in mine if e > self.told})
        for epoch in due:
            scores = [self._at(key, epoch) for key in self.keys]
            if all(s is not None for s in scores):
                self.told = epoch
                return epoch, mean_score([s for s in scores if s is not None])
        return None

    def over(self) -> bool:
        """All seeds have ended, and all evaluations been told."""
        return set(self.keys) <= self.ended.keys() and self.told >= max(self.ended.values())

    def _at(self, key: str, epoch: int) -> float | None:
        end = self.ended.get(key)
        return math.nan if end is not None and end < epoch else self.scores.get(key, {}).get(epoch)
