"""Arrays of an `.npz`, read without unpickling, each checked against what its header announces before any memory is
taken; and images in any usual layout as `[N, C, H, W]`."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from distvae.data.dataset import DataError

BYTES = ("u1",)
WHOLE = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8")
PIXELS = ("u1", "b1", "f2", "f4", "f8")


class Archive:
    """An open `.npz`."""

    def __init__(self, path: Path, file: zipfile.ZipFile):
        self.path, self.file = path, file
        self.keys = [n.removesuffix(".npy") for n in file.namelist() if n.endswith(".npy")]

    def header(self, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and dtype, without reading the array."""
        with self._open(key) as (_, shape, dtype):
            return shape, dtype

    def read(self, key: str, *shape: int | None, dtypes: tuple[str, ...] = BYTES) -> NDArray[Any]:
        """An array of this shape (None = any size; no shape = any) and one of these dtypes."""
        with self._open(key) as (f, found, dtype):
            if dtype.str[1:] not in dtypes:
                raise DataError(f"{self.path}: {key} is {dtype}, expected {_or(str(np.dtype(d)) for d in dtypes)}")
            if shape and not _fits(found, shape):
                expected = ", ".join("any" if n is None else str(n) for n in shape)
                raise DataError(f"{self.path}: {key} has shape {list(found)}, expected [{expected}]")
            f.seek(0)
            return npy.read_array(f, allow_pickle=False)

    def labels(self, key: str, n: int) -> NDArray[np.int64]:
        """`[n]` class labels, 0 or more."""
        y = self.read(key, n, dtypes=WHOLE).astype(np.int64)
        if n and y.min() < 0:
            raise DataError(f"{self.path}: {key} has the label {y.min()}: labels are 0, 1, 2, ...")
        return y

    @contextmanager
    def _open(self, key: str) -> Iterator[tuple[BinaryIO, tuple[int, ...], np.dtype[Any]]]:
        if key not in self.keys:
            raise DataError(f"{self.path}: no array {key!r} (it has {', '.join(self.keys) or 'none'})")
        try:
            with self.file.open(f"{key}.npy") as f:
                shape, dtype = _header(f)
                if dtype.hasobject:
                    raise DataError(f"{self.path}: {key} is pickled, and nothing here unpickles: save it as numbers")
                size = self.file.getinfo(f"{key}.npy").file_size
                expected = f.tell() + math.prod(shape) * dtype.itemsize
                if size != expected:
                    raise DataError(f"{self.path}: {key} has {size} bytes, but its header announces {expected}")
                yield f, shape, dtype  # type: ignore[misc]
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as e:
            raise DataError(f"{self.path}: {key} cannot be read: {e}. Is the file whole?") from e


def _header(f: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of an open `.npy`, which is left at its first byte of data."""
    version = npy.read_magic(f)
    try:
        shape, _, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(f)
    except (SyntaxError, tokenize.TokenError) as e:
        raise ValueError("its header is no Python literal") from e
    return shape, dtype


def _fits(found: tuple[int, ...], shape: tuple[int | None, ...]) -> bool:
    return len(found) == len(shape) and all(b in (a, None) for a, b in zip(found, shape, strict=True))


def _or(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


@contextmanager
def archive(path: Path) -> Iterator[Archive]:
    """`path` as an `Archive`. Raises DataError if it is none."""
    try:
        file = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as e:
        raise DataError(f"{path}: not an .npz file: {getattr(e, 'strerror', None) or e}. Is it whole?") from e
    with file:
        yield Archive(path, file)


def layout_of(path: Path, key: str, shape: tuple[int, ...], layout: str) -> str:
    """`nhw`, `nchw` or `nhwc`. `auto` derives it: the one axis that could be 1 or 3 channels has them."""
    if layout == "auto" and len(shape) == 4:
        first, last = shape[1] in (1, 3), shape[3] in (1, 3)
        if first == last:
            why = "both the second and the last axis" if first else "neither the second nor the last axis"
            raise DataError(
                f"{path}: {key} has shape {list(shape)}: {why} could be 1 or 3 channels. Set data.layout: nchw or nhwc"
            )
        return "nchw" if first else "nhwc"
    layout = "nhw" if layout == "auto" else layout
    if len(shape) != len(layout):
        raise DataError(
            f"{path}: {key} has shape {list(shape)}, expected images [N, H, W], [N, C, H, W] or [N, H, W, C] "
            f"(data.layout: {layout})"
        )
    return layout


def image_shape(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """`(C, H, W)` of images `shape` in `layout`."""
    return {"nhw": (1, *shape[1:3]), "nchw": shape[1:], "nhwc": (shape[-1], *shape[1:3])}[layout]


def channels_first(x: NDArray[Any], layout: str) -> NDArray[Any]:
    """Images in `layout` as `[N, C, H, W]`, contiguous."""
    if layout == "nhwc":
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    return x.reshape(len(x), *image_shape(x.shape, layout))


def binary(path: Path, key: str, x: NDArray[Any]) -> NDArray[np.uint8]:
    """Zeros and ones (or 0 and 255 in bytes) as bytes 0 and 255."""
    if x.dtype == np.uint8 and x.max(initial=0) <= 1:
        return x * np.uint8(255)
    top = 255 if x.dtype == np.uint8 else 1
    on = x == top
    if np.count_nonzero(on) + np.count_nonzero(x == 0) != x.size:
        raise DataError(f"{path}: {key} has values beside 0 and {top}, so it is not binary")
    return on.astype(np.uint8) * np.uint8(255)
