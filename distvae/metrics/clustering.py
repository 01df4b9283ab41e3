"""Do classes form clusters in the code? k-means on the posterior means of a whole split, its clusters against the
labels (S1's NMI, S3's ARI; neither paper states its protocol, so levels are not comparable with theirs):

    nmi = I(C; Y) / ((H(C) + H(Y)) / 2)                 arithmetic average (Strehl and Ghosh 2002 have the geometric one)
    ari = (RI - E[RI]) / (max RI - E[RI])               Hubert and Arabie 1985; 0 in expectation for random clusters

Protocol: scikit-learn's KMeans (Lloyd, k-means++ starts, at most 300 steps, tolerance 1e-4 of the mean variance), the
best by inertia of `restarts` starts drawn from `seed`; the means in float64 as they are, not standardised, so a
dimension counts by its variance. It runs on one thread, where sums are in one order: the values do not depend on the
number of threads. A code with fewer distinct points than k has as many clusters as points."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np

from distvae.metrics.codes import Codes, Whole, codes, no_labels, one_thread
from distvae.metrics.metric import Column, MetricPart
from distvae.part import Hyper

if TYPE_CHECKING:
    from distvae.metrics.subject import Subject
    from distvae.trial import Trial


def clusters(means: Codes, k: int, *, restarts: int = 10, seed: int = 0) -> Whole:
    """The cluster `[N]`, 0..k-1, of each code `[N, Z]`. Raises ValueError if k > N."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    if k > len(means):
        raise ValueError(f"k: {k} clusters of {len(means)} examples")
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than k: a collapsed code
        found = KMeans(n_clusters=k, n_init=restarts, random_state=seed).fit_predict(means)  # type: ignore[arg-type]
    return found.astype(np.int64)


def nmi(labels: Whole, found: Whole) -> float:
    """Normalised mutual information of two partitions `[N]`, in [0, 1]."""
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(labels, found, average_method="arithmetic"))


def ari(labels: Whole, found: Whole) -> float:
    """Adjusted Rand index of two partitions `[N]`, at most 1."""
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(labels, found))


@dataclass(frozen=True, kw_only=True)
class Clustering(MetricPart):
    """NMI and ARI of k-means on the posterior means against the labels."""

    type: Literal["clustering"] = "clustering"
    k: Annotated[int | None, Hyper(low=1, high=10_000, doc="clusters; null = the classes among the labels")] = None
    restarts: Annotated[int, Hyper(low=1, high=10_000, doc="starts of k-means, of which the best is kept")] = 10
    seed: Annotated[int, Hyper(low=0, high=2**32 - 1, doc="of the starts")] = 0

    def columns(self, trial: Trial) -> tuple[Column, ...]:
        k = "as many clusters as classes" if self.k is None else f"{self.k} clusters"
        how = f"of k-means on the posterior means ({k}, best of {self.restarts} starts) and the labels"
        return (
            Column("nmi", "", f"normalised mutual information {how}, arithmetic average"),
            Column("ari", "", f"adjusted Rand index {how}"),
        )

    def why_not(self, subject: Subject) -> str | None:
        few = [s for s in self.splits if subject.has(s) and len(subject.split(s)) < (self.k or 1)]
        return no_labels(subject, self.splits) or (f"fewer examples than k = {self.k} ({few[0]})" if few else None)

    def measure(self, subject: Subject, split: str) -> Mapping[str, float | int | None]:
        y = subject.labels(split)
        assert y is not None, "why_not"
        found = clusters(codes(subject, split), self.k or len(np.unique(y)), restarts=self.restarts, seed=self.seed)
        return {"nmi": nmi(y, found), "ari": ari(y, found)}
