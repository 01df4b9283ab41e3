"""MNIST and its relatives in idx files (LeCun), read by torchvision's own loaders.

Two things those do not do. They unpack beside the originals, so a folder that cannot be written, or that many workers
read at once, fails: here a folder of `.gz` files is only ever read, and each file, once it has the md5 of torchvision's
table, is unpacked into the user's cache by rename. And they assert on a bad header: here every file is checked first,
and the error says which one and what to do.

`$DISTVAE_DATA/<type>` is the default folder, then the user's cache ($XDG_CACHE_HOME/distvae). A folder is laid out as
torchvision has it: `MNIST/raw/train-images-idx3-ubyte[.gz]`, and three more. Downloads go to the cache, never there."""

from __future__ import annotations

import gzip
import math
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np

from distvae.data.dataset import Binarize, DataError, DataPart, Dataset, divided, official
from distvae.data.folders import cache_errors, cache_folder, check_md5, root_of
from distvae.files import replacing
from distvae.part import Hyper

_SIZE = 28
_UBYTE = 8  # idx's code of unsigned bytes


@dataclass(frozen=True, kw_only=True)
class IdxPart(DataPart):
    """60,000 + 10,000 grey 28x28 images of 10 classes; a part adds `type`, `root` and the loader."""

    root: str | None = None
    download: Annotated[bool, Hyper(doc="fetch into the user's cache what root lacks", key=False)] = False
    valid: Annotated[int, Hyper(low=0, below=60_000, doc="training images held out, stratified; 0 = none")] = 5_000
    n_train: Annotated[int | None, Hyper(low=1, doc="only the first of the training images; null = all")] = None
    n_test: Annotated[int | None, Hyper(low=1, doc="only the first of the test images; null = all")] = None
    binarize: Binarize = "none"

    classes: ClassVar[int | None] = 10
    shape: ClassVar[tuple[int, ...] | None] = (1, _SIZE, _SIZE)
    loader: ClassVar[str]  # torchvision's class

    @property
    def label(self) -> str:
        """Says that images are left out, if they are: `mnist_first_1000_all`."""
        base, limits = super().label, (self.n_train, self.n_test)
        return base if limits == (None, None) else "_".join([base, "first", *(str(n or "all") for n in limits)])

    def load(self) -> Dataset:
        whole = load_idx(self)
        train = whole.train if self.n_train is None else whole.train.first(self.n_train)
        test = whole.test if self.n_test is None else whole.test.first(self.n_test)
        return Dataset(self.label, train, whole.valid, test)


def load_idx(part: IdxPart) -> Dataset:
    """The whole of it by torchvision's loader: uint8 `[N, 1, 28, 28]`, ids in file order, then test."""
    import torchvision.datasets  # seconds, and only these loaders need it

    loader, download = part.loader, part.download
    original = getattr(torchvision.datasets, loader)
    # The loader finds its folder by its class's name, and would unpickle an old `processed/training.pt`.
    reader = type(loader, (original,), {"_check_legacy_exist": lambda self: False})
    folder = _folder(part.type, loader, reader, root=part.root, download=download)
    train, test = (reader(folder, train=t, download=False) for t in (True, False))
    x = np.concatenate([train.data.numpy(), test.data.numpy()])[:, None]
    y = np.concatenate([train.targets.numpy(), test.targets.numpy()])
    return divided(part.label, x, y, official(train.targets.numpy(), len(test), valid=part.valid))


def _folder(kind: str, loader: str, reader: Any, *, root: str | None, download: bool) -> Path:
    """A folder with the four files unpacked and sound."""
    packed = {name: md5 for name, md5 in reader.resources}
    plain = [name.removesuffix(".gz") for name in packed]
    base, where = root_of(kind, root)
    raw, cache = base / loader / "raw", cache_folder()
    if all((raw / name).is_file() for name in plain):
        _check(raw, plain)
        return base
    missing = [name for name in packed if not (raw / name).is_file()]
    if missing and download:
        _download(reader, cache)
    elif missing:
        raise DataError(
            f"{raw}: {', '.join(missing)} not found ({where}). "
            f"Set data.root to the folder that holds {loader}/raw/*-ubyte[.gz], or data.download: true"
        )
    else:
        for name, md5 in packed.items():
            _unpack(raw / name, md5, cache / loader / "raw" / name.removesuffix(".gz"))
    _check(cache / loader / "raw", plain)
    return cache


def _unpack(source: Path, md5: str, target: Path) -> None:
    # Checked even when the cache has it: a damaged original must not depend on who ran first.
    check_md5(source, md5, "Replace the file, or remove it and set data.download: true")
    if not target.is_file():
        with gzip.open(source) as f, cache_errors(target.parent), replacing(target) as out:
            shutil.copyfileobj(f, out)


def _download(reader: Any, cache: Path) -> None:
    """torchvision's download, in a folder of its own: it writes in place, and another worker may read the cache."""
    raw = cache / reader.__name__ / "raw"
    plain = [name.removesuffix(".gz") for name, _ in reader.resources]
    if all((raw / name).is_file() for name in plain):
        return
    with cache_errors(cache):
        cache.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(dir=cache, prefix=".download-")
    with temporary as folder:
        try:
            got = Path(reader(folder, download=True).raw_folder)
        except (RuntimeError, OSError) as e:
            raise DataError(
                f"{raw}: download failed: {' '.join(str(e).split())} Fetch the four files yourself "
                f"and set data.root to the folder that holds {reader.__name__}/raw"
            ) from e
        for name in plain:
            with (got / name).open("rb") as f, cache_errors(raw), replacing(raw / name) as out:
                shutil.copyfileobj(f, out)


def _check(raw: Path, names: list[str]) -> None:
    """Headers, sizes, and as many labels as images."""
    counts = {name: _idx_count(raw / name, (_SIZE, _SIZE) if "images" in name else ()) for name in names}
    for split in {name.split("-")[0] for name in names}:
        if len({n for name, n in counts.items() if name.startswith(split)}) > 1:
            raise DataError(f"{raw}: the {split} files disagree on the number of images: {counts}. Replace them")


def _idx_count(path: Path, item: tuple[int, ...]) -> int:
    """Items in an idx file of unsigned bytes: magic 0 0 8 ndim, big-endian sizes, then the bytes they announce."""
    remedy = "Replace the file, or remove its folder and set data.download: true"
    with path.open("rb") as f:
        head = f.read(4 * (len(item) + 2))
    magic = bytes((0, 0, _UBYTE, len(item) + 1))
    if len(head) < 4 * (len(item) + 2) or head[:4] != magic:
        raise DataError(
            f"{path}: not an idx file of this kind: begins {head[:4].hex()}, expected {magic.hex()}. {remedy}"
        )
    n, *shape = np.frombuffer(head[4:], dtype=">u4").tolist()
    if tuple(shape) != item or n == 0:
        raise DataError(f"{path}: {n} items of shape {tuple(shape)}, expected some of shape {item}. {remedy}")
    size, expected = path.stat().st_size, len(head) + n * math.prod(item)
    if size != expected:
        raise DataError(f"{path}: {size} bytes, but its header announces {expected}. {remedy}")
    return n
