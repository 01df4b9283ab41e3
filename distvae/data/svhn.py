"""SVHN (Netzer, Wang, Coates, Bissacco, Wu, Ng 2011), cropped digits: 73,257 + 26,032 colour images, 32x32, 10 classes,
by torchvision's loader from `train_32x32.mat` and `test_32x32.mat` (label 10, the digit 0, becomes 0). The 531,131
`extra` images are left out. Much-copied code trains *and* tests on the training file; here `test` is the test file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np

from distvae.data.dataset import DataPart, Dataset, divided, official
from distvae.data.folders import check_md5, present
from distvae.part import Hyper


@dataclass(frozen=True, kw_only=True)
class Svhn(DataPart):
    """Street View House Numbers, cropped digits, 32x32, colour."""

    type: Literal["svhn"] = "svhn"
    root: Annotated[
        str | None,
        Hyper(doc="folder of train_32x32.mat and test_32x32.mat; null = $DISTVAE_DATA/svhn, else the cache", key=False),
    ] = None
    valid: Annotated[int, Hyper(low=0, below=73_257, doc="training images held out, stratified; 0 = none")] = 5_000

    classes: ClassVar[int | None] = 10
    shape: ClassVar[tuple[int, ...] | None] = (3, 32, 32)

    def load(self) -> Dataset:
        from torchvision.datasets import SVHN

        files = [SVHN.split_list[split] for split in ("train", "test")]
        fetch = "; torchvision.datasets.SVHN(root, split=..., download=True) fetches them"
        root = present(self.type, self.root, *(name for _, name, _ in files), hint=fetch)
        for url, name, md5 in files:
            check_md5(root / name, md5, f"Fetch it again from {url}")
        train, test = (SVHN(root, split=split) for split in ("train", "test"))
        which = official(train.labels, len(test), valid=self.valid)
        x = np.concatenate([train.data, test.data])
        return divided(self.label, x, np.concatenate([train.labels, test.labels]), which)
