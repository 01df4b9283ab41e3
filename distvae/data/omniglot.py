"""OMNIGLOT (Lake, Salakhutdinov, Tenenbaum 2015): 32,460 drawings of 1,623 characters in 50 alphabets, here at 28x28.

From `omniglot28.npz`: `images` uint8 (ink = 255), `alphabet` 0..49, and `split` (0 train, 1 valid, 2 test: 23,000 /
1,345 / 8,115). It is the official PNGs, area-averaged: *not* the `chardata.mat` of the IWAE paper, whose likelihoods are
of other pixels and another split. Hence the label `omniglot28`.

Labels are the alphabets: each is in every split, while a character has 20 drawings in all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from distvae.data.arrays import archive
from distvae.data.dataset import Binarize, DataError, DataPart, Dataset, divided
from distvae.data.folders import present
from distvae.part import Hyper

FILE = "omniglot28.npz"


@dataclass(frozen=True, kw_only=True)
class Omniglot(DataPart):
    """OMNIGLOT at 28x28, grey, labelled by alphabet."""

    type: Literal["omniglot"] = "omniglot"
    root: Annotated[
        str | None, Hyper(doc=f"folder of {FILE}; null = $DISTVAE_DATA/omniglot, else the user's cache", key=False)
    ] = None
    binarize: Binarize = "none"

    classes: ClassVar[int | None] = 50
    shape: ClassVar[tuple[int, ...] | None] = (1, 28, 28)

    @property
    def label(self) -> str:
        return "omniglot28_dynamic" if self.binarize == "dynamic" else "omniglot28"

    def load(self) -> Dataset:
        path = present(self.type, self.root, FILE, hint="") / FILE
        with archive(path) as a:
            x = a.read("images", None, 28, 28)[:, None]
            y, which = a.labels("alphabet", len(x)), a.labels("split", len(x))
        if len(x) == 0 or which.max() > 2 or y.max() >= 50:
            raise DataError(f"{path}: expected alphabets 0..49 and splits 0, 1, 2. Replace the file")
        return divided(self.label, x, y, which)
