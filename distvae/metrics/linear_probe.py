"""How well a linear classifier reads the labels from the code, by the number of labels it may see (S2.10).

Multinomial logistic regression on posterior means, features standardised by mean and std of the labelled examples,
which minimises

    sum_i -log softmax(W z_i + b)[y_i]  +  |W|^2 / (2 c)                        the intercept b is free

(scikit-learn, L-BFGS). c is fixed: cross-validated on 100 labels it is mostly noise, and the draws would differ in it.
As the penalty is on a sum, it fades as labels grow.

The labelled examples are drawn from the whole train split by address, each class in proportion; accuracy is that on a
whole split, the mean over `draws` such subsets and their standard deviation. If all train examples are labelled there
is one subset, and no standard deviation. On the split `train` the labelled ones are among those that are scored."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np

from distvae.data.dataset import stratified
from distvae.kernels.philox import Stream
from distvae.metrics.codes import Codes, Whole, codes, no_labels, one_thread, train_codes
from distvae.metrics.metric import Column, MetricPart
from distvae.part import Hyper

if TYPE_CHECKING:
    from distvae.metrics.subject import Subject
    from distvae.trial import Trial


def labelled(y: Whole, n: int, *, draws: int = 1, seed: int = 0) -> list[Whole]:
    """Rows of `draws` stratified subsets of `n` of the labels `[N]`; one if that is all of them. Raises ValueError."""
    if n > len(y):
        raise ValueError(f"n: {n} of {len(y)} labels")
    draws = draws if n < len(y) else 1
    masks = [stratified(y, n, seed=seed, stream=Stream.RESAMPLE, step=draw) for draw in range(draws)]
    return [np.flatnonzero(mask) for mask in masks]


def probe_accuracy(
    train_means: Codes,  # [n, Z]
    train_labels: Whole,  # [n]
    means: Codes,  # [N, Z]
    labels: Whole,  # [N]
    c: float = 1.0,
) -> float:
    """The share of `labels` that a probe fitted to the first two arguments gets right."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(np.unique(train_labels)) < 2:  # all it can say
        return float((labels == train_labels[0]).mean())
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000))
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # after 1000 steps of a strongly convex problem
        return float((probe.fit(train_means, train_labels).predict(means) == labels).mean())


@dataclass(frozen=True, kw_only=True)
class LinearProbe(MetricPart):
    """Accuracy of logistic regression on the posterior means, by number of labels."""

    type: Literal["linear_probe"] = "linear_probe"
    labels: Annotated[
        tuple[int, ...], Hyper(low=2, high=10**9, doc="numbers of labelled training examples, a column each")
    ] = (100, 1_000, 10_000)
    draws: Annotated[int, Hyper(low=1, high=10_000, doc="labelled subsets that the accuracy is averaged over")] = 5
    c: Annotated[float, Hyper(above=0.0, doc="inverse weight of the penalty on the standardised weights")] = 1.0
    seed: Annotated[int, Hyper(low=0, high=2**63 - 1, doc="of the labelled subsets")] = 0

    def __post_init__(self) -> None:
        if not self.labels or len(set(self.labels)) < len(self.labels):
            raise ValueError("labels: at least one number, each once")

    def columns(self, trial: Trial) -> tuple[Column, ...]:
        said = []
        for n in self.labels:
            name, probe = f"probe_accuracy_{n}", f"linear probe on the posterior means, {n} labels"
            null = "null if the train split has fewer examples"
            said += [
                Column(name, "", f"accuracy of a {probe} (c = {self.c:g}), mean of {self.draws} subsets; {null}"),
                Column(f"{name}_sd", "", f"accuracy of a {probe}: standard deviation over subsets; null if one"),
            ]
        return tuple(said)

    def why_not(self, subject: Subject) -> str | None:
        n = len(subject.data.train)
        few = f"the train split has {n} examples, fewer than {min(self.labels)} labels"
        return no_labels(subject, self.splits) or (few if n < min(self.labels) else None)

    def measure(self, subject: Subject, split: str) -> Mapping[str, float | int | None]:
        y_train, y = subject.data.train.y, subject.labels(split)
        assert y_train is not None and y is not None, "why_not"
        subsets = {n: labelled(y_train, n, draws=self.draws, seed=self.seed) for n in self.labels if n <= len(y_train)}
        rows = np.unique(np.concatenate([r for some in subsets.values() for r in some]))
        z_train, z = train_codes(subject, rows), codes(subject, split)
        values: dict[str, float | None] = {}
        for n in self.labels:
            got = [
                probe_accuracy(z_train[np.searchsorted(rows, r)], y_train[r], z, y, self.c) for r in subsets.get(n, ())
            ]
            values[f"probe_accuracy_{n}"] = float(np.mean(got)) if got else None
            values[f"probe_accuracy_{n}_sd"] = float(np.std(got, ddof=1)) if len(got) > 1 else None
        return values
