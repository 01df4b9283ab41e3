"""What every part shares: `Part`, the base of the small frozen dataclasses that describe a model, and `Hyper`, the one
place where a knob says its range, symbol, unit and meaning.

Validation (`config.py`), JSON Schema, `distvae parts` and the trial key all read `Hyper`; nothing re-lists a knob.
pydantic is never imported here: it calls the two hooks of `Hyper` and reads `__pydantic_config__`.
"""

from __future__ import annotations

from dataclasses import Field, dataclass, fields
from functools import cache
from typing import Any, ClassVar, get_args, get_type_hints

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Hyper:
    """Annotation of one field: inclusive bounds `low`/`high` (exclusive ones: `above`/`below`), the paper's `symbol`,
    `doc` with the unit, and `source`. `key=False` keeps the field out of the trial key (it cannot change a number);
    `static=True`: a float that reaches the mathematics as a Python number, so trials that differ in it are not stacked.
    Bounds of a list hold for each item."""

    doc: str
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    symbol: str | None = None
    key: bool = True
    static: bool = False

    def bounds(self) -> dict[str, float]:
        named = {"ge": self.low, "le": self.high, "gt": self.above, "lt": self.below}
        return {k: v for k, v in named.items() if v is not None}

    def range(self) -> str:
        """The allowed range as people write it: `[0, inf)`."""
        left = f"[{self.low:g}" if self.low is not None else f"({self.above:g}" if self.above is not None else "(-inf"
        right = f"{self.high:g}]" if self.high is not None else f"{self.below:g})" if self.below is not None else "inf)"
        right = "2^63)" if self.high == 2**63 - 1 else right
        return f"{left}, {right}"

    # pydantic's hooks: a core schema is a plain dict, so bounds are written into its number nodes.
    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        schema = _tag(handler(source), source)
        self._constrain(schema)
        return schema

    def _constrain(self, schema: dict[str, Any]) -> None:
        if schema.get("type") in ("int", "float"):
            schema.update(self.bounds(), strict=True)
            if schema["type"] == "float":
                schema["allow_inf_nan"] = False
        elif schema.get("type") in ("bool", "str"):
            schema["strict"] = True
        for inner in ("schema", "items_schema", "choices"):
            child = schema.get(inner)
            for node in child if isinstance(child, list) else [child]:
                if isinstance(node, dict):
                    self._constrain(node)

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> Any:
        schema = handler(core)
        schema["description"] = self.doc
        return schema


@dataclass(frozen=True, kw_only=True)
class Part:
    """Base of every description: frozen, keyword-only, compared and hashed by value."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}


@cache  # resolving annotations costs 2 ms a trial key; they never change
def knobs(part: type[Part]) -> tuple[tuple[Field[Any], Any, Hyper], ...]:
    """(dataclass field, resolved type, `Hyper`) of each annotated field of a part."""
    hints = get_type_hints(part, include_extras=True)
    return tuple(
        (field, hints[field.name].__args__[0] if hasattr(hints[field.name], "__args__") else Any, note)
        for field in fields(part)
        for note in getattr(hints[field.name], "__metadata__", ())
        if isinstance(note, Hyper)
    )


def _tag(schema: Any, source: Any) -> Any:
    """A union of parts is chosen by its `type`: then an error speaks of the part that was meant, not of every other
    one."""
    inner = schema.get("schema", schema) if schema.get("type") == "nullable" else schema
    members = [m for m in get_args(source) if isinstance(m, type) and issubclass(m, Part)]
    if inner.get("type") == "union" and len(members) == len(inner["choices"]):
        tags = [m.__dataclass_fields__["type"].default for m in members]
        choices = dict(zip(tags, inner["choices"], strict=True))
        inner.pop("choices")
        inner.update(type="tagged-union", discriminator="type", choices=choices)
    return schema


def hold(module: nn.Module, **hypers: float) -> None:
    """Register float hyper-parameters as 0-d buffers, so that fusing trials is stacking parameters and buffers.

    float64 here; `Vae` casts them to the trial's dtype, so each is the correctly rounded value of what the YAML
    says."""
    for name, value in hypers.items():
        module.register_buffer(name, torch.tensor(float(value), dtype=torch.float64), persistent=False)


def gather_nothing(t: Tensor) -> Tensor:
    """`batch.gather` on one worker: the shard is the batch."""
    return t
