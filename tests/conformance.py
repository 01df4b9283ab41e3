"""A small trial around each part of each union, found by walking the unions: a new part is in every test that uses
`CASES` the moment it is in its union, with one variant for each alternative of its switches."""

from __future__ import annotations

import itertools
import tempfile
import types
from collections.abc import Iterator
from dataclasses import MISSING, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np
from sklearn.datasets import load_digits

from distvae import estimators, likelihoods, nets, objectives, posteriors, priors
from distvae.data import Data, Npz
from distvae.objectives import BetaInput, Elbo
from distvae.part import Part, knobs
from distvae.schedules import WarmUp
from distvae.trial import Evaluate, Train, Trial
from distvae.vae import Model

UNIONS = {
    "net": nets.Net,
    "conditioning": nets.Conditioning,
    "posterior": posteriors.Posterior,
    "prior": priors.Prior,
    "likelihood": likelihoods.Likelihood,
    "estimator": estimators.Estimator,
    "objective": objectives.Objective,
}
SMALL = {  # of the knobs that only make the default parts slow
    "film": {"hidden": 8},
    "vamp": {"components": 12},
    "conv": {"channels": (4,), "top": 8, "hidden": 8},
    "conv_large": {"channels": (4,), "top": 8, "hidden": 8},
    "conv3x3": {"channels": (4, 6)},
}
REQUIRED = {"eigenvalues": (2.0, 1.0), "name": "some", "size": 8, "root": "somewhere"}
D = 3
Schedule = get_args(WarmUp)  # tested in test_schedules.py


def members(union: Any) -> tuple[type[Part], ...]:
    return get_args(union) or (union,)


def variants(kind: type[Part]) -> Iterator[Part]:
    """The part at its defaults, then with each other value of each switch, one at a time."""
    tag = kind.__dataclass_fields__["type"].default
    given = {f.name: REQUIRED[f.name] for f in fields(kind) if f.default is MISSING}
    part = kind(**given, **SMALL.get(tag, {}))
    yield part
    for field, hint, _ in knobs(kind):
        if field.name == "activation" and tag != "mlp":
            continue  # one list for all nets
        for value in _others(hint, getattr(part, field.name)):
            yield replace(part, **{field.name: value})


def _others(hint: Any, now: Any) -> list[Any]:
    if hint is bool:
        return [not now]
    if get_origin(hint) is Literal:
        return [v for v in get_args(hint) if v != now]
    if get_origin(hint) in (Union, types.UnionType) and isinstance(now, Part):
        mine = [m for m in get_args(hint) if not issubclass(m, Schedule)]
        return [next(variants(m)) for m in mine if m is not type(now)]
    return []


@lru_cache(maxsize=1)
def images() -> Path:
    """192 real 8 x 8 digits of 8 bits, with labels."""
    pixels, labels = load_digits(return_X_y=True)
    path = Path(tempfile.mkdtemp(prefix="distvae-conformance-")) / "images.npz"
    x = np.round(pixels[:192] / 16 * 255).astype(np.uint8).reshape(-1, 8, 8)
    np.savez(path, images=x, labels=labels[:192])
    return path


def a_trial(family: str, part: Any) -> Trial:
    """A sensible trial with the part in it."""
    model: dict[str, Any] = {"encoder": nets.Mlp(hidden=(12,), activation="tanh"), "latent_dim": D}
    model["encoder" if family == "net" else family] = part
    objective = model.pop("objective", None)
    if family == "prior":
        model["posterior"] = _in_space(posteriors.Posterior, part.space)
    if family == "posterior":
        model["prior"] = _in_space(priors.Prior, part.space)
    if family == "estimator" and part.type != "pathwise":
        model |= {"posterior": posteriors.Bernoulli(), "prior": priors.Bernoulli()}
    if family == "conditioning" or getattr(objective, "beta_input", False):
        model.setdefault("conditioning", next(variants(nets.Film)))
        objective = objective or BetaInput()
        objective = replace(objective, betas=(0.1, 1.0))
    beta = 1.0 if family != "posterior" or part.density else 0.0
    return Trial(
        data=Npz(name="conformance", path=str(images()), y="labels", valid=0.1, test=0.1),
        vae=Model(**model),
        objective=objective or Elbo(beta=beta),
        train=Train(epochs=1, batch_size=64, samples=2),
        evaluate=Evaluate(samples=4),
    )


def _in_space(union: Any, space: str) -> Any:
    return next(m() for m in members(union) if m().space == space)


CASES = {
    f"{family}-{part.type}{'' if n == 0 else f'-{n}'}": a_trial(family, part)
    for family, union in UNIONS.items()
    for kind in members(union)
    for n, part in enumerate(variants(kind))
}
DATA = [next(variants(kind)) for kind in members(Data)]
ALL = list(itertools.chain(CASES))
