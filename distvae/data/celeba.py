"""CelebA (Liu, Luo, Wang, Tang 2015): 202,599 aligned faces, 178x218, colour: the centred square of side `crop`, resized
to `size`. The literature crops 128, 140 or 148 and seldom says which; figures differ, so the label names it.

The files are as torchvision has them, `celeba/img_align_celeba/*.jpg` and `celeba/list_eval_partition.txt`, the latter
checked against the md5 of torchvision's table. torchvision's own loader also reads four tables of attributes for five
seconds and decodes JPEGs one by one at every use, so it is not called; a test holds our images to its.

`split: official` is the published partition (162,770 / 19,867 / 19,962), of each the first `n_train`, `n_valid`,
`n_test`. `split: first` takes that many images one after the other from the start: 60000, 0 and 5000 are S1's released
script, whose test images are thus part of the official training split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from distvae.data.dataset import DataError, DataPart, Dataset, divided
from distvae.data.folders import check_md5, present
from distvae.part import Hyper

_PARTITION = "list_eval_partition.txt"
_LEFT_OUT = -1


@dataclass(frozen=True, kw_only=True)
class Celeba(DataPart):
    """CelebA faces, aligned, cropped and resized, colour."""

    type: Literal["celeba"] = "celeba"
    size: Annotated[Literal[32, 64], Hyper(doc="side of the images, pixels")] = 64
    crop: Annotated[Literal[128, 140, 148], Hyper(doc="side of the centred square that is kept of 178x218")] = 148
    root: Annotated[
        str | None,
        Hyper(
            doc="folder above celeba/img_align_celeba; null = $DISTVAE_DATA/celeba, else the user's cache", key=False
        ),
    ] = None
    split: Annotated[
        Literal["official", "first"],
        Hyper(doc="the published partition, or the first n_train images, the next n_valid, the next n_test"),
    ] = "official"
    n_train: Annotated[int | None, Hyper(low=1, doc="training images; null = all of the official split")] = None
    n_valid: Annotated[int | None, Hyper(low=0, doc="validation images; null = all of the official split")] = None
    n_test: Annotated[int | None, Hyper(low=1, doc="test images; null = all of the official split")] = None

    def __post_init__(self) -> None:
        if self.split == "first" and None in self._limits:
            raise ValueError("split: first needs n_train, n_valid and n_test (S1: 60000, 0, 5000)")

    @property
    def _limits(self) -> tuple[int | None, int | None, int | None]:
        return self.n_train, self.n_valid, self.n_test

    @property
    def label(self) -> str:
        """`celeba64_crop148`, and how it is split where that is not CelebA's way."""
        base = f"celeba{self.size}_crop{self.crop}"
        if self._limits == (None, None, None):
            return base
        return "_".join([base, self.split, *("all" if n is None else str(n) for n in self._limits)])

    @property
    def shape(self) -> tuple[int, ...]:
        return 3, self.size, self.size

    def load(self) -> Dataset:
        from torchvision.datasets import CelebA

        from distvae.data.decode import decoded

        folder, images = CelebA.base_folder, f"{CelebA.base_folder}/img_align_celeba"
        root = present(
            self.type,
            self.root,
            f"{folder}/{_PARTITION}",
            images,
            hint="; torchvision.datasets.CelebA(root, download=True) fetches them",
        )
        md5 = next(md5 for _, md5, name in CelebA.file_list if name == _PARTITION)
        check_md5(root / folder / _PARTITION, md5, "Replace the file")
        names, which = _partition(root / folder / _PARTITION)
        which = self._first(len(names)) if self.split == "first" else _limited(which, self._limits)
        return divided(
            self.label, decoded(root / images, names, size=self.size, channels=3, crop=self.crop), None, which
        )

    def _first(self, n: int) -> NDArray[np.int64]:
        limits = [k or 0 for k in self._limits]
        if sum(limits) > n:
            raise DataError(f"data.n_train, n_valid, n_test: {limits} are more than the {n} images: lower them")
        return np.repeat([0, 1, 2, _LEFT_OUT], [*limits, n - sum(limits)])


def _partition(path: Path) -> tuple[list[str], NDArray[np.int64]]:
    """File names, in the file's order, and each one's split (0, 1, 2)."""
    rows = [line.split() for line in path.read_text().splitlines()]
    return [name for name, _ in rows], np.array([int(code) for _, code in rows])


def _limited(which: NDArray[np.int64], limits: tuple[int | None, ...]) -> NDArray[np.int64]:
    """`which` with only the first few of each split."""
    out = np.full_like(which, _LEFT_OUT)
    for code, limit in enumerate(limits):
        out[np.flatnonzero(which == code)[:limit]] = code
    return out
