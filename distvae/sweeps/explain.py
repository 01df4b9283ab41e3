"""pydantic's errors in the words of the YAML: the dotted field without union tags, the value's place, what is allowed,
the likely fix.

What is allowed is read from the parts (`Hyper`, unions, literals), so a new part or knob needs nothing here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from distvae.part import Hyper, Part
from distvae.sweeps.tree import RANGES, Node, printable, show

_NUMBER = re.compile(r"\s*([-+]?[0-9][0-9_,]*(\.[0-9]*)?([eE][-+]?[0-9]+)?)")


@dataclass
class Spot:
    """Where in the types an error is."""

    path: list[str | int] = field(default_factory=list)  # without tags
    part: type[Part] | None = None  # the part that owns the last step, or that the last step is
    siblings: tuple[type[Part], ...] = ()  # the union that `part` was chosen from
    hint: Any = None  # type of the last step
    hyper: Hyper | None = None

    @property
    def dotted(self) -> str:
        return ".".join(printable(str(p)) for p in self.path)


@cache
def hints(part: type[Part]) -> dict[str, Any]:
    return get_type_hints(part, include_extras=True)


def members(hint: Any) -> tuple[type[Part], ...]:
    """The parts a hint allows: one, a union's, or none."""
    hint = get_args(hint)[0] if hasattr(hint, "__metadata__") else hint
    options = get_args(hint) or (hint,)
    return tuple(m for m in options if isinstance(m, type) and issubclass(m, Part))


def tag(part: type[Part]) -> str:
    f = part.__dataclass_fields__.get("type")
    return f.default if f else ""  # type: ignore[return-value]


def spot(root: type[Part], loc: tuple[str | int, ...]) -> Spot:
    """Walk pydantic's `loc` along the types; a union's tag is a step of `loc` and not of the YAML."""
    s, steps = Spot(part=root), list(loc)
    owner: type[Part] | None = root
    while steps:
        step = steps.pop(0)
        if owner is None and isinstance(step, str) and s.path:
            continue  # which member of a union of scalars pydantic tried
        s.path.append(step)
        if isinstance(step, int):
            continue
        s.part = owner or s.part
        known = hints(owner).get(step) if owner else None
        s.hint, s.hyper = known, next((h for h in getattr(known, "__metadata__", ()) if isinstance(h, Hyper)), None)
        parts = members(known) if known is not None else ()
        owner = parts[0] if len(parts) == 1 else None
        if steps and len(parts) > 1:
            owner = next((p for p in parts if tag(p) == steps[0]), None)
            if owner:
                steps.pop(0)
        if owner and steps:
            s.siblings = parts
    return s


def did_you_mean(word: Any, options: Iterable[str]) -> str:
    close = get_close_matches(str(word), list(options), n=1, cutoff=0.6)
    return f" - did you mean {close[0]!r}?" if close else ""


def one_of(value: Any, options: Iterable[str]) -> str:
    options = list(options)
    return f"{show(value)} is not one of {', '.join(options)}{did_you_mean(value, options)}"


def unknown_key(key: str, allowed: Iterable[str], remark: str = "") -> str:
    allowed = list(allowed)
    menu = f"allowed: {', '.join(allowed)}" if allowed else "no key is allowed here"
    return f"unknown key {show(key)} ({menu}{remark}){did_you_mean(key, allowed)}"


def explain(root: type[Part], error: Any, tree: Node, prefix: str = "") -> tuple[str, str, str]:
    """(place, field, what is wrong) of one of pydantic's errors on `tree`."""
    s, kind = spot(root, error["loc"]), error["type"]
    node, found = tree.find(tuple(s.path))
    at, value = node.at, node.value if found else None
    doc = f" ({s.hyper.doc})" if s.hyper else ""
    ctx = error.get("ctx", {})
    what = f"{error['msg'].removeprefix('Value error, ')}{doc}"
    if kind == "unexpected_keyword_argument":
        key = s.path[-1]
        owner, _ = tree.find(tuple(s.path[:-1]))
        at = owner.keys.get(str(key), at)
        others = [tag(p) for p in s.siblings if p is not s.part and key in {f.name for f in fields(p)}]
        remark = f"; {key} is a knob of type {' and '.join(others)}" if others else ""
        what = unknown_key(str(key), _keys(s.part), remark)
    elif kind == "union_tag_invalid":
        chosen, has = node.find(("type",))
        s.path.append("type")
        at, what = chosen.at, one_of(chosen.value if has else None, map(tag, members(s.hint)))
    elif kind == "union_tag_not_found":
        s.path.append("type")
        what = f"is missing, one of {', '.join(map(tag, members(s.hint)))}{doc}"
    elif kind in ("model_attributes_type", "dataclass_type"):
        what = f"{show(value)} is not a mapping{_as_part(value, s)}"
    elif kind == "literal_error":
        what = one_of(value, [*map(str, _literals(s.hint)), *_whole(s)])
        if isinstance(value, dict):
            what += _misspelt_range(value)
    elif kind.startswith("missing"):
        what = f"is required{doc}"
    elif kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        bound = next(iter(ctx.values()))
        word = {"greater_than": "not above", "greater_than_equal": "below", "less_than": "not below"}.get(kind, "above")
        bound = bound if s.hint is None or "float" in str(s.hint) else int(bound)
        what = f"{show(value)} is {word} {show(bound)}{doc}"
    elif kind in (
        "int_type",
        "int_from_float",
        "float_type",
        "finite_number",
        "bool_type",
        "string_type",
        "tuple_type",
    ):
        at, what = node.drawn or at, _mistyped(kind, value, node, s)
    return at, ".".join(filter(None, (prefix, s.dotted))) or "file", what


