"""CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 colour images, 32x32, 10 classes; or, with `subset: true`, 10,000 + 2,000
of them from `cifar10_subset.npz`, under its own label because its figures are not CIFAR-10's.

The official files are pickles, and torchvision's loader unpickles them: so it is only called once each file has the md5
of torchvision's table, which makes them the published ones. The subset is plain arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from distvae.data.arrays import archive, channels_first
from distvae.data.dataset import DataError, DataPart, Dataset, divided, official
from distvae.data.folders import check_md5, present
from distvae.part import Hyper

SUBSET = "cifar10_subset.npz"
Halves = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]  # x [N, H, W, 3], y, test


@dataclass(frozen=True, kw_only=True)
class Cifar10(DataPart):
    """CIFAR-10, 32x32, colour; or a subset of it."""

    type: Literal["cifar10"] = "cifar10"
    subset: Annotated[bool, Hyper(doc=f"10,000 + 2,000 of the images, from {SUBSET}")] = False
    root: Annotated[
        str | None,
        Hyper(
            doc=f"folder of cifar-10-batches-py or {SUBSET}; null = $DISTVAE_DATA/cifar10, else the user's cache",
            key=False,
        ),
    ] = None
    valid: Annotated[int, Hyper(low=0, below=50_000, doc="training images held out, stratified; 0 = none")] = 5_000

    classes: ClassVar[int | None] = 10
    shape: ClassVar[tuple[int, ...] | None] = (3, 32, 32)

    @property
    def label(self) -> str:
        return "cifar10_subset" if self.subset else self.type

    def load(self) -> Dataset:
        x, y, x_test, y_test = self._subset() if self.subset else self._full()
        which = official(y, len(y_test), valid=self.valid)
        images = channels_first(np.concatenate([x, x_test]), "nhwc")
        return divided(self.label, images, np.concatenate([y, y_test]), which)

    def _subset(self) -> Halves:
        path = present(self.type, self.root, SUBSET, hint=" (data.subset: true)") / SUBSET
        with archive(path) as a:
            x, x_test = (a.read(key, None, 32, 32, 3) for key in ("x_train", "x_test"))
            y, y_test = a.labels("y_train", len(x)), a.labels("y_test", len(x_test))
        if len(x) == 0 or max(y.max(), y_test.max(initial=0)) > 9:
            raise DataError(f"{path}: expected images with labels 0..9. Replace the file")
        return x, y, x_test, y_test

    def _full(self) -> Halves:
        from torchvision.datasets import CIFAR10

        folder = CIFAR10.base_folder
        fetch = (
            "; torchvision.datasets.CIFAR10(root, download=True) fetches it. "
            f"A folder with {SUBSET} instead needs data.subset: true"
        )
        root = present(self.type, self.root, folder, hint=fetch)
        meta = (CIFAR10.meta["filename"], CIFAR10.meta["md5"])
        for name, md5 in (*CIFAR10.train_list, *CIFAR10.test_list, meta):
            check_md5(root / folder / name, md5, "Replace the file")
        return *_half(CIFAR10(root, train=True)), *_half(CIFAR10(root, train=False))


def _half(data: Any) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return data.data, np.array(data.targets, dtype=np.int64)
