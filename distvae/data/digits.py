"""scikit-learn's bundled handwritten digits: 1,797 real 8x8 images (UCI optical digits), 10 classes. Grey levels 0..16
become pixels in [0, 1]. A fixed stratified 80/10/10 split: 1,437 train, 180 valid, 180 test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np

from distvae.data.dataset import DataPart, Dataset, Split, stratified
from distvae.part import Hyper

_SPLIT_SEED = 0  # the split is part of the data set's identity, not a knob


@dataclass(frozen=True, kw_only=True)
class Digits(DataPart):
    """scikit-learn's handwritten digits, 8x8, bundled."""

    type: Literal["digits"] = "digits"
    seed: Annotated[int, Hyper(low=0, high=2**63 - 1, doc="order of the training examples")] = 0

    classes: ClassVar[int | None] = 10

    @property
    def levels(self) -> int:
        return 17

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, 8, 8)

    def load(self) -> Dataset:
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        x = (np.asarray(pixels).reshape(-1, 1, 8, 8) / 16.0).astype(np.float32)
        y = np.asarray(labels).astype(np.int64)
        index = np.arange(len(x))
        held = stratified(y, 360, seed=_SPLIT_SEED)
        test = held.copy()
        test[held] = stratified(y[held], 180, seed=_SPLIT_SEED + 1)
        parts = (Split(x[m], y[m], index[m]) for m in (~held, held & ~test, test))
        return Dataset("digits", *parts)
