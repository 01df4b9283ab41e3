"""A space: the part of the YAML that describes trials, where any value may be a range.

    {grid: [...]}               crossed; an item may be a whole part, with ranges of its own
    {choice: [...]}             drawn, as are the next three, `search.samples` times per grid cell
    {uniform: [low, high]}
    {loguniform: [low, high]}
    {integer: [low, high]}      a whole number, both ends included

A space is counted without being expanded: cells multiply over the children of a mapping and add over the items of a
grid. Draws are addressed by (search seed, dotted path, sample): a re-run plans the same trials, and every grid cell
gets the same draws. `block.py` adds `zip`, `when` and `points`.

    dimensions(node)        every range, by name
    at(node, values)        the configuration in which each takes the given value"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product, zip_longest
from typing import Any
from zlib import crc32

from distvae.kernels import philox
from distvae.kernels.philox import Stream
from distvae.sweeps.tree import RANGES, Node, show

ITEMS = ("grid", "choice")  # ranges over items; the others lie between two numbers
WHOLE = 2**31  # the ends of an integer: a draw has 32 bits, and would miss numbers beyond


def ranged(node: Node) -> str | None:
    """Which range `node` is, if it is one."""
    return next((k for k in node.value if k in RANGES), None) if _single(node) else None


def worded(kind: str) -> str:
    return "an integer range" if kind == "integer" else f"a {kind}"


def _single(node: Node) -> bool:
    return isinstance(node.value, dict) and len(node.value) == 1


def _inner(node: Node) -> Node:
    return next(iter(node.value.values()))


def children(node: Node) -> list[tuple[str | int, Node]]:
    if isinstance(node.value, dict):
        return list(node.value.items())
    return list(enumerate(node.value)) if isinstance(node.value, list) else []


def join(path: str, step: str | int) -> str:
    return f"{path}.{step}" if path else str(step)


def malformed(node: Node, path: str = "", drawn: bool = False) -> Iterator[tuple[Node, str, str, str]]:
    """(node, place, field, what is wrong) of the ranges themselves."""
    kind = ranged(node)
    if kind is None:
        if isinstance(node.value, dict) and (extra := [k for k in RANGES if k in node.value]):
            yield node, node.keys[extra[0]], path, f"a range has one key, and {extra[0]} has others beside it (nest it)"
        else:
            for step, child in children(node):
                yield from malformed(child, join(path, step), drawn)
        return
    inner = _inner(node)
    if kind in ITEMS:
        if not isinstance(inner.value, list):
            yield node, inner.at, path, f"{kind} takes a list, not {show(inner.value)} (write {{{kind}: [a, b]}})"
        elif not inner.value:
            yield node, inner.at, path, f"empty {kind}: no values to try (list at least one)"
        elif kind == "grid" and drawn:
            yield node, node.at, path, "a grid inside a choice has no fixed number of cells (put the grid outside)"
        else:
            for item in inner.value:
                yield from malformed(item, path, drawn or kind == "choice")
        return
    ends = [n.value for n in inner.value] if isinstance(inner.value, list) else []
    if len(ends) != 2 or not all(isinstance(e, int | float) and not isinstance(e, bool) for e in ends):
        yield node, inner.at, path, f"{kind} takes two numbers (write {{{kind}: [low, high]}})"
    elif not ends[0] < ends[1]:
        yield node, inner.at, path, f"{kind} needs low < high, and {show(ends[0])} is not below {show(ends[1])}"
    elif kind == "loguniform" and ends[0] <= 0:
        yield node, inner.at, path, f"loguniform needs both ends above 0, and {show(ends[0])} is not (use uniform)"
    elif kind == "integer" and (odd := [n for n in inner.value if type(n.value) is not int or abs(n.value) > WHOLE]):
        value = odd[0].value
        fix = f"write {int(value)}" if abs(value) <= WHOLE and value == int(value) else "or use uniform"
        yield (
            node,
            odd[0].at,
            path,
            f"integer takes whole numbers from -2^31 to 2^31, and {show(value)} is none ({fix})",
        )


def count(node: Node) -> tuple[int, int]:
    """(cells without a draw, cells with one)."""
    kind = ranged(node)
    if kind == "grid":
        parts = [count(item) for item in _inner(node).value]
        return sum(a for a, _ in parts), sum(b for _, b in parts)
    if kind:
        return 0, 1
    every, plain = 1, 1
    for _, child in children(node):
        a, b = count(child)
        every, plain = every * (a + b), plain * a
    return plain, every - plain


def narrow(node: Node, steps: tuple[str, ...], accept: list[Any]) -> Node | None:
    """`node` without the items that give the value at `steps` another value than those of `accept`; None if nothing is
    left. What is not written (a default) is kept."""
    kind = ranged(node)
    if kind in ITEMS:
        items = [n for item in _inner(node).value if (n := narrow(item, steps, accept)) is not None]
        return Node({kind: Node(items, node.at)}, node.at, node.keys) if items else None
    if kind:
        low, high = (n.value for n in _inner(node).value)
        inside = [v for v in accept if isinstance(v, float | int) and low <= v <= high]
        return Node(inside[0], node.at, drawn=node.at) if inside else None
    if not steps:
        return node if any(same(node.plain(), v) for v in accept) else None
    if not isinstance(node.value, dict) or steps[0] not in node.value:
        return node
    child = narrow(node.value[steps[0]], steps[1:], accept)
    return None if child is None else Node({**node.value, steps[0]: child}, node.at, node.keys)


def same(a: Any, b: Any) -> bool:
    """Equal as YAML: 1 is 1.0, and not true."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return isinstance(a, bool) == isinstance(b, bool) and a == b


