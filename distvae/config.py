"""A YAML file to a `Study`, or a `ConfigError` that says where, what, what is allowed and the likely fix, for every
problem of the file at once.

    load(path, sets)   the study; `sets` are `--set path=value`, their values YAML
    reader(text, sets) the checked file, for a search that chooses configurations one by one: `Loader.configure`
    chosen(...)        a part that no file holds: an option of a command

The only module that imports pydantic, and only when used. Every value of every range is validated, each in few cells
(`space.cover`), so a sweep of any size is checked before it is expanded, and refused before that if it is too large."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from distvae import deepspeed_options, files
from distvae.part import Part
from distvae.rules import refusals, unfit
from distvae.study import Measured, Resources, Search, Study, Tracking
from distvae.sweeps import space
from distvae.sweeps.block import Space
from distvae.sweeps.explain import explain, impossible, one_of, unknown_key
from distvae.sweeps.names import SPACE, STEP, BlockedError, put
from distvae.sweeps.sections import BESIDE, Reader
from distvae.sweeps.tree import MAX_PROBLEMS, ConfigError, Node, dump, parse, printable, read_file, show
from distvae.trial import Trial

__all__ = ["ConfigError", "Loader", "load", "loads", "reader", "trial_from_data"]

SECTIONS: dict[str, type[Part]] = {"search": Search, "resources": Resources, "tracking": Tracking}
ENGINES = ("deepspeed", "torch")
TOP = ("name", *SPACE, *BESIDE, "blocks", "seeds", *SECTIONS, "metrics", "engine", "deepspeed")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
P = TypeVar("P", bound=Part)


def load(path: str | Path, sets: Sequence[str] = ()) -> Study:
    """The study a YAML file describes, with `--set path=value` applied."""
    text, label = read_file(path)
    path = files.at(path)
    base = Path() if files.is_remote(path) else path.parent  # OUT/sweep.yaml is resolved: it names no file
    return loads(text, sets, label=label, stem=path.stem, base=base)


def loads(
    text: str, sets: Sequence[str] = (), *, label: str = "<config>", stem: str = "sweep", base: Path = Path()
) -> Study:
    """`load` of text; a file that it names is relative to `base`."""
    return reader(text, sets, label=label, stem=stem, base=base).study()


def reader(
    text: str, sets: Sequence[str] = (), *, label: str = "<config>", stem: str = "sweep", base: Path = Path()
) -> Loader:
    """The file, read; what is checked when it is asked for (`study`, `space`)."""
    problems: list[str] = []
    root = parse(text, lambda line, column: f"{label}:{line}:{column}", problems)
    start = f"{label}:1:1"
    if root is None:
        raise ConfigError([*problems, f"{start}: file: is empty (start with `data: {{type: digits}}`)"])
    if not isinstance(root.value, dict):
        why = f"the top level is {show(root.value)}, not a mapping (keys: {', '.join(TOP)})"
        raise ConfigError([*problems, f"{root.at}: file: {why}"])
    for item in sets:
        root = _set(root, item, problems)
    return Loader(root, start, stem, problems, base)


def trial_from_data(data: Any) -> Trial:
    """The trial of `Trial.config()`'s data, validated."""
    return adapter(Trial).validate_python(data)


