"""What the columns of the table of trials are: identity, the knobs that vary, what was measured."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa

from distvae.results.schema import METRICS, SCHEMA
from distvae.trial import KNOBS

FIRST = ("rate_nats", "distortion_nats", "elbo_nats")
MANY = 16  # metrics shown at first; the rest waits in the column chooser


def column(
    id: str, kind: str, group: str, doc: str, unit: str = "", *, label: str = "", shown: bool = True, **more: Any
) -> dict[str, Any]:
    """`kind` number or text, `group` trial, knob or metric. Of a metric also `split` and whether it is a surrogate."""
    told = {"id": id, "label": label or id, "kind": kind, "group": group, "doc": doc, "unit": unit, "shown": shown}
    return told | {"split": None, "surrogate": False} | more


def knob_columns(curve: pa.Table, configs: Collection[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The five axes, those that some trial has, then every other name of the configs that varies."""
    used = {k for k, path in KNOBS.items() if any(flat.get(path) is not None for flat in configs)}
    used |= {k for k in KNOBS if curve[k].null_count < len(curve)}  # the betas of a beta-input model
    axes = [column(k, "number", "knob", f"{doc(curve, k)} ({KNOBS[k]})", unit(curve, k)) for k in KNOBS if k in used]
    others = []
    for name in varying(configs):
        kind = "number" if all(is_number(flat.get(name)) for flat in configs) else "text"
        others.append(column(name, kind, "knob", "of the configuration"))
    return axes + others


def varying(configs: Collection[Mapping[str, Any]]) -> list[str]:
    """Dotted names, beside the five axes and the seed, whose values differ. That a number is missing where the part is
    another one is told by the part's type."""
    values: dict[str, set[str]] = {}
    for flat in configs:
        for name, value in flat.items():
            values.setdefault(name, set()).add(json.dumps(value))
    partly = {n for n in values if n.endswith(".type") and not all(n in flat for flat in configs)}
    return [n for n, v in values.items() if (len(v) > 1 or n in partly) and n not in (*KNOBS.values(), "seed")]


def metric_columns(curve: pa.Table, splits: Mapping[str, str]) -> list[dict[str, Any]]:
    """`splits`: metric -> the split it is shown on."""
    names = sorted(splits, key=lambda n: (n not in FIRST, n.endswith("_se"), is_surrogate(curve, n)))
    shown = [n for n in names if not n.endswith("_se")][:MANY]
    return [
        column(
            n, "number", "metric", doc(curve, n), unit(curve, n),
            shown=n in shown, split=splits[n], surrogate=is_surrogate(curve, n),
        )
        for n in names
    ]  # fmt: skip


def metric_names(curve: pa.Table) -> list[str]:
    """Of every sweep, and those measured later."""
    later = [f.name for f in curve.schema if f.name not in SCHEMA.names and is_numeric(f.type)]
    return [*METRICS, *later]


def is_surrogate(curve: pa.Table, name: str) -> bool:
    return "surrogate" in name or doc(curve, name).startswith("surrogate")


def is_numeric(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)


def is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def cell(value: Any) -> Any:
    """A config's value as a cell holds it: lists and mappings as JSON."""
    return json.dumps(value) if isinstance(value, Sequence | Mapping) and not isinstance(value, str) else value


def unit(curve: pa.Table, name: str) -> str:
    return (curve.schema.field(name).metadata or {}).get(b"unit", b"").decode()


def doc(curve: pa.Table, name: str) -> str:
    return (curve.schema.field(name).metadata or {}).get(b"doc", b"").decode()
