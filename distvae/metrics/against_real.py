"""Sample quality: images of a model against the real images of a split, as sets of features.

Which images. `sampler` draws z and the image is E[x|z], as the samplers give it (pixels in [0, 1] are clamped to that):
a mean, without the likelihood's pixel noise. `reconstruction` takes E[x|z] of one z ~ q(z|x) for each real image, the z
that the evaluation pass drew. Draws are addressed by the trial's seed. Real images are pixels as stored, grey also where
the model sees them binarised by draws: E[x|z] is grey too.

How many. `samples` on each side; by default as many as the split has, at most 10,000. All of these figures depend on
the number, so it is in a column; where there are more real images than that, which are compared is fixed by address.

The floor. Columns `..._real` compare training images of the same number (or as many as there are) with the split's:
what a sampler would get that draws from the data themselves. Training images of the split itself are left out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distvae.data import Split, load
from distvae.features import Classifier, FeatureNet, FeatureNetPart, Net, extract, fitted
from distvae.features.net import same_data
from distvae.kernels import philox
from distvae.kernels.philox import Stream
from distvae.metrics.metric import Column, MetricPart
from distvae.part import Hyper, Part
from distvae.samplers import Fitted, Prior, Sampler, SamplerError
from distvae.samplers.sampler import CHUNK, decode
from distvae.trial import Trial, as_data, flatten

if TYPE_CHECKING:
    from distvae.metrics.subject import Subject

FEW = 16  # images that show whether a model has diverged
LARGEST = 10_000  # images of a side by default
VALUES = 2**28  # pixels of the training examples that a sampler is fitted to, at most: 1 GiB


@dataclass(frozen=True, kw_only=True)
class Reconstruction(Part):
    """E[x|z] of one z ~ q(z|x) for each real image."""

    type: Literal["reconstruction"] = "reconstruction"


Source = Sampler | Reconstruction


class Figure(NamedTuple):
    """A number that compares two sets, as a column: its name's beginning, unit and meaning."""

    name: str
    unit: str
    doc: str
    error: bool = False  # a standard error: the floor has none


