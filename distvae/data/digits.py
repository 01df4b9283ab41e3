"""scikit-learn's bundled handwritten digits: 1,797 real 8x8 images (UCI optical digits), 10 classes. Grey levels 0..16
become pixels in [0, 1]. A fixed stratified 80/10/10 split: 1,437 train, 180 valid, 180 test."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from distvae.data.dataset import SPLIT_SEED, TEST, TRAIN, VALID, DataPart, Dataset, divided, stratified


@dataclass(frozen=True, kw_only=True)
class Digits(DataPart):
    """scikit-learn's handwritten digits, 8x8, bundled."""

    type: Literal["digits"] = "digits"

    stored_levels: ClassVar[int | None] = 17
    classes: ClassVar[int | None] = 10
    shape: ClassVar[tuple[int, ...] | None] = (1, 8, 8)

    def load(self) -> Dataset:
        pixels, labels = _bundled()
        x = (np.asarray(pixels).reshape(-1, 1, 8, 8) / 16.0).astype(np.float32)
        y = np.asarray(labels).astype(np.int64)
        which = np.where(stratified(y, 360, seed=SPLIT_SEED), VALID, TRAIN)
        which[which == VALID] += stratified(y[which == VALID], 180, seed=SPLIT_SEED + 1) * (TEST - VALID)
        return divided(self.label, x, y, which)


def _bundled() -> tuple[Any, Any]:
    """(pixels `[1797, 64]` 0..16, labels) from scikit-learn's file, without its import: 2 s in every worker process."""
    spec = find_spec("sklearn")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder, "datasets", "data", "digits.csv.gz")
        if path.is_file():
            with gzip.open(path, "rt") as f:
                table = np.loadtxt(f, delimiter=",")
            return table[:, :-1], table[:, -1]
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)  # type: ignore[return-value]
