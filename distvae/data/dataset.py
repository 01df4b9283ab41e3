"""What every data part is and returns, the addressed splits of those without an official one, and the process's memory
of loaded data."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from distvae.kernels import philox
from distvae.kernels.philox import Stream
from distvae.part import Hyper, Part

TRAIN, VALID, TEST = 0, 1, 2  # codes of the splits, in arrays `which`
SPLIT_SEED = 0  # which examples are held out is part of a data set's identity, not a knob

Binarize = Annotated[
    Literal["none", "dynamic"], Hyper(doc="dynamic = at every step each pixel is drawn: 1 with probability x")
]


class DataError(Exception):
    """The data are missing or malformed. The message says where, what, and the remedy; the command exits 2."""


@dataclass(frozen=True, kw_only=True)
class DataPart(Part):
    """Base of the data sets. What is known before loading is here, so that a config can be refused without the data;
    a part states what differs."""

    type: str
    seed: Annotated[int, Hyper(low=0, high=2**63 - 1, doc="order of the training examples")] = 0

    draws: ClassVar[bool] = False  # does `seed` change the examples, or only their order?
    unit: ClassVar[bool] = True  # is x in [0, 1]?
    stored_levels: ClassVar[int | None] = 256  # values a pixel takes as stored; None = real
    classes: ClassVar[int | None] = None  # labels are 0..classes-1; None = no labels, or unknown before loading
    shape: ClassVar[tuple[int, ...] | None] = None  # of one x; None = unknown before loading
    binarize: ClassVar[Literal["none", "dynamic"]] = "none"

    @property
    def label(self) -> str:
        """The curve's `data` column: figures under one label may be compared."""
        return f"{self.type}_dynamic" if self.binarize == "dynamic" else self.type

    @property
    def levels(self) -> int | None:
        """Values a pixel takes as the model sees it: 256 (8 bits), 2 (binary), None (real)."""
        return 2 if self.binarize == "dynamic" else self.stored_levels

    def load(self) -> Dataset:
        raise NotImplementedError


@dataclass(frozen=True)
class Split:
    """Examples of one split. `index` are their ids, unique over the whole data set: noise is addressed by them."""

    x: NDArray[np.generic]  # [N, *x_shape] uint8 0..255 or float32
    y: NDArray[np.int64] | None  # [N] class labels
    index: NDArray[np.int64]  # [N]
    factors: NDArray[np.int64] | None = None  # [N, F] generating factors, each 0..size-1

    def __len__(self) -> int:
        return len(self.x)

    def first(self, n: int) -> Split:
        """The first `n` examples, labels and factors with them."""
        some = (None if a is None else a[:n] for a in (self.x, self.y, self.index, self.factors))
        return Split(*some)  # type: ignore[arg-type]

    def some(self, n: int) -> Split:
        """`n` examples chosen by address, in the split's order; all if it has no more. What is stored in order (dSprites,
        OMNIGLOT) has only some classes among its first."""
        if n >= len(self):
            return self
        rows = np.sort(philox.permutation(SPLIT_SEED, len(self), stream=Stream.RESAMPLE)[:n])
        some = (None if a is None else a[rows] for a in (self.x, self.y, self.index, self.factors))
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


def divided(
    name: str,
    x: NDArray[Any],  # [N, *x_shape]
    y: NDArray[np.int64] | None,  # [N]
    which: NDArray[np.integer[Any]],  # [N] of TRAIN, VALID, TEST; others are left out
    factors: NDArray[np.int64] | None = None,  # [N, F]
) -> Dataset:
    """The data set whose ids are the rows of `x`. A split of consecutive rows is a view, if `x` is
    contiguous."""

    def split(code: int) -> Split:
        index = np.flatnonzero(which == code)
        whole = len(index) > 0 and index[-1] - index[0] + 1 == len(index)
        rows = slice(index[0], index[-1] + 1) if whole else index
        return Split(
            np.ascontiguousarray(x[rows]),
            None if y is None else y[rows],
            index,
            None if factors is None else factors[rows],
        )

    return Dataset(name, split(TRAIN), split(VALID), split(TEST))


def official(y: NDArray[np.int64], n_test: int, *, valid: int) -> NDArray[np.int8]:
    """`which` of `len(y)` official training examples, of which `valid` are held out, stratified, and `n_test` official
    test examples after them."""
    if valid >= len(y):
        raise DataError(f"data.valid: {valid} of {len(y)} training images held out leaves none to train on: lower it")
    held = stratified(y, valid, seed=SPLIT_SEED)
    return np.concatenate([np.where(held, VALID, TRAIN), np.full(n_test, TEST)]).astype(np.int8)


def addressed(n: int, *, valid: int, test: int) -> NDArray[np.int8]:
    """`which` of `n` examples without an official split: `test` and `valid` of them by address."""
    if valid + test >= n:
        raise DataError(
            f"data.valid and data.test: {valid} and {test} of {n} examples held out leave none to train on: lower them"
        )
    order = philox.permutation(SPLIT_SEED, n, stream=Stream.SPLIT)
    which = np.full(n, TRAIN, dtype=np.int8)
    which[order[:test]], which[order[test : test + valid]] = TEST, VALID
    return which


def stratified(
    y: NDArray[np.int64], n: int, *, seed: int, stream: Stream = Stream.SPLIT, step: int = 0
) -> NDArray[np.bool_]:
    """A mask of exactly `n` examples, each class in proportion (largest remainders), chosen by address."""
    order = philox.permutation(seed, len(y), stream=stream, step=step)
    classes, counts = np.unique(y, return_counts=True)
    share = counts * n / len(y)
    take = np.floor(share).astype(int)
    take[np.argsort(-(share - take), kind="stable")[: n - take.sum()]] += 1
    chosen = np.concatenate([order[y[order] == c][:k] for c, k in zip(classes, take, strict=True)])
    mask = np.zeros(len(y), dtype=bool)
    mask[chosen] = True
    return mask


def check_name(name: str) -> None:
    """The `name` of data found by a path: it goes into labels, keys and file names."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name) or ".." in name:
        raise ValueError(
            f"name: {name!r} is not a name (letters, digits, '.', '_' and '-', at most 64, first a letter or digit)"
        )


def load(part: Any) -> Dataset:
    """`part.load()`, remembered: one worker process runs hundreds of trials on the same data. Where `seed` only orders
    the examples (`draws` is false), every seed shares one copy. Nobody writes to what it returns."""
    return _load(part if part.draws else replace(part, seed=0))


@lru_cache(maxsize=4)
def _load(part: Any) -> Dataset:
    return part.load()
