"""What a data part returns, the addressed split every part with a split of its own uses, and the process's memory of
loaded data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from distvae.kernels import philox
from distvae.kernels.philox import Stream
from distvae.part import Part


@dataclass(frozen=True, kw_only=True)
class DataPart(Part):
    """Defaults: pixels in [0, 1] of no particular number of levels, no labels."""

    draws: ClassVar[bool] = False  # does `seed` change the examples, or only their order?
    classes: ClassVar[int | None] = None  # of the labels; None: it has none
    unit: ClassVar[bool] = True  # is x in [0, 1]?
    binarize: ClassVar[str] = "none"

    @property
    def label(self) -> str:
        """The curve's `data`: results of two labels are never compared."""
        return self.type  # type: ignore[attr-defined]

    @property
    def levels(self) -> int | None:
        """Levels of a pixel: 256, 2, ...; None if it is real."""
        return None

    @property
    def shape(self) -> tuple[int, ...] | None:
        """x_shape, None if it is not known before loading."""
        return None


class DataError(Exception):
    """The data are missing or malformed. The message says where, what, and the remedy; the command exits 2."""


@dataclass(frozen=True)
class Split:
    """Examples of one split. `index` are their ids, unique over the whole data set: noise is addressed by them."""

    x: NDArray[np.generic]  # [N, *x_shape] uint8 0..255 or float32
    y: NDArray[np.int64] | None  # [N] class labels
    index: NDArray[np.int64]  # [N]
    factors: NDArray[np.int64] | None = None  # [N, F] factors of variation, where they are known

    def __len__(self) -> int:
        return len(self.x)

    def first(self, n: int) -> Split:
        """The first `n` examples, labels and factors with them."""
        some = (None if a is None else a[:n] for a in (self.x, self.y, self.index, self.factors))
        return Split(*some)  # type: ignore[arg-type]

    def pixels(self, rows: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        """Rows as float32; uint8 pixels become [0, 1]."""
        x = self.x[rows]
        return x.astype(np.float32) / np.float32(255.0) if x.dtype == np.uint8 else x.astype(np.float32, copy=False)


@dataclass(frozen=True)
class Dataset:
    """Train, valid (perhaps empty) and test."""

    name: str
    train: Split
    valid: Split
    test: Split

    @property
    def x_shape(self) -> tuple[int, ...]:
        return tuple(self.train.x.shape[1:])

    def splits(self) -> dict[str, Split]:
        return {k: s for k, s in (("train", self.train), ("valid", self.valid), ("test", self.test)) if len(s)}


def stratified(y: NDArray[np.int64], n: int, *, seed: int) -> NDArray[np.bool_]:
    """A mask of exactly `n` examples, each class in proportion (largest remainders), chosen by address."""
    order = philox.permutation(seed, len(y), stream=Stream.SPLIT)
    classes, counts = np.unique(y, return_counts=True)
    share = counts * n / len(y)
    take = np.floor(share).astype(int)
    take[np.argsort(-(share - take), kind="stable")[: n - take.sum()]] += 1
    chosen = np.concatenate([order[y[order] == c][:k] for c, k in zip(classes, take, strict=True)])
    mask = np.zeros(len(y), dtype=bool)
    mask[chosen] = True
    return mask


def load(part: Any) -> Dataset:
    """`part.load()`, remembered: one worker process runs hundreds of trials on the same data. Where `seed` only orders
    the examples (`draws` is false), every seed shares one copy. Nobody writes to what it returns."""
    return _load(part if part.draws else replace(part, seed=0))


@lru_cache(maxsize=4)
def _load(part: Any) -> Dataset:
    return part.load()
