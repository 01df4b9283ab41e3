"""FactorVAE score (Kim and Mnih 2018, Section 4 and Appendix B). A vote: fix one generating factor k, draw `batch`
examples that share its value, and take the dimension whose posterior mean varies least among them, of its variance over
the whole split,

    d* = argmin_d Var_batch(z_d) / Var(z_d)

The score is the accuracy of the classifier d* -> the factor most often fixed where d* won. Dimensions whose mean has
variance 0.01 or less are left out: the paper disregards those that collapsed to the prior. If none is left, d* is always
the same, and the score the majority's share, 1 / F. A factor that does not vary in the split is left out.

Erratum: the paper's text calls the score the classifier's error rate, its figures show the accuracy. Ours differs in
that factors take turns instead of being drawn, so that the baseline is 1 / F; that the accuracy is of as many votes
again as the classifier was made of (of the same votes it would be above chance for a useless code); and in the defaults
(the paper: 800 votes of 200). Examples are drawn by address, with replacement, from the split: given k's value, the
other factors are distributed as they are there. In a small split the examples that share a value differ by chance in
how they vary, and a useless code comes out a little above 1 / F (0.22 for 0.2 with 5,000 of dSprites' grid and 100
examples a batch; the fewer in a batch the less)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np

from distvae.kernels import philox
from distvae.kernels.philox import Stream
from distvae.metrics.codes import Codes, Whole, codes, no_factors, varying
from distvae.metrics.latent import ACTIVE
from distvae.metrics.metric import Column, MetricPart
from distvae.part import Hyper

if TYPE_CHECKING:
    from distvae.metrics.subject import Subject
    from distvae.trial import Trial

CHUNK = 2**22  # codes' entries at a time


def factorvae_score(means: Codes, factors: Whole, *, votes: int = 5_000, batch: int = 64, seed: int = 0) -> float:
    """Of posterior means `[N, Z]` and factors `[N, F]`. Raises ValueError if no factor varies."""
    factors = factors[:, varying(factors)]
    f = factors.shape[1]
    if f == 0:
        raise ValueError("factors: none varies")
    means = means[:, means.var(0, ddof=1) > ACTIVE]
    means = means / means.std(0)
    fixed = np.arange(2 * votes) % f
    won = np.zeros(2 * votes, dtype=np.int64)
    size = max(1, CHUNK // (batch * max(1, means.shape[1])))
    for start in range(0, 2 * votes if means.shape[1] else 0, size):
        some = np.arange(start, min(start + size, 2 * votes))
        rows = shared(factors, fixed[some], some, batch, seed)
        won[some] = means[rows].var(1).argmin(1)
    table = np.zeros((max(1, means.shape[1]), f), dtype=np.int64)  # [d*, k]
    np.add.at(table, (won[:votes], fixed[:votes]), 1)
    return float((table.argmax(1)[won[votes:]] == fixed[votes:]).mean())


def shared(factors: Whole, fixed: Whole, votes: Whole, batch: int, seed: int) -> Whole:
    """Rows `[V, batch]` of factors `[N, F]`, drawn for the votes of these numbers `[V]`: in each, all have the value in
    column `fixed` `[V]` that an example drawn first has."""
    u = philox.uniform(seed, Stream.RESAMPLE, index=votes, dim=1 + batch)[:, 0]
    rows = np.empty((len(votes), batch), dtype=np.int64)
    for k in np.unique(fixed):
        mine, v = fixed == k, factors[:, k]
        order = np.argsort(v, kind="stable")
        value = v[(u[mine, 0] * len(v)).astype(np.int64)]
        first, last = (np.searchsorted(v[order], value, side=side)[:, None] for side in ("left", "right"))
        rows[mine] = order[first + (u[mine, 1:] * (last - first)).astype(np.int64)]
    return rows


@dataclass(frozen=True, kw_only=True)
class FactorVae(MetricPart):
    """Majority vote on the dimension that varies least while one factor is fixed."""

    type: Literal["factorvae"] = "factorvae"
    votes: Annotated[
        int, Hyper(low=1, high=10**7, doc="batches that the classifier is made of, and as many that it is scored on")
    ] = 5_000
    batch: Annotated[int, Hyper(low=2, high=10**5, doc="examples of a batch")] = 64
    seed: Annotated[int, Hyper(low=0, high=2**63 - 1, doc="of the batches")] = 0

    def columns(self, trial: Trial) -> tuple[Column, ...]:
        doc = f"FactorVAE score: accuracy of the majority vote, {self.votes} votes of {self.batch} examples"
        return (Column("factorvae", "", f"{doc}; a useless code has 1 / (number of factors)"),)

    def why_not(self, subject: Subject) -> str | None:
        return no_factors(subject, self.splits)

    def measure(self, subject: Subject, split: str) -> Mapping[str, float | int | None]:
        factors = subject.factors(split)
        assert factors is not None, "why_not"
        score = factorvae_score(codes(subject, split), factors, votes=self.votes, batch=self.batch, seed=self.seed)
        return {"factorvae": score}
