"""Disentanglement, completeness, informativeness (Eastwood and Williams 2018). A predictor of each factor from the code
gives R_jk >= 0, the importance of dimension j for factor k; with P_jk = R_jk / sum_k R_jk and Q_jk = R_jk / sum_j R_jk

    D_j = 1 - H(P_j.) / ln F        dimension j is about one factor        D = sum_j D_j sum_k R_jk / sum_jk R_jk
    C_k = 1 - H(Q_.k) / ln Z        factor k is in one dimension           C = mean_k C_k

and informativeness is how well the factors are predicted. **All three depend on the predictor**: ours are scikit-learn's
random forest classifiers (`trees` trees that see every dimension at each split, with leaves of `leaf` examples or more),
R is their normalised mean decrease in impurity, and informativeness is accuracy on examples they were not fitted to,
the mean over factors. The paper regresses, and reports errors; Locatello et al. 2019 use gradient boosting, whose cost
grows with the number of values. Splits near the leaves fit noise and make useless dimensions look important: a code of
dSprites' factors, each under noise of half its std, beside five dimensions of noise alone, has D = 0.15, 0.25, 0.50 with
leaves of 1, 5, 20, and the informativeness of the last is best. Each column of R sums to 1, so C weighted by factors
would be the same.

The forests are fitted to `examples` of the train split, drawn by address, and informativeness is measured on a whole
split (on the split `train`, the fitted examples are among those scored). A factor that does not vary among the fitted
is left out. Trees see float32 codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distvae.kernels import philox
from distvae.kernels.philox import Stream
from distvae.metrics.codes import Codes, Whole, codes, no_factors, train_codes, varying
from distvae.metrics.metric import Column, MetricPart
from distvae.part import Hyper

if TYPE_CHECKING:
    from distvae.metrics.subject import Subject
    from distvae.trial import Trial


class Dci(NamedTuple):
    disentanglement: float
    completeness: float
    informativeness: float


def dci(
    train_means: Codes,  # [n, Z]
    train_factors: Whole,  # [n, F]
    means: Codes,  # [N, Z]
    factors: Whole,  # [N, F]
    *,
    trees: int = 10,
    leaf: int = 20,
    seed: int = 0,
) -> Dci:
    """Of forests fitted to the first two arguments and scored on the others. Raises ValueError if no factor varies."""
    live = varying(train_factors)
    importance, accuracy = forests(
        train_means, train_factors[:, live], means, factors[:, live], trees=trees, leaf=leaf, seed=seed
    )
    return Dci(disentanglement(importance), completeness(importance), float(accuracy.mean()))


def forests(
    train_means: Codes, train_factors: Whole, means: Codes, factors: Whole, *, trees: int, leaf: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(importance R `[Z, F]`, accuracy `[F]`) of a forest for each factor."""
    from sklearn.ensemble import RandomForestClassifier

    if not train_factors.shape[1]:
        raise ValueError("train_factors: none varies")
    importance, accuracy = [], []
    for v_train, v in zip(train_factors.T, factors.T, strict=True):
        forest = RandomForestClassifier(
            trees,
            max_features=None,  # type: ignore[arg-type]  # all
            min_samples_leaf=leaf,
            random_state=seed,
            n_jobs=1,
        )
        forest.fit(train_means, v_train)
        importance.append(forest.feature_importances_)
        accuracy.append((forest.predict(means) == v).mean())
    return np.stack(importance, 1), np.array(accuracy)


def disentanglement(importance: NDArray[np.float64]) -> float:
    """D of R `[Z, F]`; 0 if nothing is important."""
    total = importance.sum()
    return float(_purity(importance) @ importance.sum(1) / total) if total > 0 else 0.0


def completeness(importance: NDArray[np.float64]) -> float:
    """C of R `[Z, F]`."""
    return float(_purity(importance.T).mean())


def _purity(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 - H(row) / ln(columns) of each row, normalised; 1 if there is one column, 0 for a row of zeros."""
    from scipy.stats import entropy

    if rows.shape[1] == 1:
        return np.ones(len(rows))
    some = rows.sum(1) > 0
    out = np.zeros(len(rows))
    out[some] = 1.0 - entropy(rows[some], axis=1) / np.log(rows.shape[1])
    return out


@dataclass(frozen=True, kw_only=True)
class DciScores(MetricPart):
    """Disentanglement, completeness, informativeness, by random forests."""

    type: Literal["dci"] = "dci"
    trees: Annotated[int, Hyper(low=1, high=10_000, doc="trees of a forest")] = 10
    leaf: Annotated[int, Hyper(low=1, high=10**6, doc="fewest examples in a leaf")] = 20
    examples: Annotated[int, Hyper(low=2, high=10**9, doc="training examples that forests are fitted to")] = 10_000
    seed: Annotated[int, Hyper(low=0, high=2**32 - 1, doc="of the examples and the forests")] = 0

    def columns(self, trial: Trial) -> tuple[Column, ...]:
        by = f"by random forests ({self.trees} trees, leaves of {self.leaf}, {self.examples} training examples)"
        return (
            Column("dci_disentanglement", "", f"is each dimension about one factor? 0..1, {by}"),
            Column("dci_completeness", "", f"is each factor in one dimension? 0..1, {by}"),
            Column("dci_informativeness", "", f"accuracy of predicted factors, mean over factors, {by}"),
        )

    def why_not(self, subject: Subject) -> str | None:
        return no_factors(subject, self.splits)

    def measure(self, subject: Subject, split: str) -> Mapping[str, float | int | None]:
        train, factors = subject.data.train.factors, subject.factors(split)
        assert train is not None and factors is not None, "why_not"
        rows = np.sort(philox.permutation(self.seed, len(train), stream=Stream.RESAMPLE)[: self.examples])
        got = dci(
            train_codes(subject, rows),
            train[rows],
            codes(subject, split),
            factors,
            trees=self.trees,
            leaf=self.leaf,
            seed=self.seed,
        )
        return {f"dci_{name}": value for name, value in got._asdict().items()}
