"""Precision and recall of a generative model by nearest neighbours (Kynkaanniemi et al. 2019, Eqs. 1-2). The support of a
set is taken to be the union of balls around its points, each as large as the distance to the point's k-th nearest
neighbour within the set (itself not counted):

    precision   share of drawn images in a ball of real ones: are they realistic?
    recall      share of real images in a ball of drawn ones: are all kinds drawn?

The paper has k = 3 and 50,000 images a side; fewer images have larger balls, so compare values of the same number, which
is a column, and read both against the floor (training images: below 1, since a ball's edge is a matter of luck).

Float64, `ROWS` rows of distances at a time: memory O(N), time O(N^2 F)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from torch import Tensor

from distvae.metrics.against_real import AgainstReal, Figure
from distvae.part import Hyper

ROWS = 128  # of distances at a time


class PrecisionRecall(NamedTuple):
    precision: float
    recall: float


def precision_recall(drawn: Tensor, real: Tensor, k: int = 3, *, rows: int = ROWS) -> PrecisionRecall:
    """Of features `[n, F]` and `[m, F]`, n, m > k. Raises ValueError."""
    if drawn.ndim != 2 or real.ndim != 2 or drawn.shape[1] != real.shape[1]:
        raise ValueError(f"drawn, real: shapes {list(drawn.shape)} and {list(real.shape)}, expected [n, F] and [m, F]")
    if not 1 <= k < min(len(drawn), len(real)):
        raise ValueError(f"k: {k} neighbours of {len(drawn)} and {len(real)} images, expected 1 <= k < both")
    centre = real.double().mean(0)  # |x|^2 + |y|^2 - 2 x'y loses least near the origin
    drawn, real = drawn.double() - centre, real.double() - centre
    of_drawn, of_real = radii(drawn, k, rows=rows), radii(real, k, rows=rows)
    realistic = []
    covered = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for some, ball in zip(drawn.split(rows), of_drawn.split(rows), strict=True):
        d2 = _squares(some, real)
        realistic.append((d2 <= of_real).any(1))
        covered |= (d2 <= ball[:, None]).any(0)
    return PrecisionRecall(float(torch.cat(realistic).double().mean()), float(covered.double().mean()))


def radii(x: Tensor, k: int, *, rows: int = ROWS) -> Tensor:
    """Squared distance to the k-th nearest other point, `[N]`."""
    found = []
    for start in range(0, len(x), rows):
        d2 = _squares(x[start : start + rows], x)
        own = torch.arange(len(d2), device=x.device)
        d2[own, start + own] = torch.inf
        found.append(d2.topk(k, dim=1, largest=False).values[:, -1])
    return torch.cat(found)


def _squares(x: Tensor, y: Tensor) -> Tensor:
    return torch.addmm(x.square().sum(1)[:, None] + y.square().sum(1), x, y.T, alpha=-2.0).clamp_min_(0.0)


@dataclass(frozen=True, kw_only=True)
class PrecisionAndRecall(AgainstReal):
    """Share of drawn images among the real ones, and of real among the drawn (Kynkaanniemi et al. 2019)."""

    type: Literal["precision_recall"] = "precision_recall"
    k: Annotated[int, Hyper(low=1, high=1000, doc="which nearest neighbour a ball reaches")] = 3

    @property
    def least(self) -> int:
        return self.k + 1

    def figures(self) -> tuple[Figure, ...]:
        ball = f"in a ball that reaches nearest neighbour {self.k}"
        return (
            Figure("precision", "", f"share of drawn images {ball}, around a real one (higher is better)"),
            Figure("recall", "", f"share of real images {ball}, around a drawn one (higher is better)"),
        )

    def compare(self, drawn: Tensor, real: Tensor) -> tuple[float, ...]:
        return precision_recall(drawn, real, self.k)
