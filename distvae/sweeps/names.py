"""Dotted names (`vae.prior.r`) in the tree of a configuration and in the types of its parts.

`zip`, `when`, `points` and `--set` say what they mean by them; a name stands for all that is under it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from distvae.part import Part
from distvae.sweeps.explain import hints, members, tag, unknown_key
from distvae.sweeps.space import ranged, worded
from distvae.sweeps.tree import Node, printable, short, show
from distvae.trial import Trial, as_data

SPACE = tuple(f.name for f in fields(Trial) if f.name != "seed")  # the sections that describe trials
STEP = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
Note = Callable[[str, str, str], None]  # (place, field, what is wrong)


class BlockedError(Exception):
    """A name leads through what has no keys. `at` is the place of the value that was to be set."""

    def __init__(self, at: str, path: str, what: str):
        self.at, self.path, self.what = at, path, what
        super().__init__(what)


def put(root: Node, steps: Sequence[str], value: Node, at: str) -> Node:
    """`root` with `value` at `steps`; nodes are shared, so the changed path is copied. A mapping that the way lacks is
    made, of the part that is the default there. `at` is the place of new keys. Raises BlockedError."""

    def inside(node: Node, depth: int, part: type[Part] | None) -> Node:
        if depth == len(steps):
            return value
        if not node.at:  # in place of what is already reported (`space.cover`)
            return node
        if node.value is None and depth <= 1:  # `train:` with nothing under it
            node = Node({}, node.at)
        step = steps[depth]
        if not isinstance(node.value, dict) or (kind := ranged(node)):
            name, what = ".".join(steps[:depth]), show(node.value)
            what = worded(kind) if isinstance(node.value, dict) else what
            raise BlockedError(at, ".".join(steps), f"{name} is {what}, with no key {step} (set {name} whole)")
        made = {} if steps[depth + 1 :] in ([], ["type"]) else _default_type(part, step)
        child = node.value.get(step, Node({key: Node(v, at) for key, v in made.items()}, at, dict.fromkeys(made, at)))
        child = inside(child, depth + 1, _part(part, step, child.value))
        return Node({**node.value, step: child}, node.at, {**node.keys, step: node.keys.get(step, at)})

    return inside(root, 0, Trial)


def assign(config: Node, row: Node) -> Node:
    """`config` with each name of `row`, in order, at its value. Raises BlockedError."""
    for name, value in row.value.items():
        config = put(config, name.split("."), value, row.keys[name])
    return config


def under(name: str, other: str) -> bool:
    """Is `name` the name `other`, or inside it?"""
    return name == other or name.startswith(other + ".")


# --- in the types -----------------------------------------------------------------------------------------------------


def unknown(name: str) -> str | None:
    """Why no configuration has `name`; None if one may."""
    parts: tuple[type[Part], ...] = (Trial,)
    steps = name.split(".")
    if not all(map(STEP.fullmatch, steps)):
        return f"{show(name)} is not a dotted name (write one like vae.prior.r)"
    for depth, step in enumerate(steps):
        allowed = SPACE if depth == 0 else tuple(dict.fromkeys(f.name for p in parts for f in fields(p)))
        if not parts:
            return f"{'.'.join(steps[:depth])} is a value, with no key {step} (set {'.'.join(steps[:depth])})"
        if step not in allowed:
            return unknown_key(step, allowed)
        parts = tuple(m for hint in _at(parts, step) for m in members(hint))
    return None


def types(name: str) -> list[Any]:
    """The annotated types that a known `name` has, one for each part that has it."""
    parts, found = (Trial,), []
    for step in name.split("."):
        found = _at(parts, step)
        parts = tuple(m for hint in found for m in members(hint))
    return found


def _at(parts: Iterable[type[Part]], step: str) -> list[Any]:
    return [hints(p)[step] for p in parts if step in p.__dataclass_fields__]


def look(config: Node, name: str) -> tuple[Any, bool]:
    """The plain value of `name` in a configuration, defaults included; and whether it has one."""
    value: Any = config.plain()
    part: type[Part] | None = Trial
    for step in name.split("."):
        if is_dataclass(value):  # a default
            if not hasattr(value, step):
                return None, False
            value = getattr(value, step)
            continue
        if not isinstance(value, dict) or part is None or step not in part.__dataclass_fields__:
            return None, False
        default = part.__dataclass_fields__[step].default
        if step not in value and default is MISSING:
            return None, False
        value = value.get(step, default)
        part = _part(part, step, value)
    return as_data(value), True


def _part(owner: type[Part] | None, step: str, value: Any) -> type[Part] | None:
    """Which part the mapping `value`, plain or of nodes, at `step` of a part describes."""
    options = members(hints(owner)[step]) if owner and step in owner.__dataclass_fields__ else ()
    chosen = value.get("type") if isinstance(value, dict) else None
    chosen = chosen.value if isinstance(chosen, Node) else chosen
    return options[0] if len(options) == 1 else next((p for p in options if tag(p) == chosen), None)


def _default_type(owner: type[Part] | None, step: str) -> dict[str, str]:
    """What a mapping at `step` of a part must say to be the default there."""
    f = owner.__dataclass_fields__.get(step) if owner else None
    return {"type": f.default.type} if f and hasattr(f.default, "type") else {}


# --- a mapping of names -----------------------------------------------------------------------------------------------


def named(node: Node, path: str, note: Note) -> Iterator[tuple[str, Node]]:
    """(name, value) of what a mapping of dotted names says; names that are not known, or inside one another, are
    noted and left out."""
    good: list[str] = []
    for name, value in node.value.items():
        at, field = node.keys[name], f"{path}.{printable(name)}"
        why = unknown(name)
        twin = next((o for o in good if under(name, o) or under(o, name)), None)
        if why:
            note(at, field, why)
        elif twin:
            note(at, field, f"overlaps {twin} at {short(node.keys[twin])} (set one of them)")
        else:
            good.append(name)
            yield name, value
