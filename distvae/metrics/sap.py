"""Separated attribute predictability (Kumar, Sattigeri, Balakrishnan 2018, Section 3): with S_jk how well dimension j
alone predicts factor k,

    SAP = mean_k  S_ak - S_bk                                 a, b: the two dimensions with the largest S_jk

    S_jk = Cov(z_j, v_k)^2 / (Var z_j Var v_k)                ordered factors: R^2 of a line
    S_jk = balanced accuracy of thresholds on z_j             `categorical` ones

A dimension whose posterior mean has variance 0.01 or less is inactive: S_jk = 0 (the paper: "close to 0"). Thresholds
are fitted, as the paper has it, to the split they are scored on: one fewer than the factor has values, each where the
balanced Gini impurity falls most (a tree; the paper does not say how they are found). A line is blind to what goes
round: dSprites' orientation has a low S_jk even where it is known. A factor that does not vary is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from distvae.metrics.codes import Codes, Whole, codes, no_factors, varying
from distvae.metrics.latent import ACTIVE
from distvae.metrics.metric import Column, MetricPart
from distvae.part import Hyper

if TYPE_CHECKING:
    from distvae.metrics.subject import Subject
    from distvae.trial import Trial


def sap(means: Codes, factors: Whole, *, categorical: Sequence[int] = ()) -> float:
    """SAP of posterior means `[N, Z]`, factors `[N, F]`, of which those numbers are unordered. Raises ValueError if
    Z < 2 or no factor varies."""
    live = varying(factors)
    if means.shape[1] < 2 or not live.any():
        raise ValueError(f"means: {means.shape[1]} dimensions, {live.sum()} factors that vary: 2 and 1 needed")
    second, first = np.sort(scores(means, factors, categorical=categorical)[:, live], axis=0)[-2:]
    return float((first - second).mean())


def scores(means: Codes, factors: Whole, *, categorical: Sequence[int] = ()) -> NDArray[np.float64]:
    """S `[Z, F]`; 0 for inactive dimensions and factors that do not vary."""
    active, live = np.flatnonzero(means.var(0, ddof=1) > ACTIVE), np.flatnonzero(varying(factors))
    out = np.zeros((means.shape[1], factors.shape[1]))
    for j in active:
        for k in live:
            out[j, k] = (by_thresholds if k in categorical else by_line)(means[:, j], factors[:, k])
    return out


def by_line(z: NDArray[np.float64], v: Whole) -> float:
    """R^2 of the regression of v on z, `[N]`."""
    return float(np.corrcoef(z, v)[0, 1] ** 2)


def by_thresholds(z: NDArray[np.float64], v: Whole) -> float:
    """Balanced accuracy of v by thresholds on z, `[N]`."""
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(max_leaf_nodes=len(np.unique(v)), class_weight="balanced", random_state=0)
    return float(balanced_accuracy_score(v, tree.fit(z[:, None], v).predict(z[:, None])))


@dataclass(frozen=True, kw_only=True)
class Sap(MetricPart):
    """Separated attribute predictability."""

    type: Literal["sap"] = "sap"
    categorical: Annotated[
        tuple[int, ...],
        Hyper(low=0, high=10_000, doc="numbers of the factors without an order (dSprites: 0, the shape)"),
    ] = (0,)

    def columns(self, trial: Trial) -> tuple[Column, ...]:
        some = ", ".join(map(str, self.categorical)) or "none"
        doc = f"separated attribute predictability; factors by thresholds: {some}, the others by R^2"
        return (Column("sap", "", doc),)

    def why_not(self, subject: Subject) -> str | None:
        return no_factors(subject, self.splits, dimensions=2)

    def measure(self, subject: Subject, split: str) -> Mapping[str, float | int | None]:
        factors = subject.factors(split)
        assert factors is not None, "why_not"
        return {"sap": sap(codes(subject, split), factors, categorical=self.categorical)}
