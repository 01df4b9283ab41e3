"""The JSON Schema of a config file, for editors: `distvae schema`. Read off the parts, with every value also allowed as a
range."""

from __future__ import annotations

from typing import Any

from distvae.config import ENGINES, HOMES, NAME, SECTIONS, SPACE, adapter
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
    stage = {"type": "object", "properties": {"stage": {"type": "integer", "minimum": 0, "maximum": 3}}}
    steps = {"type": "integer", "minimum": 1}
    homes = {key: {"not": {}, "description": f"has one home: {home}"} for key, home in HOMES.items()}
    top: dict[str, Any] = {
        "name": {"type": "string", "pattern": rf"^(?!.*\.\.){NAME.pattern}$", "description": "names OUT's experiment"},
        **{key: swept[key] for key in SPACE},
        "blocks": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "properties": {key: swept[key] for key in SPACE},
            },
            "description": "one sweep for each: its sections stand in place of those of the top level",
        },
        "seeds": {"anyOf": [{"type": "integer", "minimum": 1}, many], "description": "seeds 0..n-1, or a list"},
        **{key: {"$ref": f"#/$defs/{part.__name__}"} for key, part in SECTIONS.items()},
        "engine": {"enum": list(ENGINES), "description": "what a trial is trained by"},
        "deepspeed": {
            "type": "object",
            "description": "DeepSpeed's options, passed through",
            "properties": {**homes, "zero_optimization": stage, "gradient_accumulation_steps": steps},
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "distvae sweep",
        "type": "object",
        "additionalProperties": False,
        "properties": {key: {"anyOf": [value, {"type": "null"}]} for key, value in top.items()},
        "$defs": defs,
    }


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
                option["items"] = {"anyOf": [option["items"], *_ranges({}, numbers=False)]}
        numbers = any(o.get("type") == "number" for o in options)
        own = {"anyOf": [*options, *_ranges({} if key == "type" else me, numbers)]}
        defs[f"{name}.{key}"] = own
        properties[key] = {**outer, **me}
    return {**part, "properties": properties}


def _ranges(item: dict[str, Any], numbers: bool) -> list[dict[str, Any]]:
    pair = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
    values = {"type": "array", "items": item, "minItems": 1}
    kinds = {"grid": values, "choice": values, **({"uniform": pair, "loguniform": pair} if numbers else {})}
    return [
        {"type": "object", "properties": {kind: s}, "required": [kind], "additionalProperties": False}
        for kind, s in kinds.items()
    ]
