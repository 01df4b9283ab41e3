"""Fashion-MNIST (Xiao, Rasul, Vollgraf 2017): 60,000 + 10,000 grey 28x28 images of clothing, 10 classes, by
torchvision's loader. Splits as in `mnist.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from distvae.data.dataset import Binarize, DataPart, Dataset
from distvae.data.idx import load_idx
from distvae.part import Hyper


@dataclass(frozen=True, kw_only=True)
class FashionMnist(DataPart):
    """Fashion-MNIST, 28x28, grey."""

    type: Literal["fashion_mnist"] = "fashion_mnist"
    root: Annotated[
        str | None,
        Hyper(
            doc="folder above FashionMNIST/raw; null = $DISTVAE_DATA/fashion_mnist, else the user's cache", key=False
        ),
    ] = None
    download: Annotated[bool, Hyper(doc="fetch into the user's cache what root lacks", key=False)] = False
    valid: Annotated[int, Hyper(low=0, below=60_000, doc="training images held out, stratified; 0 = none")] = 5_000
    binarize: Binarize = "none"

    classes: ClassVar[int | None] = 10
    shape: ClassVar[tuple[int, ...] | None] = (1, 28, 28)

    def load(self) -> Dataset:
        return load_idx(self.label, self.type, "FashionMNIST", root=self.root, download=self.download, valid=self.valid)
