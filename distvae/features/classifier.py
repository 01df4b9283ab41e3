"""The default feature net: a small convolutional classifier of the same data, trained on their training split by a fixed
recipe; the features are its penultimate layer. What Inception is to photographs it is to these data: it knows which
differences matter to their classes, and little else.

Stride-2 convolutions until no side exceeds 4 pixels (channels 16, 32, 64, 128, ...), a dense layer of 64, the classes;
ReLU after every layer but the last; Adam with a learning rate that falls linearly to 0. Features are multiplied by one
number, such that their total variance over training images is 64: a Frechet distance of 64 is then as far as the data
are wide, whatever the data. Images are taken as stored (grey also where the model sees them binarised by draws).

One thread, addressed initial weights and batches: the same net on the same machine every time, up to rounding on
another. It is kept in the user's cache, with its accuracy on the valid and the test split."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from distvae.features.kept import kept
from distvae.features.net import CHUNK, FeatureNetPart, Net, hashed
from distvae.files import cache_folder
from distvae.kernels import philox
from distvae.nets.init import initialize
from distvae.nets.strided import Step, down, halve

if TYPE_CHECKING:
    from distvae.data import Dataset, Split

SEEN = 4096  # images that the fingerprint of a split reads


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """`version` counts changes of the code that trains, which the other fields do not show."""

    version: int = 1
    channels: int = 16  # of the first convolution, doubled by each further one,
    widest: int = 128  # up to so many
    features: int = 64
    steps: int = 1000  # or fewer:
    passes: int = 30  # so many over the training images
    batch: int = 128
    lr: float = 3e-3
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Classifier(FeatureNetPart):
    """A small classifier trained on the same data's training split and kept in the user's cache; data with labels."""

    type: Literal["classifier"] = "classifier"

    used: ClassVar[Recipe] = Recipe()

    def recipe(self) -> dict[str, Any]:
        return asdict(self.used)

    def first(self) -> str:
        return "trains a classifier as its feature net, once for each data set, and keeps it"

    def doc(self, label: str) -> str:
        return f"the penultimate layer of a small classifier trained on {label} (not Inception; recipe {hashed(self.recipe())})"

    def refusal(self, data: Dataset) -> str | None:
        why = None
        if data.train.y is None:
            why = f"the {data.name} data have no labels to train a classifier with"
        elif len(np.unique(data.train.y)) < 2:
            why = f"the {data.name} data have one class"
        elif len(data.x_shape) != 3:
            why = f"the classifier takes images [C, H, W], and x has shape {list(data.x_shape)}"
        return why and f"{why} (use net: {{type: pixels}})"

    def make(self, data: Dataset) -> Net:
        net = CnnClassifier(self.used, data.x_shape, classes(data.train))
        tensors, _ = kept(self.path(data), lambda: _trained(net, self.used, data))
        net.load_state_dict(tensors)
        return net.requires_grad_(False)

    def path(self, data: Dataset) -> Path | None:
        """Where it is kept: named by the data's label and a hash of the recipe and of the data."""
        folder, label = cache_folder(), re.sub(r"[^A-Za-z0-9_.-]", "_", data.name)
        about = [self.recipe(), data.name, list(data.x_shape), fingerprint(data.train)]
        return None if folder is None else folder / "features" / f"classifier-{label}-{hashed(about)}.safetensors"

    def card(self, data: Dataset) -> dict[str, Any]:
        """Of the kept net, trained if there is none: recipe, data, `accuracy` by split, `seconds` of training."""
        net = CnnClassifier(self.used, data.x_shape, classes(data.train))
        return kept(self.path(data), lambda: _trained(net, self.used, data))[1]


