"""What metrics with labels or generating factors share: the code of an example is its posterior mean, in float64; and
the reasons why there is no value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from distvae.metrics.subject import Subject

Codes = NDArray[np.float64]  # [N, Z]
Whole = NDArray[np.int64]


def one_thread() -> Any:
    """A context in which BLAS and OpenMP run on one thread: sums of floats are in one order, whatever the machine."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=1)


def codes(subject: Subject, split: str) -> Codes:
    """Posterior means of a split `[N, Z]`."""
    return subject.means(split).numpy()


def train_codes(subject: Subject, rows: Whole) -> Codes:
    """Posterior means `[len(rows), Z]` of rows of the whole train split."""
    return subject.train_means(rows).numpy()


def no_labels(subject: Subject, splits: Sequence[str]) -> str | None:
    """Why labels cannot be compared with these splits' codes, or None."""
    for name in _there(subject, splits):
        y = subject.labels(name)
        if y is None:
            return f"the data ({subject.data.name}) have no labels"
        if len(np.unique(y)) < 2:
            return f"the {name} split evaluated has labels of one class only"
    return _not_finite(subject, splits)


def no_factors(subject: Subject, splits: Sequence[str], *, dimensions: int = 1) -> str | None:
    """Why generating factors cannot be compared with these splits' codes, or None."""
    for name in _there(subject, splits):
        factors = subject.factors(name)
        if factors is None:
            return f"the data ({subject.data.name}) have no generating factors (dsprites has)"
        if not varying(factors).any():
            return f"no generating factor varies in the {name} split evaluated"
        width = subject.means(name).shape[1]
        if width < dimensions:
            return f"it compares the best two dimensions of the code, which has {width}"
    return _not_finite(subject, splits)


def varying(factors: Whole) -> NDArray[np.bool_]:
    """Which columns of `[N, F]` take more than one value."""
    return (factors != factors[:1]).any(0)


def _not_finite(subject: Subject, splits: Sequence[str]) -> str | None:
    for name in _there(subject, splits):
        if not np.isfinite(codes(subject, name)).all():
            return f"posterior means of the {name} split are not finite: the model has diverged"
    return None


def _there(subject: Subject, splits: Sequence[str]) -> list[str]:
    return [name for name in splits if subject.has(name)]