def axes(node: Node, path: str = "") -> Iterator[tuple[str, int, Node]]:
    """(dotted name, number of values, place) of each outermost grid."""
    if ranged(node) == "grid":
        yield path, sum(count(node)), node
    elif not ranged(node):
        for step, child in children(node):
            yield from axes(child, join(path, step))


def outermost(node: Node, path: str = "") -> Iterator[tuple[str, str, str]]:
    """(dotted name, kind, place) of each range that is in no other, malformed or not."""
    kind = ranged(node)
    if kind:
        yield path, kind, node.at
    else:
        for step, child in children(node):
            yield from outermost(child, join(path, step))


def cells(node: Node) -> Iterator[Node]:
    """The crossed cells in order, the last axis fastest. Draws stay ranges."""
    kind = ranged(node)
    if kind == "grid":
        for item in _inner(node).value:
            yield from cells(item)
    elif kind or not children(node):
        yield node
    else:
        options = [list(cells(child)) for _, child in children(node)]
        if all(len(o) == 1 and o[0] is c for o, (_, c) in zip(options, children(node), strict=True)):
            yield node
        else:
            for values in product(*options):
                yield _rebuild(node, values)


def cover(node: Node, bad: set[int]) -> list[Node]:
    """Few cells that together hold every value of every range: if these are valid, so are all. The ends stand for what
    is drawn between them; a node whose id is in `bad` (already reported) has no place, so that what is said of it can
    be dropped."""
    kind = ranged(node)
    if id(node) in bad:
        return [Node(None, "")]
    if kind in ITEMS:
        return [cell for item in _inner(node).value for cell in cover(item, bad)]
    if kind:
        number = int if kind == "integer" else float
        return [Node(number(end.value), end.at, drawn=node.at) for end in _inner(node).value]
    if not children(node):
        return [node]
    options = [cover(child, bad) for _, child in children(node)]
    missing = object()
    rows = zip_longest(*options, fillvalue=missing)
    return [_rebuild(node, [o[0] if v is missing else v for v, o in zip(row, options, strict=True)]) for row in rows]


def _rebuild(node: Node, values: Any) -> Node:
    value = dict(zip(node.value, values, strict=True)) if isinstance(node.value, dict) else list(values)
    return Node(value, node.at, node.keys)


# --- one value for each range ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dimension:
    """A range of a space. `name` is its own (`vae.posterior[1].gamma` is inside item 1 of the range `vae.posterior`),
    `path` the dotted field it gives a value, `parents` the (name, item) that must all be chosen for it to count;
    `clause` names the `when` that it is in: it counts where that applies."""

    name: str
    path: str
    kind: str  # grid | choice | uniform | loguniform | integer
    node: Node = field(repr=False, compare=False)
    parents: tuple[tuple[str, int], ...] = ()
    clause: str = ""

    @property
    def size(self) -> int:
        """Number of items; 0 for a range between two numbers."""
        return len(_inner(self.node).value) if self.kind in ITEMS else 0

    @property
    def items(self) -> list[Any]:
        """Plain data of the items; a mapping may hold ranges of its own."""
        return _inner(self.node).plain() if self.kind in ITEMS else []

    @property
    def ends(self) -> tuple[Any, Any] | None:
        """(low, high), both included; ints of an integer, else floats."""
        if self.kind in ITEMS:
            return None
        low, high = (n.value for n in _inner(self.node).value)
        return (low, high) if self.kind == "integer" else (float(low), float(high))

    def check(self, value: Any) -> Any:
        """`value` if the range holds it: an item's number, or a number between the ends. Raises ValueError."""
        whole = isinstance(value, int) and not isinstance(value, bool)
        if self.kind in ITEMS:
            fits = whole and 0 <= value < self.size
            due = f"the number of an item, 0 to {self.size - 1}"
        else:
            low, high = self.ends or (0, 0)
            fits = (whole or (self.kind != "integer" and isinstance(value, float))) and low <= value <= high
            due = f"{'a whole' if self.kind == 'integer' else 'a'} number from {low} to {high}"
        if not fits:
            raise ValueError(f"{self.name}: {show(value)} is not {due}")
        return value


