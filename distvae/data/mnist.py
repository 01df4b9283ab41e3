"""MNIST (LeCun, Cortes, Burges): 60,000 + 10,000 grey 28x28 images of handwritten digits, by torchvision's loader. The
official test set is `test`; `valid` is held out of the official training set, the same images whatever `seed` is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from distvae.data.dataset import Binarize, DataPart, Dataset
from distvae.data.idx import load_idx
from distvae.part import Hyper


@dataclass(frozen=True, kw_only=True)
class Mnist(DataPart):
    """MNIST, 28x28, grey."""

    type: Literal["mnist"] = "mnist"
    root: Annotated[
        str | None, Hyper(doc="folder above MNIST/raw; null = $DISTVAE_DATA/mnist, else the user's cache", key=False)
    ] = None
    download: Annotated[bool, Hyper(doc="fetch into the user's cache what root lacks", key=False)] = False
    valid: Annotated[int, Hyper(low=0, below=60_000, doc="training images held out, stratified; 0 = none")] = 5_000
    binarize: Binarize = "none"

    classes: ClassVar[int | None] = 10
    shape: ClassVar[tuple[int, ...] | None] = (1, 28, 28)

    def load(self) -> Dataset:
        return load_idx(self.label, self.type, "MNIST", root=self.root, download=self.download, valid=self.valid)
