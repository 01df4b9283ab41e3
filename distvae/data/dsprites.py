"""dSprites (Matthey, Higgins, Hassabis, Lerchner 2017): binary 64x64 images of one sprite, with the factors that made
them: shape, scale, orientation, x, y. Labels are the shapes (square, ellipse, heart).

Three files, one part, three labels:

    full     dsprites_ndarray_co1sh3sc6or40x32x32_64x64.npz, all 737,280 images; factors of sizes 3 6 40 32 32
    grid     dsprites_downsampled.npz, every 4th orientation and 2nd position: 46,080; sizes 3 6 10 16 16, all combined
    random   dsprites_subset.npz, 20,000 images of the full set, factors as there

The constant factor (colour) is dropped. There is no official split: ours is by address. The pickled `metadata` is never
opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np

from distvae.data.arrays import WHOLE, archive, binary
from distvae.data.dataset import DataError, DataPart, Dataset, addressed, divided
from distvae.data.folders import present
from distvae.part import Hyper

FILES = {
    "full": "dsprites_ndarray_co1sh3sc6or40x32x32_64x64.npz",
    "grid": "dsprites_downsampled.npz",
    "random": "dsprites_subset.npz",
}


@dataclass(frozen=True, kw_only=True)
class Dsprites(DataPart):
    """dSprites, 64x64, binary, with its five factors."""

    type: Literal["dsprites"] = "dsprites"
    subset: Annotated[
        Literal["full", "grid", "random"],
        Hyper(doc="737,280 images, a grid of 46,080 (all factors combined), or 20,000 drawn at random"),
    ] = "grid"
    root: Annotated[
        str | None, Hyper(doc="folder of the .npz; null = $DISTVAE_DATA/dsprites, else the user's cache", key=False)
    ] = None
    valid: Annotated[int, Hyper(low=0, below=737_280, doc="images held out for validation, by address")] = 2_000
    test: Annotated[int, Hyper(low=0, below=737_280, doc="images held out for testing, by address")] = 5_000

    stored_levels: ClassVar[int | None] = 2
    classes: ClassVar[int | None] = 3
    shape: ClassVar[tuple[int, ...] | None] = (1, 64, 64)

    @property
    def label(self) -> str:
        return self.type if self.subset == "full" else f"{self.type}_{self.subset}"

    def load(self) -> Dataset:
        name = FILES[self.subset]
        path = present(self.type, self.root, name, hint=f" (data.subset: {self.subset})") / name
        with archive(path) as a:
            x = binary(path, "imgs", a.read("imgs", None, 64, 64))[:, None]
            factors = a.read("latents_classes", len(x), None, dtypes=WHOLE).astype(np.int64)
        factors = factors[:, -5:]  # a leading sixth is the constant colour
        if factors.shape[1] != 5 or len(x) == 0 or factors.min() < 0 or factors[:, 0].max() > 2:
            raise DataError(
                f"{path}: latents_classes are not [N, 5] whole numbers of shape (0, 1, 2), scale, orientation, x, y. "
                "Replace the file"
            )
        which = addressed(len(x), valid=self.valid, test=self.test)
        return divided(self.label, x, factors[:, 0], which, factors)