@cache
def adapter(part: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(part)


def _valid(hint: Any, value: Any) -> bool:
    from pydantic import ValidationError

    try:
        adapter(hint).validate_python(value)
    except ValidationError:
        return False
    return True


def metrics(text: str) -> tuple[Any, ...]:
    """The metrics of an option: names with commas between, or a YAML list. Raises ConfigError."""
    label, problems = "--metrics", list[str]()
    node = parse(text, lambda line, column: label, problems, "metrics") or Node(None, label)
    if isinstance(node.value, str):
        node = Node([Node(name.strip(), label) for name in node.value.split(",")], label)
    loader = Loader(Node({"metrics": node}, label, {"metrics": label}), label, "", problems)
    found = loader.metrics()
    if problems:
        raise ConfigError(problems)
    return found


def chosen(menu: type[Part], field: str, what: str | dict[str, Any], label: str) -> Any:
    """The part `field` of `menu`, chosen outside a sweep's file by its type, its YAML or its data. Raises ConfigError;
    `label` is its place."""
    problems: list[str] = []
    text = what if isinstance(what, str) else dump(what)
    node = parse(text, lambda line, column: label, problems, field) or Node(None, label)
    if isinstance(node.value, str):
        node = Node({"type": node}, label, {"type": label})
    found, loader = None, Loader(node, label, "", problems)
    if loader.unswept(node, field, "one value is chosen"):
        found = loader.validate(menu, Node({field: node}, label, {field: label}))
    if problems:
        raise ConfigError(problems)
    return getattr(found, field)


# --- --set ------------------------------------------------------------------------------------------------------------


def _set(root: Node, item: str, problems: list[str]) -> Node:
    """`root` with `path=value`; nodes are shared by aliases, so the changed path is copied."""
    label = f"--set {printable(item if len(item) <= 200 else item[:197] + '...')}"
    path, eq, text = item.partition("=")
    steps = path.strip().split(".")
    if not eq or not all(STEP.fullmatch(s) for s in steps):
        problems.append(f"{label}: {printable(path) or 'path'}: is not path=value (write --set vae.prior.r=0.5)")
        return root
    value = parse(text, lambda line, column: label, problems, path.strip()) or Node(None, label)
    if steps[0] == "zip" and steps[1:]:  # its keys are dotted names
        steps = ["zip", ".".join(steps[1:])]
    try:
        return put(root, steps, value, label)
    except BlockedError as e:
        problems.append(f"{e.at}: {e.path}: {e.what}")
        return root


# --- the file ---------------------------------------------------------------------------------------------------------


@dataclass
class Loader:
    """One file, as read. `study()` is all of it; `space` what it sweeps over, `configure` the trials of one
    configuration of that."""

    root: Node
    start: str
    stem: str
    problems: list[str]
    base: Path = Path()

    def note(self, at: str, path: str, what: str) -> None:
        place = f"{at}: {path}: "
        if at and not any(p.startswith(place) for p in self.problems):  # one fault, one line: NaN is also out of range
            self.problems.append(place + what)

    def get(self, key: str) -> Node | None:
        """A top-level value; `key:` with nothing after it is left out."""
        node = self.root.value.get(key)
        return None if node is None or node.value is None else node

    def study(self) -> Study:
        for key in self.root.value.keys() - set(TOP):
            self.note(self.root.keys[key], printable(key), unknown_key(key, TOP))
        name, seeds, engine = self.name(), self.seeds(), self.engine()
        sections = {key: self.section(key, part) for key, part in SECTIONS.items()}
        deepspeed, metrics = self.deepspeed(), self.metrics()
        search: Search = sections["search"]
        configurations, draws = self.space, space.Draws(search.seed, search.samples)
        suggests = search.algorithm is not None  # then nothing is expanded
        if configurations is not None and not suggests and (large := configurations.too_many(draws, len(seeds))):
            node = self.get("seeds")
            self.note(large[0] or (node.at if node else self.start), "sweep", large[1])
        self.refuse()
        assert configurations is not None
        found = ((), 0, 0) if suggests else self.trials(configurations, draws, search, seeds)
        source = self if suggests else None
        told = {"metrics": metrics, "resolved": self.resolved(name), "source": source}
        study = Study(name, *found, engine, deepspeed, **sections, **told)
        for path, why in unfit(study):
            self.note(self.root.find(tuple(path.split(".")))[0].at, path, why)
        self.refuse()
        return study

    def refuse(self) -> None:
        if self.problems:
            raise ConfigError(_by_place(self.problems))

    def resolved(self, name: str) -> str:
        data = {k: v for k, v in self.root.plain().items() if v is not None}
        return dump({"name": name, **{k: data[k] for k in TOP if k in data and k != "name"}})

    # --- what is not swept ---

    def unswept(self, node: Node, path: str, why: str) -> bool:
        kind = space.ranged(node)
        if kind:
            self.note(node.at, path, f"{space.worded(kind)} cannot be here: {why}")
            return False
        return all([self.unswept(child, space.join(path, step), why) for step, child in space.children(node)])

    def name(self) -> str:
        node = self.get("name")
        if node is not None and not self.unswept(node, "name", "a sweep has one name"):
            return "sweep"
        value, at = (node.value, node.at) if node else (self.stem, self.start)
        rule = "letters, digits, '.', '_' and '-', at most 80, first a letter or digit, no '..': it names files"
        if not isinstance(value, str):
            self.note(at, "name", f"{show(value)} is not a string (put it in quotes)")
        elif not NAME.fullmatch(value) or ".." in value:
            fix = re.sub(r"[^A-Za-z0-9_-]+|\.\.+", "-", value).strip("-_")[:80] or "my-sweep"
            source = "" if node else ", the file's name,"
            self.note(at, "name", f"{show(value)}{source} is not a name ({rule}; write name: {fix})")
        return value if isinstance(value, str) else "sweep"

    def seeds(self) -> list[int]:
        node = self.get("seeds")
        if node is None:
            return [0]
        why = "every configuration runs all seeds (write seeds: 3, or seeds: [0, 1, 2])"
        if not self.unswept(node, "seeds", why):
            return [0]
        if isinstance(node.value, list):
            values = [n.value for n in node.value]
            for n in node.value:
                if type(n.value) is not int or not 0 <= n.value < 2**63:
                    self.note(n.at, "seeds", f"{show(n.value)} is not a seed (a whole number from 0 to 2^63 - 1)")
            hashable = [v for v in values if isinstance(v, int)]
            for seed, times in Counter(hashable).items():
                if times > 1:
                    again = [n for n in node.value if n.value == seed][1]
                    self.note(again.at, "seeds", f"{show(seed)} is there {times} times (each seed runs once)")
            if not values:
                self.note(node.at, "seeds", "no seeds: nothing would run (write seeds: 1)")
            return hashable or [0]
        if type(node.value) is not int or not 0 < node.value < 2**63:
            self.note(
                node.at, "seeds", f"{show(node.value)} is not a number of seeds (1 or more, or a list: [0, 1, 2])"
            )
            return [0]
        return range(node.value)  # type: ignore[return-value]  # 10^9 seeds are counted, not listed

    def engine(self) -> Any:
        node = self.get("engine")
        if node is None or not self.unswept(node, "engine", "an engine cannot change a trial's numbers"):
            return "deepspeed"
        if node.value not in ENGINES:
            self.note(node.at, "engine", one_of(node.value, ENGINES))
        return node.value

    def section(self, key: str, part: type[Part]) -> Any:
        node = self.get(key)
        why = f"{key} cannot change a trial's numbers, so there is nothing to sweep (run the sweep twice with --set)"
        if node is None or not self.unswept(node, key, why):
            return part()
        return self.validate(part, node, key) or part()

    def metrics(self) -> tuple[Any, ...]:
        """What is measured of ended trials: each a type, or a mapping with one."""
        node = self.get("metrics")
        if node is None or not self.unswept(node, "metrics", "all are measured, so there is nothing to sweep"):
            return ()
        items = node.value if isinstance(node.value, list) else [node]
        found = []
        for item in items:
            tagged = Node({"type": item}, item.at, {"type": item.at}) if isinstance(item.value, str) else item
            one = self.validate(Measured, Node({"metrics": tagged}, item.at, {"metrics": item.at}))
            if one is not None:
                found.append(one.metrics)
        return tuple(found)

    def deepspeed(self) -> dict[str, Any]:
        """The block, which may be in a JSON file: then it takes its place in the tree."""
        node = self.get("deepspeed")
        if node is not None and isinstance(node.value, str):
            node = deepspeed_options.read(node, self.base, self.note, self.problems) or Node({}, node.at)
            self.root = Node({**self.root.value, "deepspeed": node}, self.root.at, self.root.keys)
        if node is None:
            return {}
        if not isinstance(node.value, dict):
            why = f"{show(node.value)} is not a mapping of DeepSpeed's options, nor the name of its JSON file"
            self.note(node.at, "deepspeed", why)
            return {}
        swept = "the engine cannot change a trial's numbers, so there is nothing to sweep"
        if self.unswept(node, "deepspeed", swept):
            deepspeed_options.check(node, self.note)
        return node.plain()

    # --- trials ---

    def validate(self, part: type[P], node: Node, prefix: str = "") -> P | None:
        """`node` as a part; None, and its problems noted, if it is not one."""
        from pydantic import ValidationError

        try:
            return adapter(part).validate_python(node.plain())
        except ValidationError as e:
            for error in e.errors(include_url=False):
                self.note(*explain(part, error, node, prefix))
        return None

    @cached_property
    def space(self) -> Space | None:
        """The configurations, every value of every range checked; None if they cannot even be counted. What is wrong
        is in `problems`."""
        reader = Reader(self.note, partial(impossible, valid=_valid))
        found = {k: n for k in (*SPACE, *BESIDE) if (n := self.get(k)) is not None}
        top = Node(found, self.start, {k: self.root.keys[k] for k in found})
        if self.get("blocks") is None:
            blocks = [reader.block(top)]
        else:
            blocks = [reader.block(*block) for block in self.blocks(top)]
        for block in blocks:
            try:
                for cell in block.cover(reader.bad):
                    self.validate(Trial, cell)
                    if len(self.problems) > MAX_PROBLEMS:
                        break
            except BlockedError as e:
                self.note(e.at, e.path, e.what)
        return None if reader.bad else Space(tuple(blocks), self.start)

    def blocks(self, top: Node) -> Iterator[tuple[Node, str, str]]:
        """(mapping, prefix of its fields, label) of each block; its keys stand in place of the top level's."""
        node, allowed = self.get("blocks"), (*SPACE, *BESIDE)
        assert node is not None
        menu = f"each a mapping with some of {', '.join(allowed)}"
        if not isinstance(node.value, list) or not node.value:
            self.note(node.at, "blocks", f"{show(node.value)} is not a list of blocks ({menu})")
            yield top, "", ""
            return
        for i, block in enumerate(node.value):
            if not isinstance(block.value, dict):
                what = f"{show(block.value)} is not a mapping with some of {', '.join(allowed)}"
                self.note(block.at, f"blocks.{i}", what)
                continue
            for key in block.value.keys() - set(allowed):
                self.note(block.keys[key], f"blocks.{i}.{printable(key)}", unknown_key(key, allowed))
            own = {k: v for k, v in block.value.items() if k in allowed}
            places = {k: block.keys[k] for k in own}
            whole = Node({**top.value, **own}, block.at, {**top.keys, **places})
            yield whole, f"blocks.{i}.", f"blocks[{i}]"

    def configure(self, values: Mapping[str, Any]) -> tuple[Trial, ...]:
        """A configuration's trials, one for each seed: each range of `space.dimensions` takes the value given under
        its name. None of them if it is nonsense and `search.nonsense` is skip. Raises ConfigError, and ValueError for
        values that the ranges do not hold."""
        configurations = self.space
        self.refuse()
        assert configurations is not None
        return self.suggest(space.picker(values, configurations.dimensions))

    def suggest(self, choose: space.Choose) -> tuple[Trial, ...]:
        """`configure` by a function from a range to its value, asked only for ranges that count, parents first."""
        configurations, search = self.space, self.section("search", Search)
        seeds = self.seeds()
        self.refuse()
        assert configurations is not None
        first = None
        try:
            config = configurations.settle(choose)
            first = self.validate(Trial, config)
            skipped = first is None or self.is_skipped(first, config, search)
        except BlockedError as e:
            self.note(e.at, e.path, e.what)
            skipped = True
        problems, self.problems = self.problems, []  # of this configuration alone
        if problems:
            raise ConfigError(_by_place(problems))
        return () if skipped or first is None else tuple(replace(first, seed=seed) for seed in seeds)

    def examples(self) -> list[Trial]:
        """A few trials of the space: each range at its first item or lower end, then at its last or upper."""
        found = []
        for end in (0, -1):
            with suppress(ConfigError):
                found += self.suggest(lambda d, end=end: range(d.size)[end] if d.size else (d.ends or ())[end])
        return found

    def trials(
        self, configurations: Space, draws: space.Draws, search: Search, seeds: Sequence[int]
    ) -> tuple[tuple[Trial, ...], int, int]:
        """Every trial once, all seeds of a configuration adjacent; how many were planned twice; and how many
        configurations were skipped as nonsense."""
        seen: dict[str, Trial] = {}
        planned = skipped = 0
        try:
            for config in configurations.expand(draws):
                first = self.validate(Trial, config)
                if first is None:
                    break  # a pair of values that `cover` did not meet
                if self.is_skipped(first, config, search):
                    skipped += 1
                    continue
                if len(self.problems) >= MAX_PROBLEMS:
                    break
                for seed in seeds:
                    trial = replace(first, seed=seed)
                    planned += 1
                    twin = seen.setdefault(trial.key, trial)
                    if twin is not trial and twin != trial:
                        self.clash(config, twin, trial)
                        break
        except BlockedError as e:
            self.note(e.at, e.path, e.what)
        if skipped and not seen:
            self.note(
                self.start,
                "sweep",
                "every combination of parts is nonsense (write search: {nonsense: error} to see why)",
            )
        return tuple(seen.values()), planned - len(seen), skipped

    def is_skipped(self, trial: Trial, config: Node, search: Search) -> bool:
        """Is it nonsense that is to be skipped? Else its nonsense is noted."""
        refused = list(self.refusals(trial))
        if refused and search.nonsense == "skip":
            return True
        for path, why in refused:
            node, _ = self.root.find(tuple(path.split(".")) if path.startswith("deepspeed.") else ())
            node = node if node is not self.root else config.find(tuple(path.split(".")))[0]
            self.note(node.at, path, why)
        return False

    def clash(self, cell: Node, a: Trial, b: Trial) -> None:
        """Two trials with the same numbers but, say, other `epochs`: keeping either in silence would be wrong."""
        one, two = a.flat(), b.flat()
        for path in one:
            if one[path] != two.get(path):
                values = f"{show(one[path])} and {show(two.get(path))}"
                why = f"{values} for what is otherwise the same trial, and it cannot change its numbers"
                fix = (
                    "write the largest: a longer run contains a shorter one" if path == "train.epochs" else "write one"
                )
                self.note(cell.find(tuple(path.split(".")))[0].at, path, f"{why} ({fix})")

    def refusals(self, trial: Trial) -> Iterator[tuple[str, str]]:
        """(field, reason): the trial's own, and those of the trial with the engine's options."""
        yield from refusals(trial)
        deepspeed = self.get("deepspeed")
        if deepspeed is None:
            return
        stage, cut = deepspeed.find(("zero_optimization", "stage"))
        if cut and stage.value and trial.train.dtype == "float64":
            why = f"ZeRO stage {stage.value} keeps float32 master weights, and train.dtype is float64"
            yield "deepspeed.zero_optimization.stage", f"{why} (write stage: 0, or dtype: float32)"
        steps = deepspeed.find(("gradient_accumulation_steps",))
        for name in ("vae.posterior", "vae.likelihood", "objective"):
            part: Any = trial
            for step in name.split("."):
                part = getattr(part, step)
            if steps[1] and steps[0].value > 1 and getattr(part, "whole_batch", False):
                why = f"{steps[0].value} splits the batch, and {name} ({part.type}) is a statistic of the whole batch"
                yield "deepspeed.gradient_accumulation_steps", f"{why} (set it to 1, or use another {name})"


def _by_place(problems: list[str]) -> list[str]:
    """In the order of the file; `--set` last."""

    def place(problem: str) -> tuple[int, int]:
        m = re.match(r"(?!--set ).*?:(\d+):(\d+): ", problem)
        return (int(m[1]), int(m[2])) if m else (1 << 30, 0)

    return sorted(problems, key=place)
