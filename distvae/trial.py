"""A trial: the whole description of one run, its keys, and what is derived from it.

The trial key hashes the canonical config: fields at their default omitted (a later default is a new
`PROTOCOL_VERSION`), whatever cannot change a number left out (`Hyper(key=False)`: paths, the number of epochs). Same
key, same rows to 1e-4."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from functools import cache, cached_property
from typing import Annotated, Any, Literal

import torch

from distvae.data import Data
from distvae.data.digits import Digits
from distvae.estimators import Pathwise
from distvae.objectives import Elbo, Objective
from distvae.part import Hyper, Part, knobs
from distvae.schedules import Constant, LearningRate
from distvae.vae import Model

PROTOCOL_VERSION = 1
KNOBS = {  # the five axes, as columns of the curve
    "r": "vae.prior.r",
    "beta": "objective.beta",
    "gamma": "vae.posterior.gamma",
    "p_keep": "vae.posterior.p_keep",
    "latent_dim": "vae.latent_dim",
}


@dataclass(frozen=True, kw_only=True)
class Train(Part):
    """How a trial is optimised. Schedules count optimizer steps."""

    epochs: Annotated[int, Hyper(low=1, high=10**6, doc="passes over the training examples", key=False)] = 20
    batch_size: Annotated[int, Hyper(low=1, high=10**6, doc="examples in a global batch, all workers together")] = 128
    optimizer: Annotated[Literal["adam", "adamw", "sgd"], Hyper(doc="optimizer")] = "adam"
    lr: Annotated[float, Hyper(above=0.0, high=100.0, doc="learning rate")] = 1e-3
    lr_schedule: Annotated[LearningRate, Hyper(doc="factor on the learning rate")] = Constant()  # noqa: RUF009
    weight_decay: Annotated[float, Hyper(low=0.0, doc="weight decay (decoupled for adamw)")] = 0.0
    momentum: Annotated[float, Hyper(low=0.0, below=1.0, doc="momentum of sgd")] = 0.0
    clip_norm: Annotated[float | None, Hyper(above=0.0, doc="largest gradient norm; null = no clipping")] = None
    samples: Annotated[int, Hyper(low=1, high=4096, doc="latent samples z per x in a step")] = 1
    dtype: Annotated[
        Literal["float32", "float64", "bfloat16", "float16"],
        Hyper(
            doc="dtype of weights and activations; bfloat16, float16: the nets' in training, and weights, KL and "
            "evaluation in float32 (float16 with dynamic loss scaling)"
        ),
    ] = "float32"


@dataclass(frozen=True, kw_only=True)
class Evaluate(Part):
    """Evaluation passes, over whole splits."""

    every: Annotated[
        int, Hyper(low=1, high=10**6, doc="epochs between passes (the last epoch always has one)", key=False)
    ] = 1
    samples: Annotated[int, Hyper(low=1, high=4096, doc="latent samples z per x")] = 1
    train_examples: Annotated[int, Hyper(low=1, doc="training examples of the train rows, chosen by address")] = 10_000
    gradient_draws: Annotated[
        int, Hyper(low=0, high=10_000, doc="noise draws for gradient_variance on the first training batch; 0 = off")
    ] = 0

    def __post_init__(self) -> None:
        if self.gradient_draws == 1:
            raise ValueError("gradient_draws: one draw has no variance (write 0 for off, or 2 or more)")


@dataclass(frozen=True, kw_only=True)
class Trial(Part):
    """One complete description of a VAE run."""

    data: Annotated[Data, Hyper(doc="data set")] = Digits()  # noqa: RUF009
    vae: Annotated[Model, Hyper(doc="the model's parts")] = Model()  # noqa: RUF009
    objective: Annotated[Objective, Hyper(doc="what training minimises")] = Elbo()  # noqa: RUF009
    train: Annotated[Train, Hyper(doc="optimisation")] = Train()
    evaluate: Annotated[Evaluate, Hyper(doc="evaluation passes")] = Evaluate()
    seed: Annotated[int, Hyper(low=0, high=2**63 - 1, doc="initial weights and latent noise")] = 0

    @cached_property
    def key(self) -> str:
        """16 hex digits naming the numbers this trial gives."""
        return _hash({"protocol": PROTOCOL_VERSION, "trial": self._canonical})

    @cached_property
    def config_key(self) -> str:
        """The key without the seed, that of seed 0: what a confidence interval averages over."""
        seedless = {name: value for name, value in self._canonical.items() if name != "seed"}
        return _hash({"protocol": PROTOCOL_VERSION, "trial": seedless})

    @cached_property
    def _canonical(self) -> dict[str, Any]:
        return canonical(self)

    @cached_property
    def fusion_group(self) -> str:
        """Trials of one group differ only in seed, float knobs that are tensors in the mathematics, and (where it can be
        masked) latent_dim: they can train as one stacked model."""
        skip = {"seed", "latent_dim"} if self.maskable else {"seed"}
        return _hash([_skeleton(replace(self, data=Digits()), frozenset(skip)), as_data(self.data)])

    @property
    def maskable(self) -> bool:
        """Can it train as part of a wider model, its extra dimensions masked? Where every dimension stands for itself."""
        vae = self.vae
        alone = vae.posterior.gaussian and vae.prior.factorised and not vae.prior.labels and vae.conditioning is None
        return alone and isinstance(vae.gradient(), Pathwise) and self.objective.maskable

    @cached_property
    def skeleton(self) -> str:
        """Trials of one skeleton have the same parts: they differ only in floats, seed and latent_dim."""
        return _hash([_skeleton(replace(self, data=Digits()), frozenset({"seed", "latent_dim"})), as_data(self.data)])

    @property
    def dtype(self) -> torch.dtype:
        """Of weights, losses and evaluation."""
        return torch.float64 if self.train.dtype == "float64" else torch.float32

    def config(self) -> dict[str, Any]:
        """Everything, defaults included, as JSON-able data."""
        return as_data(self)

    def flat(self) -> dict[str, Any]:
        """Dotted name -> value: the Tune space, the MLflow params, the plan's columns."""
        return dict(flatten(self.config()))

    @property
    def label(self) -> str:
        """The axes and the seed, as people write them: `r=0.5 beta=1 d=8 seed=0`."""
        named = {k: v for k, v in self.knob_columns().items() if v is not None}
        named["d"] = named.pop("latent_dim")
        return " ".join(f"{k}={v:g}" for k, v in {**named, "seed": self.seed}.items())

    def knob_columns(self) -> dict[str, Any]:
        """The five axes, null where no part has the knob."""
        flat = self.flat()
        return {name: flat.get(path) for name, path in KNOBS.items()}