class CnnClassifier(nn.Module):
    """Images `[B, *x_shape]` to features `[B, F]`; `logits` to classes."""

    mean: Tensor
    std: Tensor
    scale: Tensor

    def __init__(self, recipe: Recipe, x_shape: tuple[int, ...], classes: int):
        super().__init__()
        steps = halvings(x_shape)
        channels = [min(recipe.channels * 2**i, recipe.widest) for i in range(len(steps))]
        h, w = steps[-1].small if steps else x_shape[1:]
        top = (channels[-1] if channels else x_shape[0]) * h * w
        self.body = nn.Sequential(
            *down(steps, channels, x_shape[0], "relu"), nn.Flatten(), nn.Linear(top, recipe.features), nn.ReLU()
        )
        self.head = nn.Linear(recipe.features, classes)
        for name, value in (("mean", 0.0), ("std", 1.0), ("scale", 1.0)):
            self.register_buffer(name, torch.tensor(value))

    def forward(self, x: Tensor) -> Tensor:
        return self.body((x - self.mean) / self.std) * self.scale

    def logits(self, x: Tensor) -> Tensor:
        return self.head(self.body((x - self.mean) / self.std))


def halvings(x_shape: tuple[int, ...]) -> list[Step]:
    """Until no side exceeds 4."""
    size, steps = (x_shape[1], x_shape[2]), []
    while max(size) > 4:
        steps.append(halve(size, even=4))
        size = steps[-1].small
    return steps


def classes(split: Split) -> int:
    assert split.y is not None, "refused without labels"
    return int(split.y.max()) + 1


def fingerprint(split: Split) -> str:
    """SHA-256 of a split: all labels, shape, and of a large one every k-th image."""
    some = np.ascontiguousarray(split.x[:: -(-len(split) // SEEN)])
    digest = hashlib.sha256(f"{split.x.shape} {split.x.dtype}".encode() + some.tobytes())
    digest.update(np.ascontiguousarray(split.y).tobytes())
    return digest.hexdigest()


@torch.enable_grad()
def train(net: CnnClassifier, recipe: Recipe, split: Split) -> None:
    """Cross-entropy of addressed batches, in place."""
    initialize(net, recipe.seed)
    some = split.pixels(np.sort(philox.permutation(recipe.seed, len(split))[:SEEN]))
    net.mean.fill_(float(some.mean()))
    net.std.fill_(max(float(some.std()), 1e-6))
    y = torch.from_numpy(np.ascontiguousarray(split.y))
    optimizer = torch.optim.Adam(net.parameters(), lr=recipe.lr)
    steps = min(recipe.steps, recipe.passes * max(1, len(split) // recipe.batch))
    for step, rows in zip(range(steps), batches(len(split), recipe), strict=False):
        optimizer.param_groups[0]["lr"] = recipe.lr * (1.0 - step / steps)
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(net.logits(torch.from_numpy(split.pixels(rows))), y[rows]).backward()
        optimizer.step()
    with torch.no_grad():
        features = torch.cat([net(torch.from_numpy(x)) for x in np.split(some, range(CHUNK, len(some), CHUNK))])
        spread = float(features.double().var(0).sum())
        net.scale.fill_((recipe.features / spread) ** 0.5 if spread > 0 else 1.0)


def batches(n: int, recipe: Recipe) -> Iterator[np.ndarray]:
    """Row numbers, without end: a new order for each pass, an incomplete last batch left out."""
    for epoch in count():
        order, size = philox.permutation(recipe.seed, n, step=epoch), min(recipe.batch, n)
        for start in range(0, n - size + 1, size):
            yield order[start : start + size]


@torch.no_grad()
def accuracy(net: CnnClassifier, split: Split) -> float:
    assert split.y is not None, "refused without labels"
    right = 0
    for start in range(0, len(split), CHUNK):
        rows = slice(start, start + CHUNK)
        right += int((net.logits(torch.from_numpy(split.pixels(rows))).argmax(1).numpy() == split.y[rows]).sum())
    return right / len(split)


def _trained(net: CnnClassifier, recipe: Recipe, data: Dataset) -> tuple[dict[str, Tensor], dict[str, Any]]:
    began = time.perf_counter()
    with _one_thread():
        train(net, recipe, data.train)
        seconds = time.perf_counter() - began
        found = {name: accuracy(net, s) for name, s in data.splits().items() if name != "train" and s.y is not None}
    card = {
        "recipe": asdict(recipe),
        "data": data.name,
        "x_shape": list(data.x_shape),
        "train": len(data.train),
        "accuracy": found,
        "seconds": seconds,
        "torch": str(torch.__version__),
    }
    return {name: t.detach().clone() for name, t in net.state_dict().items()}, card


@contextmanager
def _one_thread() -> Iterator[None]:
    """The order of sums depends on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
