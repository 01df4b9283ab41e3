"""The JSON Schema of a config file, for editors: `distvae schema`. Read off the parts, with every value also allowed as a
range."""

from __future__ import annotations

from typing import Any

from distvae.config import ENGINES, NAME, SECTIONS, adapter
from distvae.deepspeed_options import OPTIONS
from distvae.study import Measured
from distvae.sweeps.names import SPACE, STEP
from distvae.trial import Trial


def schema() -> dict[str, Any]:
    """The JSON Schema of a config file: the parts' own, with every value also allowed as a range."""
    trial = adapter(Trial).json_schema()
    defs: dict[str, Any] = {}
    for name, part in trial.pop("$defs").items():
        defs[name] = _ranged_part(name, part, defs)
    for part in SECTIONS.values():
        own = adapter(part).json_schema()
        defs |= own.pop("$defs", {})  # nothing in them is swept
        defs[part.__name__] = own
    swept = _ranged_part("Trial", trial, defs)["properties"]
    whole = {"type": "integer", "minimum": 0, "exclusiveMaximum": 2**63}
    many = {"type": "array", "items": whole, "minItems": 1, "uniqueItems": True}
    file = {"type": "string", "description": "a DeepSpeed JSON file, relative to this one"}
    space = {**{key: swept[key] for key in SPACE}, **_beside()}
    top: dict[str, Any] = {
        "name": {"type": "string", "pattern": rf"^(?!.*\.\.){NAME.pattern}$", "description": "names OUT's experiment"},
        **space,
        "blocks": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "properties": {**space, **{key: {"anyOf": [s, {"type": "null"}]} for key, s in _beside().items()}},
            },
            "description": "one sweep for each: its keys stand in place of those of the top level",
        },
        "seeds": {"anyOf": [{"type": "integer", "minimum": 1}, many], "description": "seeds 0..n-1, or a list"},
        **{key: {"$ref": f"#/$defs/{part.__name__}"} for key, part in SECTIONS.items()},
        "metrics": _metrics(defs),
        "engine": {"enum": list(ENGINES), "description": "what a trial is trained by"},
        "deepspeed": {"anyOf": [file, _options(OPTIONS)], "description": "DeepSpeed's options"},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "distvae sweep",
        "type": "object",
        "additionalProperties": False,
        "properties": {key: {"anyOf": [value, {"type": "null"}]} for key, value in top.items()},
        "$defs": defs,
    }


def _metrics(defs: dict[str, Any]) -> dict[str, Any]:
    """A list of metrics, each its type or a mapping."""
    own = adapter(Measured).json_schema()
    defs |= own.pop("$defs")
    metric = own["properties"]["metrics"]
    items = {"anyOf": [{"enum": sorted(metric["discriminator"]["mapping"])}, metric]}
    return {"type": "array", "items": items, "description": metric["description"]}


def _beside() -> dict[str, Any]:
    """`zip`, `when` and `points`: the dotted names by their first step, the values by the loader."""

    def names(value: dict[str, Any], least: int) -> dict[str, Any]:
        pattern = rf"^({'|'.join(SPACE)})(\.{STEP.pattern})*$"
        more = {"additionalProperties": value, "minProperties": least}
        return {"type": "object", "propertyNames": {"pattern": pattern}, **more}

    values = {"type": "array", "minItems": 1}
    within = {"type": "object", "properties": {"in": values}, "required": ["in"], "additionalProperties": False}
    when = {
        "type": "object",
        "properties": {"if": names({"anyOf": [{"not": {"type": "object"}}, within]}, 1), "then": names({}, 1)},
        "required": ["if", "then"],
        "additionalProperties": False,
    }
    zipped = names(values, 2)
    told = {
        "zip": "names whose values are taken together, crossed with the other ranges",
        "when": "values and ranges of the configurations that meet a condition",
        "points": "single configurations: these values on the base",
    }
    kinds = {
        "zip": {"anyOf": [zipped, {"type": "array", "minItems": 1, "items": zipped}]},
        "when": {"type": "array", "minItems": 1, "items": when},
        "points": {"type": "array", "minItems": 1, "items": names({}, 0)},
    }
    return {key: {**kinds[key], "description": told[key]} for key in kinds}


def _options(due: Any) -> dict[str, Any]:
    """Of one of DeepSpeed's options, as `deepspeed_options.OPTIONS` says it."""
    if due is bool or due is dict:
        return {"type": "boolean" if due is bool else "object"}
    if isinstance(due, dict):
        return {
            "type": "object",
            "additionalProperties": False,
            "properties": {key: _options(own) for key, own in due.items()},
        }
    if isinstance(due, range):
        return {"type": "integer", "minimum": due.start, "maximum": due.stop - 1}
    return {"enum": list(due)} if isinstance(due, tuple) else {"type": "integer", "minimum": due}


def _ranged_part(name: str, part: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    """A part's schema with each property `x` as `#/$defs/<part>.x`: its value, or a range of `#/$defs/<part>.x`."""
    properties = {}
    for key, value in part["properties"].items():
        outer = {k: value.pop(k) for k in ("description", "default", "title") if k in value}
        me = {"$ref": f"#/$defs/{name}.{key}"}
        options: list[dict[str, Any]] = []
        for option in value.get("anyOf", [value]):  # `X | None`, and X may be a union of parts, told apart by `type`
            options += [{**member, "required": ["type"]} for member in option.get("oneOf", [])] or [option]
        for option in options:
            if "items" in option:
                option["items"] = {"anyOf": [option["items"], *_ranges({}, {option["items"].get("type")})]}
        kinds = {o.get("type") for o in options}
        own = {"anyOf": [*options, *_ranges({} if key == "type" else me, kinds)]}
        defs[f"{name}.{key}"] = own
        properties[key] = {**outer, **me}
    return {**part, "properties": properties}


def _ranges(item: dict[str, Any], kinds: set[str | None]) -> list[dict[str, Any]]:
    """The ranges of a value of JSON types `kinds`, each of whose items is an `item`."""
    values = {"type": "array", "items": item, "minItems": 1}
    ranges = {"grid": values, "choice": values}
    if "number" in kinds:
        ranges |= {kind: _ends("number") for kind in ("uniform", "loguniform")}
    if kinds & {"number", "integer"}:
        ranges["integer"] = _ends("integer")
    return [
        {"type": "object", "properties": {kind: s}, "required": [kind], "additionalProperties": False}
        for kind, s in ranges.items()
    ]


def _ends(kind: str) -> dict[str, Any]:
    return {"type": "array", "items": {"type": kind}, "minItems": 2, "maxItems": 2}
