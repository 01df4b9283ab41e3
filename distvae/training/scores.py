"""How a trial ranks under a scheduler. Without torch: the processes that only wait read this."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

LAST = -1e30  # the mean score of what has none: Ray Tune's percentiles and means take no NaN and no infinity


def score(rows: Sequence[Mapping[str, Any]], epoch: int, metric: str) -> float | None:
    """What a trial scored at an epoch, higher is better, NaN if it has no value; None if it was not measured there.
    `metric`: `elbo_nats`, or `objective` (lower is better), on the valid split."""
    found = [r.get(metric) for r in rows if r["epoch"] == epoch and r["split"] == "valid"]
    if not found:
        return None
    sign = -1.0 if metric == "objective" else 1.0
    return sum(math.nan if v is None else sign * v for v in found) / len(found)


def mean_score(scores: Sequence[float]) -> float:
    """What a scheduler is told of a configuration: the mean over its seeds, or `LAST`."""
    mean = math.fsum(scores) / len(scores) if all(map(math.isfinite, scores)) else LAST
    return max(mean, LAST)
