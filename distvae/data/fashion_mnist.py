"""Fashion-MNIST (Xiao, Rasul, Vollgraf 2017): 60,000 + 10,000 grey 28x28 images of clothing, 10 classes, by
torchvision's loader. Splits as in `mnist.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from distvae.data.idx import IdxPart
from distvae.part import Hyper


@dataclass(frozen=True, kw_only=True)
class FashionMnist(IdxPart):
    """Fashion-MNIST, 28x28, grey."""

    type: Literal["fashion_mnist"] = "fashion_mnist"
    root: Annotated[
        str | None,
        Hyper(
            doc="folder above FashionMNIST/raw; null = $DISTVAE_DATA/fashion_mnist, else the user's cache", key=False
        ),
    ] = None

    loader: ClassVar[str] = "FashionMNIST"
