"""A block: one space of a sweep, its sections with what goes beside them.

    zip       names whose values are taken together, row by row; crossed with the other ranges
    when      values and ranges of the configurations that meet a condition
    points    single configurations, after the others

Its configurations, in order: each cell of the sections' grids and the zips' rows, the last fastest; in each its
samples; to each of these every `when` that applies, a later one over an earlier one, its own ranges innermost. All
conditions are judged before any `when` is applied, so none can depend on another. Points are run as they are: no
`when` changes them. Without a range, a zip or a when, only the points are run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from distvae.sweeps import space
from distvae.sweeps.names import assign, look, under
from distvae.sweeps.space import Choose, Dimension, Draws
from distvae.sweeps.tree import Node

MAX_TRIALS = 100_000


@dataclass(frozen=True)
class When:
    """`then`: a mapping from dotted names to values or ranges. `conditions`: (dotted name, accepted plain values)."""

    label: str  # when.0
    conditions: tuple[tuple[str, list[Any]], ...]
    then: Node

    def applies(self, config: Node) -> bool:
        for name, accepted in self.conditions:
            value, found = look(config, name)
            if not found or not any(space.same(value, a) for a in accepted):
                return False
        return True


@dataclass(frozen=True)
class Block:
    """`zips`: name -> {grid: [row, ...]}, a row a mapping from dotted names to values. `points`: configurations."""

    sections: Node
    zips: Mapping[str, Node]
    whens: tuple[When, ...] = ()
    points: tuple[Node, ...] = ()
    label: str = ""  # blocks[1]

    @cached_property
    def outer(self) -> Node | None:
        """The sections beside the zips, a tree whose cells `_join` puts together; None if only points are run."""
        ranged = self.zips or self.whens or any(space.outermost(self.sections))
        return Node({"": self.sections, **self.zips}, self.sections.at) if ranged or not self.points else None

    # --- expanded ---

    def count(self, draws: Draws) -> int:
        """Configurations. With `when`, each of the outer ones is looked at, if they are not too many already."""
        if self.outer is None:
            return len(self.points)
        plain, drawn = space.count(self.outer)
        outer = plain + drawn * draws.samples
        if self.whens and outer <= MAX_TRIALS:
            outer = sum(self._inner(config, sample, draws) for config, sample in self._outer(draws))
        return outer + len(self.points)

    def expand(self, draws: Draws) -> Iterator[Node]:
        """Every configuration, in order. Raises BlockedError where a `when` sets what is inside a value."""
        for config, sample in self._outer(draws):
            for then in space.cells(self._then(config)):
                for s in self._samples(then, sample, draws):
                    yield assign(config, _drawn(then, s, draws))
        yield from self.points

    def _outer(self, draws: Draws) -> Iterator[tuple[Node, int | None]]:
        """Configurations before any `when`, and the sample each was drawn in."""
        for cell in space.cells(self.outer) if self.outer else ():
            for s in self._samples(cell, None, draws):
                yield _join(Node({key: _drawn(row, s, draws) for key, row in cell.value.items()}, cell.at)), s

    def _inner(self, config: Node, sample: int | None, draws: Draws) -> int:
        plain, drawn = space.count(self._then(config))
        return plain + drawn * (draws.samples if sample is None else 1)

    def _samples(self, cell: Node, sample: int | None, draws: Draws) -> Iterator[int | None]:
        """What is drawn in a sample goes on in it."""
        yield from range(draws.samples) if sample is None and space.count(cell)[1] else (sample,)

    def _applied(self, config: Node) -> dict[str, tuple[When, Node]]:
        """Name -> the `when` that has the last word on it, and what it says."""
        found: dict[str, tuple[When, Node]] = {}
        for when in self.whens:
            if when.applies(config):
                for name, value in when.then.value.items():
                    found = {n: said for n, said in found.items() if not under(n, name)}
                    found[name] = when, value
        return found

    def _then(self, config: Node) -> Node:
        """What every `when` that applies sets, as one mapping."""
        found = self._applied(config)
        places = {name: when.then.keys[name] for name, (when, _) in found.items()}
        return Node({name: value for name, (_, value) in found.items()}, config.at, places)

    # --- checked ---

    def cover(self, bad: set[int]) -> Iterator[Node]:
        """Few configurations that together hold every value of every range, those of a `when` where it applies."""
        seen: set[tuple[int, ...]] = set()  # what was applied before needs no second cover
        if self.outer is not None:
            meeting = map(self._meeting, () if bad else self.whens)
            for outer in [self.outer, *filter(None, meeting)]:
                for cell in space.cover(outer, bad):
                    config = _join(cell)
                    then = self._then(config)
                    applied = tuple(map(id, then.value.values()))
                    several = space.cover(then, bad)
                    for values in several[:1] if applied in seen else several:
                        yield assign(config, values)
                    seen.add(applied)
        yield from self.points

    def _meeting(self, when: When) -> Node | None:
        """`outer` without the items that cannot meet the conditions; None if none can."""
        values: dict[str, Node] = dict(self.outer.value) if self.outer else {}
        for name, accepted in when.conditions:
            for key, node in values.items():
                steps = tuple(name.split("."))
                if key:
                    rows = next(iter(node.value.values()))
                    zipped = next((n for n in rows.value[0].value if under(name, n)), None)
                    if zipped is None:
                        continue
                    steps = (zipped, *steps[len(zipped.split(".")) :])
                narrowed = space.narrow(node, steps, accepted)
                if narrowed is None:
                    return None
                values[key] = narrowed
        return Node(values, self.sections.at)

    # --- asked for, one value a range ---

    @cached_property
    def dimensions(self) -> list[Dimension]:
        if self.outer is None:
            return []
        found = space.dimensions(self.sections)
        for key, node in self.zips.items():
            found.append(Dimension(key, key, "grid", node))
            for i, row in enumerate(next(iter(node.value.values())).value):
                for name, value in row.value.items():
                    found += space.dimensions(value, name, f"{key}[{i}].{name}", ((key, i),))
        for when in self.whens:
            for name, value in when.then.value.items():
                found += space.dimensions(value, name, f"{when.label}.{name}", (), when.label)
        return found

    def settle(self, choose: Choose) -> Node:
        """The configuration in which each range takes the value `choose` gives it, asked for where it counts.
        Raises BlockedError."""
        config = space.settle(self.sections, choose)
        for key, node in self.zips.items():
            i = choose(Dimension(key, key, "grid", node))
            row = next(iter(node.value.values())).value[i]
            values = {
                name: space.settle(value, choose, name, f"{key}[{i}].{name}", ((key, i),))
                for name, value in row.value.items()
            }
            config = assign(config, Node(values, row.at, row.keys))
        values, places = {}, {}
        for name, (when, value) in self._applied(config).items():
            values[name] = space.settle(value, choose, name, f"{when.label}.{name}", (), when.label)
            places[name] = when.then.keys[name]
        return assign(config, Node(values, config.at, places))


def _drawn(row: Node, sample: int | None, draws: Draws) -> Node:
    """A mapping of dotted names with each drawn range at its value in `sample`."""
    if sample is None:
        return row
    values = {name: draws.draw(value, sample, name) for name, value in row.value.items()}
    return Node(values, row.at, row.keys)


def _join(cell: Node) -> Node:
    """A cell of `outer` as one configuration."""
    config = cell.value[""]
    for key, row in cell.value.items():
        config = assign(config, row) if key else config
    return config


# --- a sweep's blocks -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Space:
    """The blocks of a sweep, one after the other."""

    blocks: tuple[Block, ...]
    at: str

    def expand(self, draws: Draws) -> Iterator[Node]:
        for block in self.blocks:
            yield from block.expand(draws)

    @cached_property
    def dimensions(self) -> list[Dimension]:
        """Every range, parents first. With several blocks the first is `blocks`, the block's number."""
        if len(self.blocks) == 1:
            return self.blocks[0].dimensions
        found = [self._which]
        for i, block in enumerate(self.blocks):
            found += [_within(d, i) for d in block.dimensions]
        return found

    def settle(self, choose: Choose) -> Node:
        """The configuration in which each range takes the value that `choose` gives it: the number of a grid's or
        choice's item, or the number itself. Asked for in order, and only where the range counts. Raises
        BlockedError."""
        if len(self.blocks) == 1:
            return self.blocks[0].settle(choose)
        i = choose(self._which)
        return self.blocks[i].settle(lambda d: choose(_within(d, i)))

    def configuration(self, values: Mapping[str, Any]) -> Node:
        """`settle` with the given values, by the names of `dimensions`. Raises ValueError, BlockedError."""
        return self.settle(space.picker(values, self.dimensions))

    @property
    def _which(self) -> Dimension:
        blocks = [Node(block.sections.plain(), block.sections.at) for block in self.blocks]
        return Dimension("blocks", "blocks", "grid", Node({"grid": Node(blocks, self.at)}, self.at))

    def too_many(self, draws: Draws, seeds: int) -> tuple[str, str] | None:
        """(place, why) if the space is too large to plan, before anything is expanded."""
        counts = [block.count(draws) for block in self.blocks]
        trials = sum(counts) * seeds
        if trials <= MAX_TRIALS:
            return None
        large = self.blocks[counts.index(max(counts))]
        axes = sorted(space.axes(large.outer) if large.outer else (), key=lambda a: -a[1])
        factors = [f"{name}: {n} values" for name, n, _ in axes[:8]]
        if large.outer and space.count(large.outer)[1] and draws.samples > 1:
            factors.append(f"search.samples: {draws.samples} draws")
        factors += ["what `when` adds"] * bool(large.whens)
        text = " x ".join(factors)
        if large.points:
            text = f"{text} + points: {len(large.points)}".removeprefix(" + ")
        if len(self.blocks) > 1:
            text = f"{large.label}: {max(counts)} configurations ({text})"
        text += f" x seeds: {seeds}" * (seeds > 1)
        why = (
            f"{trials} trials are more than {MAX_TRIALS} ({text.removeprefix(' x ')}; "
            "drop values, draw them with uniform or choice, or split the sweep)"
        )
        return (axes[0][2].at if axes and axes[0][1] >= seeds else ""), why


def _within(dimension: Dimension, i: int) -> Dimension:
    """`dimension` of block `i`, its names made unique."""
    before = f"blocks[{i}]."
    parents = (("blocks", i), *((before + name, item) for name, item in dimension.parents))
    clause = before + dimension.clause if dimension.clause else ""
    return replace(dimension, name=before + dimension.name, parents=parents, clause=clause)
