"""Reads a block from its YAML: the swept sections, `zip`, `when` and `points`, each fault with its place.

zip: {vae.prior.r: [0, 1], objective.beta: [1, 4]}                   or a list of such
when: [{if: {vae.prior.type: binarized}, then: {train.lr: 1e-3}}]     a condition: a value, or {in: [a, b]}
points: [{vae.prior.r: 0.5, objective.beta: 2}]"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distvae.sweeps import space
from distvae.sweeps.block import Block, When
from distvae.sweeps.explain import members, unknown_key
from distvae.sweeps.names import SPACE, BlockedError, Note, assign, named, types, under
from distvae.sweeps.tree import Node, printable, short, show

BESIDE = ("zip", "when", "points")  # beside the swept sections
ZIP = "zip: {vae.prior.r: [0, 1], objective.beta: [1, 4]}"
WHEN = "when: [{if: {vae.prior.type: binarized}, then: {train.lr: 1.0e-3}}]"
POINTS = "points: [{vae.prior.r: 0.5, objective.beta: 2}]"
Impossible = Callable[[Any, list[Any]], str | None]  # (value, types): why it is a value of none of them


class Reader:
    """`note` takes what is wrong; `bad` has the ids of malformed ranges."""

    def __init__(self, note: Note, impossible: Impossible):
        self.note, self.impossible = note, impossible
        self.bad: set[int] = set()

    def block(self, node: Node, prefix: str = "", label: str = "") -> Block:
        """The block that the mapping `node` describes; `prefix` leads the fields of its problems."""
        found = {k: v for k, v in node.value.items() if k in SPACE}
        sections = Node(found, node.at, {k: node.keys[k] for k in found})
        self.ranges(sections, "")
        beside = {key: v for key in BESIDE if (v := node.value.get(key)) is not None and v.value is not None}
        zips = self.zips(beside["zip"], f"{prefix}zip", sections) if "zip" in beside else {}
        whens = self.whens(beside["when"], f"{prefix}when") if "when" in beside else []
        plain = Block(sections, zips, tuple(whens), (), label)
        points = self.points(beside["points"], f"{prefix}points", plain) if "points" in beside else []
        return Block(sections, zips, tuple(whens), tuple(points), label)

    def ranges(self, node: Node, path: str) -> None:
        for bad, at, field, what in space.malformed(node, path):
            self.note(at, field, what)
            self.bad.add(id(bad))

    def entries(self, node: Node, path: str, what: str) -> list[tuple[Node, str]]:
        """(mapping, its field) of each item of a list of mappings."""
        if not isinstance(node.value, list) or not node.value:
            self.note(node.at, path, f"{show(node.value)} is not a list with something in it (write {what})")
            return []
        found = []
        for i, item in enumerate(node.value):
            if isinstance(item.value, dict):
                found.append((item, f"{path}.{i}"))
            else:
                self.note(item.at, f"{path}.{i}", f"{show(item.value)} is not a mapping (write {what})")
        return found

    # --- zip ---

    def zips(self, node: Node, path: str, sections: Node) -> dict[str, Node]:
        found: dict[str, Node] = {}
        names: dict[str, str] = {}
        several = isinstance(node.value, list) and bool(node.value)
        if not several and not isinstance(node.value, dict):
            what = "an empty list" if node.value == [] else show(node.value)
            why = f"{what} is not a mapping of names to lists (write {ZIP}; several: a list of such)"
            self.note(node.at, path, why)
            return found
        for axis, field in self.entries(node, path, f"a list of mappings, or {ZIP}") if several else [(node, path)]:
            lists = self.lists(axis, field, sections)
            for name in lists:
                for other in (o for o in names if under(name, o) or under(o, name)):
                    why = f"overlaps {other} at {short(names[other])} (a name is in one zip)"
                    self.note(axis.keys[name], f"{field}.{name}", why)
            names |= {name: axis.keys[name] for name in lists}
            if len(axis.value) < 2:
                name = next(iter(axis.value), "vae.prior.r")
                fix = f"zip two or more names, or give {printable(name)} itself a range: {{grid: [a, b]}}"
                what = "one name, and nothing to vary it with" if axis.value else "no names"
                self.note(axis.at, field, f"{what} ({fix})")
            elif len(lists) == len(axis.value) and len({len(values.value) for values in lists.values()}) == 1:
                rows = [Node(dict(zip(lists, row, strict=True)), axis.at, dict(axis.keys)) for row in _rows(lists)]
                found[f"zip({', '.join(lists)})"] = Node({"grid": Node(rows, axis.at)}, axis.at, {"grid": axis.at})
        return found

    def lists(self, axis: Node, field: str, sections: Node) -> dict[str, Node]:
        """Name -> its list of values, of what is in order."""
        found: dict[str, Node] = {}
        first = ""
        for name, values in named(axis, field, self.note):
            at, me = axis.keys[name], f"{field}.{name}"
            kind = space.ranged(values)
            if kind or not isinstance(values.value, list):
                what = space.worded(kind) if kind else show(values.value)
                self.note(values.at, me, f"{what} is not a list of values (write {name}: [a, b])")
                continue
            if not values.value:
                self.note(values.at, me, "no values to try (list at least one)")
                continue
            if first and len(values.value) != len(found[first].value):
                n, due = len(values.value), f"{first} at {short(axis.keys[first])} has {len(found[first].value)}"
                why = f"{n} value{'s' * (n != 1)}, and {due} (they are taken together, one of each: give as many)"
                self.note(values.at, me, why)
            for item in values.value:
                self.ranges(item, name)
            if self.is_free(name, at, me, sections):
                found[name] = values
                first = first or name
        return found

    def is_free(self, name: str, at: str, field: str, sections: Node) -> bool:
        """Is `name`, which a zip sets, left out of the sections, and within reach?"""
        node, steps = sections, name.split(".")
        for depth, step in enumerate(steps):
            here = ".".join(steps[:depth])
            if kind := space.ranged(node):
                fix = f"zip {here} whole, or put the values into the items"
                why = f"{here} is {space.worded(kind)} at {short(node.at)}, and a zip does not reach inside"
                self.note(at, field, f"{why} ({fix})")
                return False
            if not isinstance(node.value, dict):
                self.note(at, field, f"{here} is {show(node.value)} at {short(node.at)}, with no key {step}")
                return False
            if step not in node.value:
                return True
            place, node = node.keys[step], node.value[step]
        fix = "to leave the zip out: zip: null" if place.startswith("--set ") else "remove one of the two"
        self.note(at, field, f"{name} is set at {short(place)} too ({fix})")
        return False

    # --- when ---

    def whens(self, node: Node, path: str) -> list[When]:
        found = []
        for item, field in self.entries(node, path, WHEN):
            for key in item.value.keys() - {"if", "then"}:
                self.note(item.keys[key], f"{field}.{printable(key)}", unknown_key(key, ("if", "then")))
            parts = {}
            for key in ("if", "then"):
                part = item.value.get(key)
                if part is None:
                    self.note(item.at, field, f"{key} is missing (write {WHEN})")
                elif not isinstance(part.value, dict) or not part.value:
                    what = "an empty mapping" if part.value == {} else show(part.value)
                    self.note(part.at, f"{field}.{key}", f"{what} is not a mapping of names to values (write {WHEN})")
                else:
                    parts[key] = part
            conditions = self.conditions(parts["if"], f"{field}.if") if "if" in parts else None
            then = self.then(parts["then"], f"{field}.then") if "then" in parts else None
            if conditions is not None and then is not None:
                found.append((When(field, tuple((n, a) for n, a, _ in conditions), then), conditions))
        for when, conditions in found:
            for other, _ in found:
                for name, _, at in conditions:
                    for put in (p for p in other.then.value if under(name, p) or under(p, name)):
                        place = f"{other.label}.then at {short(other.then.keys[put])}"
                        fix = "conditions are judged before any when is applied: look at what decides it"
                        self.note(at, f"{when.label}.if.{name}", f"is set by {place} ({fix})")
        return [when for when, _ in found]

    def then(self, node: Node, path: str) -> Node:
        values = dict(named(node, path, self.note))
        for name, value in values.items():
            self.ranges(value, name)
        return Node(values, node.at, {name: node.keys[name] for name in values})

    def conditions(self, node: Node, path: str) -> list[tuple[str, list[Any], str]]:
        """(name, accepted values, place)."""
        found = []
        for name, value in named(node, path, self.note):
            field, options = f"{path}.{name}", [value]
            kind = space.ranged(value)
            if isinstance(value.value, dict):
                inside = value.value.get("in")
                if len(value.value) != 1 or inside is None or not isinstance(inside.value, list) or not inside.value:
                    what = space.worded(kind) if kind else show(value.value)
                    self.note(value.at, field, f"{what} is not a value or {{in: [a, b]}} (a condition is one of these)")
                    continue
                options = inside.value
            for option in options:
                why = self.unmet(name, option)
                if why:
                    self.note(option.at, field, why)
            found.append((name, [option.plain() for option in options], node.keys[name]))
        return found

    def unmet(self, name: str, option: Node) -> str | None:
        """Why no configuration has the value `option` at `name`."""
        hints = types(name)
        parts = [m for hint in hints for m in members(hint)]
        if parts and option.value is not None:
            inside = "type" if "type" in parts[0].__dataclass_fields__ else next(iter(parts[0].__dataclass_fields__))
            return f"{name} is a part, and a condition looks at a value (write {name}.{inside}: ...)"
        if isinstance(option.value, dict):
            return f"{show(option.value)} is not a value"
        why = None if parts else self.impossible(option.plain(), hints)
        return f"{why} (one of several: {{in: [a, b]}})" if why and isinstance(option.value, list) else why

    # --- points ---

    def points(self, node: Node, path: str, block: Block) -> list[Node]:
        found = []
        ranged = list(space.outermost(block.sections))
        for grid in block.zips.values():
            row = next(iter(grid.value.values())).value[0]
            ranged += [(name, "zip", row.keys[name]) for name in row.value]
        for item, field in self.entries(node, path, POINTS):
            names = dict(named(item, field, self.note))
            good = len(names) == len(item.value)
            for name, value in names.items():
                for inner, kind, at in space.outermost(value, f"{field}.{name}"):
                    fix = "a point is one configuration: write a point for each value"
                    self.note(at, inner, f"{space.worded(kind)} cannot be here ({fix})")
                    good = False
            for name, kind, at in ranged:
                if not any(under(name, set_) or under(set_, name) for set_ in names):
                    fix = f"add {name}: one value"
                    why = f"{name} is {space.worded(kind)} at {short(at)}, and this point gives it no value"
                    self.note(item.at, field, f"{why} ({fix})")
                    good = False
            if good:
                try:
                    found.append(assign(block.sections, Node(names, item.at, item.keys)))
                except BlockedError as e:
                    self.note(e.at, f"{field}.{e.path}", e.what)
        return found


def _rows(lists: dict[str, Node]) -> list[tuple[Node, ...]]:
    return list(zip(*(values.value for values in lists.values()), strict=True))
