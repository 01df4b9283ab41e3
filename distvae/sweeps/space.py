"""A space: the part of the YAML that describes trials, where any value may be a range.

    {grid: [...]}               crossed; an item may be a whole part, with ranges of its own
    {choice: [...]}             drawn, as are the next two, `search.samples` times per grid cell
    {uniform: [low, high]}
    {loguniform: [low, high]}

A space is counted without being expanded: cells multiply over the children of a mapping and add over the items of a
grid. Draws are addressed by (search seed, dotted path, sample): a re-run plans the same trials, and every grid cell
gets the same draws."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product, zip_longest
from typing import Any
from zlib import crc32

from distvae.kernels import philox
from distvae.kernels.philox import Stream
from distvae.sweeps.tree import RANGES, Node, show

MAX_TRIALS = 100_000


def ranged(node: Node) -> str | None:
    """Which range `node` is, if it is one."""
    return next((k for k in node.value if k in RANGES), None) if _single(node) else None


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
    if kind in ("grid", "choice"):
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


def axes(node: Node, path: str = "") -> Iterator[tuple[str, int, Node]]:
    """(dotted name, number of values, place) of each outermost grid."""
    if ranged(node) == "grid":
        yield path, sum(count(node)), node
    elif not ranged(node):
        for step, child in children(node):
            yield from axes(child, join(path, step))


def draws(node: Node, path: str = "") -> list[str]:
    """Dotted names of what is drawn."""
    kind = ranged(node)
    if kind == "grid":
        return [name for item in _inner(node).value for name in draws(item, path)]
    if kind:
        return [path]
    return [name for step, child in children(node) for name in draws(child, join(path, step))]


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
    if kind in ("grid", "choice"):
        return [cell for item in _inner(node).value for cell in cover(item, bad)]
    if kind:
        return [Node(float(end.value), end.at, drawn=node.at) for end in _inner(node).value]
    if not children(node):
        return [node]
    options = [cover(child, bad) for _, child in children(node)]
    missing = object()
    rows = zip_longest(*options, fillvalue=missing)
    return [_rebuild(node, [o[0] if v is missing else v for v, o in zip(row, options, strict=True)]) for row in rows]


def _rebuild(node: Node, values: Any) -> Node:
    value = dict(zip(node.value, values, strict=True)) if isinstance(node.value, dict) else list(values)
    return Node(value, node.at, node.keys)


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

    def draw(self, node: Node, sample: int, path: str = "") -> Node:
        """`node` with each drawn range replaced by its value in `sample`."""
        kind = ranged(node)
        if kind == "choice":
            items = _inner(node).value
            return self.draw(items[int(self.u(path, sample) * len(items))], sample, path)
        if kind:
            low, high = (float(n.value) for n in _inner(node).value)
            u = self.u(path, sample)
            if kind == "uniform":
                value = low * (1.0 - u) + high * u  # high - low may overflow
            else:
                value = math.exp(math.log(low) + (math.log(high) - math.log(low)) * u)
            return Node(min(max(value, low), high), node.at, drawn=node.at)
        inside = children(node)
        return (
            _rebuild(node, [self.draw(child, sample, join(path, step)) for step, child in inside]) if inside else node
        )


def expand(node: Node, search: Draws) -> Iterator[Node]:
    """Every configuration: the grid's cells in order, and in each its samples."""
    drawn = count(node)[1] > 0
    for cell in cells(node):
        if drawn and count(cell)[1]:
            yield from (search.draw(cell, sample) for sample in range(search.samples))
        else:
            yield cell


def too_many(node: Node, samples: int, seeds: int) -> str | None:
    """Why the space is too large to plan, before anything is expanded."""
    plain, drawn = count(node)
    trials = (plain + drawn * samples) * seeds
    if trials <= MAX_TRIALS:
        return None
    factors = [f"{name}: {n} values" for name, n, _ in sorted(axes(node), key=lambda a: -a[1])[:8]]
    factors += [f"search.samples: {samples} draws"] * (drawn > 0 and samples > 1) + [f"seeds: {seeds}"] * (seeds > 1)
    return (
        f"{trials} trials are more than {MAX_TRIALS} ({' x '.join(factors)}; "
        "drop values, draw them with uniform or choice, or split the sweep)"
    )
