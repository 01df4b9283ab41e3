"""What every feature net states about itself, and the features of many images by one.

Distances between features mean nothing without the net they are of, so a net has a short name, which is in the name of
every column measured with it, and a recipe, whose hash is in the column's description."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from distvae.part import Part

if TYPE_CHECKING:
    from distvae.data import Dataset

CHUNK = 500  # images through a net at a time
Net = Callable[[Tensor], Tensor]  # float32 images [B, *x_shape] in [0, 1] (real data: as they are) -> features [B, F]


class FeatureError(Exception):
    """A feature net that cannot be had or does not do what it must (exit code 2)."""


@dataclass(frozen=True, kw_only=True)
class FeatureNetPart(Part):
    """A feature net, fixed or made from the training examples of the data it is used on."""

    type: str

    @property
    def short(self) -> str:
        """Its name in columns: letters, digits and `_`."""
        return self.type

    def recipe(self) -> dict[str, Any]:
        """All that decides its features, beside the data; JSON-able."""
        raise NotImplementedError

    def first(self) -> str | None:
        """What its first use of a data set does, in words for who waits; None if nothing."""
        return None

    def doc(self, label: str) -> str:
        """What the features of the data `label` are, in words for a column's description."""
        raise NotImplementedError

    def refusal(self, data: Dataset) -> str | None:
        """Why it cannot be used on these data, and the likely fix; None if it can."""
        return None

    def make(self, data: Dataset) -> Net:
        """The net, on the CPU. Only called where `refusal` is None. Raises FeatureError."""
        raise NotImplementedError


def hashed(recipe: Any) -> str:
    """12 hex digits that name a recipe."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]


def same_data(part: Any) -> Any:
    """A data part as a key: where `seed` only orders the examples, every seed is the same data."""
    return part if part.draws else replace(part, seed=0)


def fitted(part: FeatureNetPart, data: Any, device: str = "cpu") -> Net:
    """The net of a data part, on `device`, made once a process. Raises FeatureError."""
    return _fitted(part, same_data(data), device)


@lru_cache(maxsize=8)
def _fitted(part: FeatureNetPart, data: Any, device: str) -> Net:
    from distvae.data import load

    net = part.make(load(data))
    return net.to(device).eval() if isinstance(net, nn.Module) else net


@torch.no_grad()
def extract(net: Net, images: Iterable[Tensor]) -> Tensor:
    """Features `[N, F]`, float32 on the CPU, of batches of images. Raises FeatureError if the net does not give one row
    for each image."""
    parts = []
    for batch in images:
        for x in batch.split(CHUNK):
            f = net(x.float())
            if not isinstance(f, Tensor) or f.ndim != 2 or len(f) != len(x):
                found = list(f.shape) if isinstance(f, Tensor) else type(f).__name__
                raise FeatureError(f"net: gave {found} for images {list(x.shape)}, expected features [{len(x)}, F]")
            parts.append(f.float().cpu())
    return torch.cat(parts)
