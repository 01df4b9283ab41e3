"""`distvae parts`: what a YAML can choose, read off the unions and their `Hyper` annotations; nothing is listed here
by hand."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import MISSING
from typing import Annotated, Any, Union, get_args, get_origin

from rich.console import Console
from rich.table import Table

from distvae import (
    data,
    estimators,
    features,
    likelihoods,
    nets,
    objectives,
    posteriors,
    priors,
    samplers,
    schedules,
    study,
    trial,
    vae,
)
from distvae.metrics import menu as metrics
from distvae.part import Part, knobs

FAMILIES: dict[str, Any] = {
    "data": data.Data,
    "vae.encoder / vae.decoder": nets.Net,
    "vae.conditioning": nets.Conditioning,
    "vae.posterior": posteriors.Posterior,
    "vae.prior": priors.Prior,
    "vae.likelihood": likelihoods.Likelihood,
    "vae.estimator": estimators.Estimator,
    "objective": objectives.Objective,
    "samplers (plot --kind samples)": samplers.Sampler,
    "schedules (warm-up, ramp)": schedules.WarmUp,
    "schedules (learning rate)": schedules.LearningRate,
    "vae": vae.Model,
    "train": trial.Train,
    "evaluate": trial.Evaluate,
    "resources": study.Resources,
    "metrics (metrics:, eval --metrics)": metrics.Metric,
    "feature nets (of metrics)": features.FeatureNet,
    "search": study.Search,
    "search.scheduler": study.Scheduler,
    "search.algorithm": study.Algorithm,
    "tracking": study.Tracking,
}


def members(union: Any) -> tuple[type[Part], ...]:
    """The parts of a union, or the part itself."""
    return get_args(union) or (union,)


def menu() -> list[dict[str, Any]]:
    """One entry per part: family, type, doc, source file, knobs."""
    return [_entry(family, part) for family, union in FAMILIES.items() for part in members(union)]


def _entry(family: str, part: type[Part]) -> dict[str, Any]:
    field = part.__dataclass_fields__.get("type")
    return {
        "family": family,
        "type": field.default if field else None,
        "doc": " ".join((part.__doc__ or "").split()),
        "module": part.__module__,
        "knobs": list(_knobs(part)),
    }


def _knobs(part: type[Part]) -> Iterator[dict[str, Any]]:
    for f, kind, hyper in knobs(part):
        yield {
            "name": f.name,
            "kind": describe(kind),
            "range": hyper.range() if hyper.bounds() else None,
            "default": None if f.default is MISSING else getattr(f.default, "type", f.default),
            "required": f.default is MISSING,
            "symbol": hyper.symbol,
            "doc": hyper.doc,
            "in_key": hyper.key,
        }


def describe(kind: Any) -> str:
    """A type as people write it: `number`, `a | b`, `list of whole number`."""
    if get_origin(kind) is Annotated:
        return describe(get_args(kind)[0])
    plain = {float: "number", int: "whole number", bool: "true | false", str: "text", type(None): "null"}
    if kind in plain:
        return plain[kind]
    if get_origin(kind) in (Union, types.UnionType):
        return " | ".join(describe(k) for k in get_args(kind))
    if get_origin(kind) is tuple:
        return f"list of {describe(get_args(kind)[0])}"
    if isinstance(kind, type) and issubclass(kind, Part):
        field = kind.__dataclass_fields__.get("type")
        return str(field.default) if field else kind.__name__.lower()
    return " | ".join(map(str, get_args(kind))) or str(kind)


def render(entries: list[dict[str, Any]], console: Console) -> None:
    family = None
    for e in entries:
        if e["family"] != family:
            family = e["family"]
            console.print(f"\n[bold]{family}[/bold]")
        console.print(f"  [cyan]{e['type'] or ''}[/cyan]  {e['doc']}  [dim]({e['module']})[/dim]")
        table = Table(box=None, padding=(0, 2, 0, 4), show_header=False)
        for k in e["knobs"]:
            default = "required" if k["required"] else f"default {k['default']}"
            symbol = f" [{k['symbol']}]" if k["symbol"] and k["symbol"] != k["name"] else ""
            table.add_row(k["name"], k["range"] or k["kind"], default, k["doc"] + symbol)
        if e["knobs"]:
            console.print(table)
