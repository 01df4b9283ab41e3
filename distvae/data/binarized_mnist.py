"""The fixed binarisation of MNIST (Salakhutdinov and Murray 2008; Larochelle and Murray 2011): 50,000 / 10,000 / 10,000
images drawn once from the grey levels, each pixel 0 or 1, without labels. The likelihoods that papers report on "static
MNIST" are on this set; `mnist` with `binarize: dynamic` is another data set, under another label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np

from distvae.data.arrays import archive, binary
from distvae.data.dataset import TEST, TRAIN, VALID, DataPart, Dataset, divided
from distvae.data.folders import present
from distvae.part import Hyper

FILE = "binarized_mnist.npz"
_SPLITS = {"train": TRAIN, "valid": VALID, "test": TEST}


@dataclass(frozen=True, kw_only=True)
class BinarizedMnist(DataPart):
    """MNIST binarised once and for all, 28x28, with its own splits."""

    type: Literal["binarized_mnist"] = "binarized_mnist"
    root: Annotated[
        str | None,
        Hyper(doc=f"folder of {FILE}; null = $DISTVAE_DATA/binarized_mnist, else the user's cache", key=False),
    ] = None

    stored_levels: ClassVar[int | None] = 2
    shape: ClassVar[tuple[int, ...] | None] = (1, 28, 28)

    def load(self) -> Dataset:
        path = present(self.type, self.root, FILE, hint="") / FILE
        with archive(path) as a:
            parts = {key: binary(path, key, a.read(key, None, 784)) for key in _SPLITS}
        x = np.concatenate(list(parts.values())).reshape(-1, 1, 28, 28)
        return divided(self.label, x, None, np.repeat([*_SPLITS.values()], [len(p) for p in parts.values()]))
