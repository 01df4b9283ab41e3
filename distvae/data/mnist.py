"""MNIST (LeCun, Cortes, Burges): 60,000 + 10,000 grey 28x28 images of handwritten digits, by torchvision's loader. The
official test set is `test`; `valid` is held out of the official training set, the same images whatever `seed` is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from distvae.data.idx import IdxPart
from distvae.part import Hyper


@dataclass(frozen=True, kw_only=True)
class Mnist(IdxPart):
    """MNIST, 28x28, grey."""

    type: Literal["mnist"] = "mnist"
    root: Annotated[
        str | None, Hyper(doc="folder above MNIST/raw; null = $DISTVAE_DATA/mnist, else the user's cache", key=False)
    ] = None

    loader: ClassVar[str] = "MNIST"