def canonical(part: Any) -> Any:
    """Nested data with defaults and `key=False` fields omitted; the `type` tag always stays."""
    known = _fields(type(part))
    if known is None:
        return list(part) if isinstance(part, tuple) else part
    out = {}
    for f in known:
        value = getattr(part, f.name)
        if f.name == "type" or not (f.name in _silent(type(part)) or _is_default(f, value)):
            out[f.name] = canonical(value)
    return out


def as_data(part: Any) -> Any:
    """Nested dicts, lists and scalars, defaults included."""
    known = _fields(type(part))
    if known is not None:
        return {f.name: as_data(getattr(part, f.name)) for f in known}
    return [as_data(v) for v in part] if isinstance(part, tuple) else part


@cache
def _fields(kind: type) -> tuple[Field[Any], ...] | None:
    """Of a dataclass; looked up once, for a sweep asks for those of 10,000 trials."""
    return fields(kind) if is_dataclass(kind) else None


@cache
def _silent(kind: type[Part]) -> frozenset[str]:
    """Fields that cannot change a number."""
    return frozenset(f.name for f, _, hyper in knobs(kind) if not hyper.key)


@cache
def _static(kind: type[Part]) -> frozenset[str]:
    """Floats that reach the mathematics as Python numbers."""
    return frozenset(f.name for f, _, hyper in knobs(kind) if hyper.static)


def flatten(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in data.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _is_default(f: Any, value: Any) -> bool:
    if f.default is MISSING or type(f.default) is not type(value):
        return False
    if value is f.default:
        return True
    if (
        _fields(type(value)) is not None
    ):  # by what counts: `train: {epochs: 10}` differs from the default in no field of the key
        return canonical(value) == canonical(f.default)
    return f.default == value


def _skeleton(part: Any, skip: frozenset[str]) -> Any:
    """The part without the names in `skip`, every float that may differ between stacked trials as "float"."""
    known = _fields(type(part))
    if known is not None:
        static = _static(type(part))
        values = {f.name: getattr(part, f.name) for f in known if f.name not in skip}
        return {name: as_data(v) if name in static else _skeleton(v, skip) for name, v in values.items()}
    if isinstance(part, tuple):
        return [_skeleton(v, skip) for v in part]
    return "float" if isinstance(part, float) else part


def _hash(data: Any) -> str:
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