Choose = Callable[[Dimension], Any]  # the value of a range: an item's number, or the number itself


def dimensions(
    node: Node, path: str = "", name: str | None = None, parents: tuple[tuple[str, int], ...] = (), clause: str = ""
) -> list[Dimension]:
    """Every range of a tree, parents first."""
    kind, name = ranged(node), path if name is None else name
    if kind is None:
        steps = children(node)
        return [d for s, c in steps for d in dimensions(c, join(path, s), join(name, s), parents, clause)]
    found = [Dimension(name, path, kind, node, parents, clause)]
    for i, item in enumerate(_inner(node).value if kind in ITEMS else ()):
        found += dimensions(item, path, f"{name}[{i}]", (*parents, (name, i)), clause)
    return found


def settle(
    node: Node,
    choose: Choose,
    path: str = "",
    name: str | None = None,
    parents: tuple[tuple[str, int], ...] = (),
    clause: str = "",
) -> Node:
    """`node` with each range replaced by the value `choose` gives it. Only ranges that count are asked for, parents
    first."""
    kind, name = ranged(node), path if name is None else name
    if kind is None:
        inside = children(node)
        values = [settle(c, choose, join(path, s), join(name, s), parents, clause) for s, c in inside]
        same = all(new is old for new, (_, old) in zip(values, inside, strict=True))
        return node if same else _rebuild(node, values)
    value = choose(Dimension(name, path, kind, node, parents, clause))
    if kind in ITEMS:
        return settle(_inner(node).value[value], choose, path, f"{name}[{value}]", (*parents, (name, value)), clause)
    return Node(value, node.at, drawn=node.at)


def at(node: Node, values: Mapping[str, Any]) -> Node:
    """The configuration in which each range takes the given value: of a grid or choice the item's number, of the
    others the number itself. Values of ranges that do not count are left aside. Raises ValueError."""
    return settle(node, picker(values, dimensions(node)))


def picker(values: Mapping[str, Any], known: list[Dimension]) -> Choose:
    """What chooses the given values. Raises ValueError for a name that is not `known`, a value out of its range, and
    a range without a value."""
    if strange := values.keys() - {d.name for d in known}:
        raise ValueError(f"{min(strange)}: is no range (ranges: {', '.join(d.name for d in known)})")

    def choose(dimension: Dimension) -> Any:
        if dimension.name not in values:
            raise ValueError(f"{dimension.name}: a {dimension.kind} without a value")
        return dimension.check(values[dimension.name])

    return choose


class Draws:
    """The addressed draws of one sweep."""

    def __init__(self, seed: int, samples: int):
        self.seed, self.samples = seed, samples
        self.uniforms: dict[str, list[float]] = {}

    def u(self, path: str, sample: int) -> float:
        if path not in self.uniforms:
            index, step = range(self.samples), crc32(path.encode())
            u = philox.uniform(self.seed, Stream.SEARCH, index=list(index), step=step)
            self.uniforms[path] = u[:, 0, 0].tolist()
        return self.uniforms[path][sample]

    def value(self, dimension: Dimension, sample: int) -> Any:
        u = self.u(dimension.path, sample)
        if dimension.ends is None:
            return int(u * dimension.size)
        low, high = dimension.ends
        if dimension.kind == "integer":
            return min(low + int(u * (high - low + 1)), high)
        if dimension.kind == "uniform":
            value = low * (1.0 - u) + high * u  # high - low may overflow
        else:
            value = math.exp(math.log(low) + (math.log(high) - math.log(low)) * u)
        return min(max(value, low), high)

    def draw(self, node: Node, sample: int, path: str = "") -> Node:
        """`node` with each drawn range replaced by its value in `sample`."""
        return settle(node, lambda dimension: self.value(dimension, sample), path)
