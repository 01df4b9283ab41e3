"""Image files to one uint8 array, decoded once: the array is kept in the user's cache and mapped from there, so hundreds
of trials on a machine share one copy in memory and none decodes again.

The cached file's name hashes how it was made (Pillow's version too) and every image's name, size and time of change:
touch an image and it is decoded anew. What Pillow did to make an image (choices): the largest centred square, or a centred crop; then bilinear
with antialiasing, as `torchvision.transforms.Resize` does to a Pillow image."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import PIL
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image

from distvae.data.dataset import DataError
from distvae.data.folders import cache_errors, cache_folder
from distvae.files import replacing

_MODES = {1: "L", 3: "RGB"}
_DEEP = ("I", "F")  # more than 8 bits: converting would clip
_VERSION = 1  # of what is done to an image
_CHUNK = 1024  # images decoded before they are written


def decoded(
    root: Path, names: Sequence[str], *, size: int, channels: int, crop: int | None = None
) -> NDArray[np.uint8]:
    """`[N, channels, size, size]` of the images `root/name`, in this order; of each, the centred square of side `crop`
    (None = the largest)."""
    shape = (len(names), channels, size, size)
    path = cache_folder() / "decoded" / f"{_fingerprint(root, names, shape, crop)}.npy"
    found = _cached(path, shape)
    if found is None:
        make = partial(_one, size=size, channels=channels, crop=crop)
        with cache_errors(path.parent):
            _write(path, shape, [root / n for n in names], make)
        found = _cached(path, shape)
        if found is None:
            raise DataError(f"{path}: changed while it was written. Remove it")
    return found


def _cached(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """The cached array; None if it is not there, or damaged."""
    try:
        # Copy on write: shared between processes, yet writable for torch's sake.
        x = np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))
    except (OSError, ValueError, EOFError):
        return None
    return x if x.shape == shape and x.dtype == np.uint8 else None


def _write(path: Path, shape: tuple[int, ...], files: list[Path], make: Callable[[Path], bytes]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with replacing(path) as out, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        npy.write_array_header_1_0(out, header)
        for start in range(0, len(files), _CHUNK):
            for pixels in pool.map(make, files[start : start + _CHUNK]):
                out.write(pixels)


def _one(file: Path, *, size: int, channels: int, crop: int | None) -> bytes:
    """One image's pixels, channels first."""
    try:
        with Image.open(file) as image:
            if image.mode.startswith(_DEEP):
                raise DataError(f"{file}: has more than 8 bits a channel ({image.mode}): convert it to 8 bits")
            width, height = image.size
            side = crop or min(width, height)
            if side > min(width, height):
                raise DataError(f"{file}: is {width}x{height}, too small for a crop of {side}")
            left, top = round((width - side) / 2), round((height - side) / 2)
            image = image.convert(_MODES[channels]).crop((left, top, left + side, top + side))
            pixels = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
    except DataError:
        raise
    except Exception as e:  # Pillow's plugins raise anything on a damaged file
        raise DataError(f"{file}: cannot be read as an image: {e}. Replace or remove it") from e
    return pixels.reshape(size, size, channels).transpose(2, 0, 1).tobytes()


def _fingerprint(root: Path, names: Sequence[str], shape: tuple[int, ...], crop: int | None) -> str:
    digest = hashlib.sha256(f"{_VERSION} {PIL.__version__} {shape} {crop}".encode())
    for name in names:
        try:
            stat = os.stat(root / name)
        except OSError as e:
            raise DataError(f"{root / name}: {e.strerror or e}") from e
        digest.update(f"\0{name}\0{stat.st_size}\0{stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:24]
