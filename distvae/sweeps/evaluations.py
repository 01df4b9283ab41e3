"""What a scheduler of Tune is told of one configuration: one report for each evaluation, in order, when all seeds that
still run have it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from distvae.training.scores import mean_score, score


@dataclass
class Evaluations:
    """The evaluations of a configuration's seeds (by trial key), ranked by `metric`."""

    metric: str
    keys: Sequence[str]
    told: int = 0  # epoch of the last report
    scores: dict[str, dict[int, float]] = field(default_factory=dict)  # key -> epoch -> score
    ended: dict[str, int] = field(default_factory=dict)  # key -> epoch
    failed: set[str] = field(default_factory=set)  # they say nothing of the configuration

    def add(self, key: str, rows: Iterable[Mapping[str, Any]], epoch: int, status: str | None) -> None:
        """What a seed reported."""
        rows, mine = list(rows), self.scores.setdefault(key, {})
        for at in {r["epoch"] for r in rows if r["split"] == "valid"}:
            found = score(rows, at, self.metric)
            mine[at] = math.nan if found is None else found
        if status == "failed":
            self.failed.add(key)
        elif status is not None:
            self.ended[key] = epoch
            if status == "diverged" or epoch not in mine:
                mine[epoch] = math.nan

    def next(self) -> tuple[int, float] | None:
        """(epoch, mean score) of the next evaluation that all seeds have; None until then. A seed that diverged is
        NaN from there on."""
        due = sorted({e for key in self._counted for e in self.scores.get(key, ()) if e > self.told})
        for epoch in due:
            scores = [self._at(key, epoch) for key in self._counted]
            if all(s is not None for s in scores):
                self.told = epoch
                return epoch, mean_score([s for s in scores if s is not None])
        return None

    def over(self) -> bool:
        """All seeds have ended, and all evaluations been told."""
        return set(self._counted) <= self.ended.keys() and self.told >= max(self.ended.values(), default=0)

    @property
    def _counted(self) -> list[str]:
        return [key for key in self.keys if key not in self.failed]

    def _at(self, key: str, epoch: int) -> float | None:
        end = self.ended.get(key)
        return math.nan if end is not None and end < epoch else self.scores.get(key, {}).get(epoch)
