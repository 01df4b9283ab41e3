"""Any `.npz` of images: uint8, or floats in [0, 1], as [N, H, W], [N, C, H, W] or [N, H, W, C]. Nothing is unpickled.

The splits: keys of their own (`x_valid`, `x_test`, with `y_valid`, `y_test` where there is `y`), or one array `split` of
0 train, 1 valid, 2 test, or, for whichever has no key, by address, a share of the examples.

`levels` says what the values are, and the file is held to it: 256 (8 bits), 2 (zeros and ones, or 0 and 255), null
(floats). `name` says which data these are: it is the label and part of the trial key, which a path is not."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from distvae.data.arrays import PIXELS, Archive, archive, binary, channels_first, image_shape, layout_of
from distvae.data.dataset import TEST, TRAIN, VALID, DataError, DataPart, Dataset, addressed, check_name, divided
from distvae.data.folders import root_of
from distvae.part import Hyper


@dataclass(frozen=True, kw_only=True)
class Npz(DataPart):
    """Any .npz file of images."""

    type: Literal["npz"] = "npz"
    name: Annotated[str, Hyper(doc="which data these are: the label, and in the trial key instead of the path")]
    path: Annotated[
        str | None, Hyper(doc="the file; null = $DISTVAE_DATA/<name>.npz, else that in the user's cache", key=False)
    ] = None
    x: Annotated[str, Hyper(doc="key of the images (of the training images, where x_test or x_valid is given)")] = (
        "images"
    )
    y: Annotated[str | None, Hyper(doc="key of their labels, whole numbers from 0; null = none")] = None
    x_valid: Annotated[str | None, Hyper(doc="key of the validation images; null = a share `valid` of x")] = None
    y_valid: Annotated[str | None, Hyper(doc="key of their labels")] = None
    x_test: Annotated[str | None, Hyper(doc="key of the test images; null = a share `test` of x")] = None
    y_test: Annotated[str | None, Hyper(doc="key of their labels")] = None
    split: Annotated[str | None, Hyper(doc="key of [N] numbers: 0 train, 1 valid, 2 test; null = none")] = None
    valid: Annotated[float, Hyper(low=0.0, below=1.0, doc="share of x held out for validation, by address")] = 0.1
    test: Annotated[float, Hyper(low=0.0, below=1.0, doc="share of x held out for testing, by address")] = 0.1
    layout: Annotated[
        Literal["auto", "nhw", "nchw", "nhwc"],
        Hyper(doc="axes of the images; auto = the axis of 1 or 3 is the channels"),
    ] = "auto"
    levels: Annotated[  # type: ignore[assignment]  # a knob here, where others know it
        Literal[2, 256] | None, Hyper(doc="values of a pixel: 256 (uint8), 2 (binary), null (floats in [0, 1])")
    ] = 256

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.split and (self.x_valid or self.x_test):
            raise ValueError("split: there are x_valid or x_test too: give one or the other")
        for s in ("valid", "test"):
            x, y = getattr(self, f"x_{s}"), getattr(self, f"y_{s}")
            if (y is None) != (x is None or self.y is None):
                raise ValueError(f"y_{s}: is needed where y and x_{s} are given, and only there")

    @property
    def label(self) -> str:
        return self.name

    @property
    def shape(self) -> tuple[int, ...] | None:
        return self._known()[0]

    @property
    def classes(self) -> int | None:
        return self._known()[1]

    def load(self) -> Dataset:
        path, where = self._path()
        if not path.is_file():
            raise DataError(f"{path}: not found ({where}). Set data.path to the .npz file")
        with archive(path) as a:
            parts = {TRAIN: self._images(a, self.x)}
            parts |= {c: self._images(a, k) for c, k in ((VALID, self.x_valid), (TEST, self.x_test)) if k}
            if len({p.shape[1:] for p in parts.values()}) > 1:
                shapes = ", ".join(str(list(p.shape[1:])) for p in parts.values())
                raise DataError(f"{path}: the splits' images have different shapes: {shapes}")
            x = np.concatenate(list(parts.values())) if len(parts) > 1 else parts[TRAIN]
            keys = {TRAIN: self.y, VALID: self.y_valid, TEST: self.y_test}
            y = np.concatenate([a.labels(str(keys[c]), len(p)) for c, p in parts.items()]) if self.y else None
            which = self._which(a, {c: len(p) for c, p in parts.items()})
        return divided(self.label, x, y, which)

    def _images(self, a: Archive, key: str) -> NDArray[Any]:
        """`[N, C, H, W]`: bytes 0..255, or float32 in [0, 1]."""
        layout = layout_of(a.path, key, a.header(key)[0], self.layout)
        x = a.read(key, dtypes=PIXELS)
        if x.size == 0:
            raise DataError(f"{a.path}: {key} has no images: shape {list(x.shape)}")
        return channels_first(_values(a.path, key, x, self.levels), layout)

    def _which(self, a: Archive, sizes: dict[int, int]) -> NDArray[np.integer[Any]]:
        n = sizes.pop(TRAIN)
        if self.split:
            which = a.labels(self.split, n)
            if which.max() > TEST or not (which == TRAIN).any():
                raise DataError(f"{a.path}: {self.split} must be 0 (train), 1 (valid) or 2 (test), with some of 0")
            return which
        valid, test = (0 if c in sizes else round(n * share) for c, share in ((VALID, self.valid), (TEST, self.test)))
        return np.concatenate([addressed(n, valid=valid, test=test), *(np.full(k, c) for c, k in sizes.items())])

    def _path(self) -> tuple[Path, str]:
        base, where = root_of("", self.path, "data.path")
        return (base if self.path is not None else base / f"{self.name}.npz"), where

    def _known(self) -> tuple[tuple[int, ...] | None, int | None]:
        """Shape of x and number of classes, as far as the file tells without its images."""
        path, _ = self._path()
        try:
            return _peek(path, path.stat().st_mtime_ns, self.x, self.layout, (self.y, self.y_valid, self.y_test))
        except (DataError, OSError):
            return None, None


def _values(path: Path, key: str, x: NDArray[Any], levels: int | None) -> NDArray[Any]:
    """As a `Split` has them, if they are what `levels` says."""
    if levels == 2:
        return binary(path, key, x)
    if (levels == 256) != (x.dtype == np.uint8):
        fix = "null" if x.dtype.kind == "f" else "2" if x.dtype == bool else "256"
        raise DataError(f"{path}: {key} is {x.dtype}, and data.levels: {levels}. Did you mean data.levels: {fix}?")
    if levels == 256:
        if x.max() <= 1:
            raise DataError(f"{path}: {key} has no value above 1, of 255. Is it binary? Set data.levels: 2")
        return x
    if not (np.isfinite(x).all() and x.min() >= 0 and x.max() <= 1):
        raise DataError(f"{path}: {key} goes from {x.min():g} to {x.max():g}, expected floats in [0, 1]. Rescale it")
    return x.astype(np.float32)


@lru_cache(maxsize=64)
def _peek(
    path: Path, mtime_ns: int, x: str, layout: str, labels: tuple[str | None, ...]
) -> tuple[tuple[int, ...], int | None]:
    with archive(path) as a:
        found = a.header(x)[0]
        shape = image_shape(found, layout_of(path, x, found, layout))
        ys = [a.labels(key, a.header(key)[0][0]) for key in labels if key]
        return shape, int(max(y.max(initial=-1) for y in ys)) + 1 if ys else None
