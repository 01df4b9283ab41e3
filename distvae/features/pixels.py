"""Pixels as features, for data without labels and for vectors: as they are up to 64 of them, else the first 64 principal
components of training images, in units of a pixel. A distance between pixels hardly notices what people see, blur least
of all: compare models by it, and do not read it as quality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from distvae.features.net import FeatureNetPart, Net, hashed

if TYPE_CHECKING:
    from distvae.data import Dataset

FEATURES = 64
EXAMPLES, VALUES = 10_000, 2**25  # training images that the components are of, at most: so many, and so many pixels
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Pixels(FeatureNetPart):
    """Pixels, or their first 64 principal components over training images; needs no labels, takes vectors."""

    type: Literal["pixels"] = "pixels"

    def recipe(self) -> dict[str, Any]:
        return {"features": FEATURES, "examples": EXAMPLES, "values": VALUES, "version": VERSION}

    def doc(self, label: str) -> str:
        return f"up to {FEATURES} principal components of the pixels of {label} (not Inception; recipe {hashed(self.recipe())})"

    def make(self, data: Dataset) -> Net:
        x = data.train.pixels(slice(0, max(2, min(EXAMPLES, VALUES // data.train.x[0].size))))
        x = x.reshape(len(x), -1)
        if x.shape[1] <= FEATURES or len(x) < 2:
            return nn.Flatten()
        from sklearn.decomposition import PCA

        pca = PCA(min(FEATURES, len(x)), random_state=0).fit(x.astype("float64"))
        return Components(torch.from_numpy(pca.mean_).float(), torch.from_numpy(pca.components_).float())


class Components(nn.Module):
    """(x - mean) components^T."""

    mean: Tensor
    components: Tensor

    def __init__(self, mean: Tensor, components: Tensor):
        super().__init__()
        self.register_buffer("mean", mean)  # [P]
        self.register_buffer("components", components)  # [F, P]

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) - self.mean) @ self.components.T