def impossible(value: Any, types: list[Any], valid: Callable[[Any, Any], bool]) -> str | None:
    """Why plain data are of none of a field's annotated `types`, as `valid(type, value)` says; None if of one."""
    if any(valid(hint, value) for hint in types):
        return None
    words = [str(v) for hint in types for v in _literals(hint)]
    if words:
        return one_of(value, dict.fromkeys(words))
    hyper = next((h for hint in types for h in getattr(hint, "__metadata__", ()) if isinstance(h, Hyper)), None)
    said = f" ({hyper.doc}, {hyper.range()})" if hyper and hyper.bounds() else f" ({hyper.doc})" if hyper else ""
    return f"{show(value)} is not a value it can have{said}"


def _keys(part: type[Part] | None) -> list[str]:
    return [f.name for f in fields(part)] if part else []


def _literals(hint: Any) -> tuple[Any, ...]:
    if get_origin(hint) is Literal:
        return get_args(hint)
    inner = [v for a in get_args(hint) if hasattr(a, "__origin__") or get_args(a) for v in _literals(a)]
    return tuple(inner)


def _whole(s: Spot) -> list[str]:
    """The whole numbers that are allowed beside words."""
    kind = get_args(s.hint)[0] if hasattr(s.hint, "__metadata__") else s.hint
    return [f"a whole number in {s.hyper.range()}"] if s.hyper and int in get_args(kind) else []


def _as_part(value: Any, s: Spot) -> str:
    tags = [t for t in map(tag, members(s.hint)) if t]
    if not tags:
        return f" (its keys: {', '.join(k for p in members(s.hint) for k in _keys(p))})"
    close = get_close_matches(str(value), tags, n=1) if isinstance(value, str) else []
    doc = f"{s.hyper.doc}; " if s.hyper else ""
    return f" ({doc}types: {', '.join(tags)}) - did you mean {{type: {close[0] if close else tags[0]}}}?"


def _misspelt_range(value: dict[str, Any]) -> str:
    close = [c for k in value for c in get_close_matches(k, RANGES, n=1)]
    fix = f" - did you mean {close[0]!r}?" if close else ""
    return f" (a range is one of {', '.join(f'{{{r}: [...]}}' for r in RANGES)}){fix}"


def _mistyped(kind: str, value: Any, node: Node, s: Spot) -> str:
    due = {
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "float_type": "a number",
        "finite_number": "a finite number",
        "bool_type": "true or false",
        "string_type": "a string",
        "tuple_type": "a list",
    }[kind]
    fix = ""
    if node.drawn:
        others = "integer, grid or choice" if kind.startswith("int") else "grid or choice"
        return f"a draw between two numbers is not {due}{_doc(s)} (use {others})"
    if isinstance(value, dict):
        fix = _misspelt_range(value)
    elif isinstance(value, bool) or value is None:
        pass
    elif kind.startswith("int") and isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        fix = f" (write {int(value)})"
    elif isinstance(value, str) and kind[:3] in ("int", "flo") and (m := _NUMBER.match(value)):
        number = re.sub("[_,]", "", m[1])
        fix = f" (write {number}, without a unit)" if m.end() < len(value.rstrip()) else f" (write {number})"
    elif kind == "tuple_type":
        fix = f" (write [{show(value)}])"
    elif kind == "string_type":
        fix = " (put it in quotes)"
    elif kind == "bool_type" and str(value).lower() in ("yes", "on", "no", "off", "1", "0"):
        fix = f" (write {'true' if str(value).lower() in ('yes', 'on', '1') else 'false'})"
    return f"{show(value)} is not {due}{fix}{_doc(s) if not fix else ''}"


def _doc(s: Spot) -> str:
    return f" ({s.hyper.doc})" if s.hyper else ""