@dataclass(frozen=True, kw_only=True)
class AgainstReal(MetricPart):
    """Base of the metrics that compare features: `figures`, and `compare`, which gives them."""

    net: Annotated[FeatureNet, Hyper(doc="whose features are compared; in the column's name")] = Classifier()  # noqa: RUF009
    sampler: Annotated[Source, Hyper(doc="how images are drawn; in the column's name unless it is the prior")] = Prior()  # noqa: RUF009
    samples: Annotated[
        int | None, Hyper(low=2, high=10**6, doc="images a side; default: as many as the split has, at most 10,000")
    ] = None

    least: ClassVar[int] = 2  # images a side

    def figures(self) -> tuple[Figure, ...]:
        raise NotImplementedError

    def compare(self, drawn: Tensor, real: Tensor) -> tuple[float, ...]:
        """One number for each figure, of features `[n, F]` and `[m, F]`, float64."""
        raise NotImplementedError

    def stem(self, label: str) -> str:
        """What the columns' names say: `mnist_classifier`, `mnist_classifier_aggregated`."""
        words = [re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_"), self.net.short]
        return "_".join(words if self.sampler.type == "prior" else [*words, self.sampler.type])

    def columns(self, trial: Trial) -> tuple[Column, ...]:
        label, figures = trial.data.label, self.figures()
        stem, of = self.stem(label), self.net.doc(label)
        told = " ".join(f"{k}={v}" for k, v in flatten(as_data(self.sampler)) if k != "type")
        images = f"images E[x|z] by {self.sampler.type}{f' ({told})' if told else ''} and the split's, features: {of}"
        return (
            *(Column(f"{f.name}_{stem}{'_se' * f.error}", f.unit, f"{f.doc}; {images}") for f in figures),
            *(
                Column(
                    f"{f.name}_{stem}_real",
                    f.unit,
                    f"the floor, training images for drawn ones: {f.doc}; features: {of}",
                )
                for f in figures
                if not f.error
            ),
            Column(f"{self.type}_{stem}_samples", "images", "images drawn, or reconstructed", whole=True),
        )

    def first(self) -> str | None:
        return self.net.first()

    def why_not(self, subject: Subject) -> str | None:
        if why := self.net.refusal(subject.data):
            return why
        if isinstance(self.sampler, Reconstruction):
            return None
        if why := self.sampler.refusal(subject.vae):
            return f"sampler {self.sampler.type} {why}"
        try:
            few = _sampler(subject, self.sampler).images(FEW, subject.trial.seed)
        except SamplerError as e:
            return str(e)
        return None if few.isfinite().all() else "it draws images that are not finite: the model has diverged"

    def measure(self, subject: Subject, split: str) -> dict[str, float | int | None]:
        """Null where an image is not finite, or there are too few."""
        names = [c.name for c in self.columns(subject.trial)]
        of = _key(self, subject, split)
        real, drawn = _reference(*of).real, _drawn(subject, self, split)
        found = (None,) * len(self.figures()) if drawn is None else self.compared(drawn, real)
        floor = _floor(replace(self, sampler=Prior(), splits=()), *of)
        return dict(zip(names, [*found, *floor, None if drawn is None else len(drawn)], strict=True))

    def compared(self, drawn: Tensor, real: Tensor) -> tuple[float | None, ...]:
        """`compare`, or nulls of fewer images than `least`."""
        if min(len(drawn), len(real)) < self.least:
            return (None,) * len(self.figures())
        return self.compare(drawn, real)


class Reference(NamedTuple):
    real: Tensor  # features [m, F]
    training: Tensor  # features [n, F] of training images that are not in the split


def _key(metric: AgainstReal, subject: Subject, split: str) -> tuple[Any, ...]:
    """What the real images and their features depend on."""
    first = subject.trial.evaluate.train_examples if split == "train" else None
    return metric.net, same_data(subject.trial.data), split, first, metric.samples, subject.device


@lru_cache(maxsize=4)
def _reference(
    net: FeatureNetPart, data: Any, name: str, first: int | None, samples: int | None, device: str
) -> Reference:
    """Once a process: a sweep measures hundreds of trials against the same images."""
    whole = load(data)
    split = whole.splits()[name] if first is None else whole.splits()[name].some(first)
    rows, others = which(len(split), samples), np.flatnonzero(~np.isin(whole.train.index, split.index))
    others = others[which(len(others), samples or len(rows))]
    features = fitted(net, data, device)
    real = extract(features, _stored(split, rows, device))
    return Reference(real, extract(features, _stored(whole.train, others, device)) if len(others) else real[:0])


@lru_cache(maxsize=64)
def _floor(metric: AgainstReal, *of: Any) -> tuple[float | None, ...]:
    """Of the figures that are no error."""
    found = metric.compared(_reference(*of).training, _reference(*of).real)
    return tuple(v for f, v in zip(metric.figures(), found, strict=True) if not f.error)


def which(n: int, samples: int | None) -> NDArray[np.int64]:
    """The rows, of `n`, that are compared, in order: by address, where they are more than wanted."""
    k = samples or LARGEST
    return np.arange(n) if k >= n else np.sort(philox.permutation(0, n, stream=Stream.RESAMPLE)[:k])


def _stored(split: Split, rows: NDArray[np.int64], device: str) -> Iterator[Tensor]:
    for some in np.split(rows, range(CHUNK, len(rows), CHUNK)):
        yield torch.from_numpy(split.pixels(some)).to(device)


# --- the model's images, which the metrics of one subject share --------------------------------------------------------

_SUBJECTS: WeakKeyDictionary[Subject, dict[Any, Any]] = WeakKeyDictionary()


def _sampler(subject: Subject, part: Any) -> Fitted:
    """Fitted to the model, once."""
    made = _SUBJECTS.setdefault(subject, {})
    if part not in made:
        x = _examples(subject) if part.examples else None
        made[part] = part.fit(subject.vae, x, subject.trial.seed)
    return made[part]


def _examples(subject: Subject) -> Tensor:
    """Training examples as the model sees them: the first ones by id, where all would be too large."""
    from distvae.training.evaluate import Examples

    train = subject.data.train
    rows = np.arange(min(len(train), VALUES // subject.vae.pixels()))
    return Examples(subject.trial, train, subject.device).at(rows, subject.vae.dtype, 0)[0]


def _drawn(subject: Subject, metric: AgainstReal, split: str) -> Tensor | None:
    """Features `[n, F]` of the model's images, None if one is not finite."""
    rows = which(len(subject.split(split)), metric.samples)
    again = isinstance(metric.sampler, Reconstruction)
    key = (metric.net, metric.sampler, split if again else None, metric.samples or len(rows))
    made = _SUBJECTS.setdefault(subject, {})
    if key not in made:
        images = _reconstructed(subject, split, rows) if again else _sampled(subject, metric.sampler, key[-1])
        net = fitted(metric.net, subject.trial.data, subject.device)
        made[key] = _features(net, images, subject.trial.data.unit)
    return made[key]


def _sampled(subject: Subject, part: Any, n: int) -> Iterator[Tensor]:
    fitted = _sampler(subject, part)
    for z in fitted.latents(n, subject.trial.seed).split(CHUNK):
        yield decode(subject.vae, z, fitted.beta)


def _reconstructed(subject: Subject, split: str, rows: NDArray[np.int64]) -> Iterator[Tensor]:
    for z in subject.latents(split)[rows].split(CHUNK):
        yield decode(subject.vae, z.to(subject.device))


def _features(net: Net, images: Iterator[Tensor], unit: bool) -> Tensor | None:
    whole = list[Tensor]()
    for x in images:
        if not x.isfinite().all():
            return None
        whole.append(extract(net, [x.clamp(0, 1) if unit else x]))
    f = torch.cat(whole)
    return f if f.isfinite().all() else None
