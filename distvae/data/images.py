"""Any folder of images that Pillow can read (PNG, JPEG, BMP, GIF's first frame, WebP, TIFF, PPM; 8 bits a channel):
of each the largest centred square, resized to `size`, grey or colour (transparency is dropped).

Where every image is in a subfolder, the subfolders of `root`, in order of name, are the classes. Files are taken in
order of their path, and held out by address, so the same files give the same splits on any machine; links to folders
are not followed. `name` says which data these are: it is the label and part of the trial key, which a path is not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from distvae.data.dataset import DataError, DataPart, Dataset, addressed, check_name, divided
from distvae.data.folders import root_of
from distvae.part import Hyper

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


@dataclass(frozen=True, kw_only=True)
class Images(DataPart):
    """Any folder of images; subfolders are classes."""

    type: Literal["images"] = "images"
    name: Annotated[str, Hyper(doc="which data these are: the label, and in the trial key instead of the path")]
    root: Annotated[
        str | None, Hyper(doc="the folder; null = $DISTVAE_DATA/<name>, else that in the user's cache", key=False)
    ] = None
    size: Annotated[int, Hyper(low=1, high=4096, doc="side of the images after resizing, pixels")]
    channels: Annotated[Literal[1, 3], Hyper(doc="1 = grey, 3 = colour")] = 3
    valid: Annotated[float, Hyper(low=0.0, below=1.0, doc="share held out for validation, by address")] = 0.1
    test: Annotated[float, Hyper(low=0.0, below=1.0, doc="share held out for testing, by address")] = 0.1

    def __post_init__(self) -> None:
        check_name(self.name)

    @property
    def label(self) -> str:
        return self.name

    @property
    def shape(self) -> tuple[int, ...]:
        return self.channels, self.size, self.size

    @property
    def classes(self) -> int | None:
        root, _ = self._root()
        try:
            return _classes(root, root.stat().st_mtime_ns)
        except OSError:
            return None

    def load(self) -> Dataset:
        from distvae.data.decode import decoded

        root, where = self._root()
        names = sorted(_walk(root))
        if not names:
            what = "no images" if root.is_dir() else "not a folder"
            raise DataError(f"{root}: {what} ({where}). Set data.root to a folder of {', '.join(SUFFIXES)}")
        n = len(names)
        which = addressed(n, valid=round(n * self.valid), test=round(n * self.test))
        y = None
        if classes := _subfolders(names):
            y = np.array([classes.index(name.split("/")[0]) for name in names])
        return divided(self.label, decoded(root, names, size=self.size, channels=self.channels), y, which)

    def _root(self) -> tuple[Path, str]:
        base, where = root_of("", self.root)
        return (base if self.root is not None else base / self.name), where


def _walk(root: Path) -> Iterator[str]:
    """Paths of the images below `root`, from there, with forward slashes."""
    for folder, folders, files in os.walk(root):
        folders[:] = [f for f in folders if not f.startswith(".")]
        for f in files:
            if f.lower().endswith(SUFFIXES) and not f.startswith("."):
                yield (Path(folder) / f).relative_to(root).as_posix()


def _subfolders(names: list[str]) -> list[str] | None:
    """The classes: None if an image is in no subfolder."""
    return sorted({n.split("/")[0] for n in names}) if all("/" in n for n in names) else None


@lru_cache(maxsize=64)
def _classes(root: Path, mtime_ns: int) -> int | None:
    classes = _subfolders(list(_walk(root)))
    return len(classes) if classes else None
