"""What the configurations of a sweep differ in: the five knobs by their short names, everything else by its dotted
name in the config."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from distvae.plots.kind import OptionError
from distvae.results.curves import Config
from distvae.sweeps.explain import did_you_mean
from distvae.trial import KNOBS, flatten

SYMBOLS = {"r": "r", "beta": "β", "gamma": "γ", "p_keep": "p", "latent_dim": "d"}
NAMES = {"r": "r (prior std)", "beta": "β", "gamma": "γ", "p_keep": "p (keep)", "latent_dim": "latent dimensions"}
_SHORT = {path: name for name, path in KNOBS.items()}
Value = float | str | None


def settings(c: Config) -> dict[str, Value]:
    """Everything a configuration says, without the seed. Lists and switches are text."""
    return {**c.knobs, **_dotted(c.points[0].row["config_json"])}


@lru_cache(4096)
def _dotted(config: str) -> dict[str, Value]:
    flat = dict(flatten(json.loads(config)))
    return {k: _value(v) for k, v in flat.items() if k not in _SHORT and k != "seed"}


def _value(v: Any) -> Value:
    if isinstance(v, list):
        return ",".join(map(str, v))
    return str(v).lower() if isinstance(v, bool) else v


def dotless(name: str) -> str:
    """The short name of one of the five knobs, else the name itself."""
    return _SHORT.get(name, name)


def column(configs: Sequence[Config], name: str, option: str) -> list[Value]:
    """The value of a knob in each configuration; a mixture of text and numbers is text. Raises OptionError if no
    configuration has it."""
    name = dotless(name)
    found = [settings(c).get(name) for c in configs]
    if all(v is None for v in found):
        known = sorted({n for c in configs for n, v in settings(c).items() if v is not None})
        alike = next((f" - did you mean {n!r}?" for n in known if n.rpartition(".")[2] == name), "")
        varied = [n for n in liveliest(configs) if n not in KNOBS][:6]
        here = f" (here differ: {', '.join(varied)})" if varied else ""
        raise OptionError(
            f"{option}: {name!r} has no value here; it is one of {', '.join(KNOBS)}, where a part has it, or a dotted name of "
            f"the config{here}{alike or did_you_mean(name, [n for n in known if n != name])}"
        )
    if any(isinstance(v, str) for v in found):
        return [None if v is None else v if isinstance(v, str) else f"{v:g}" for v in found]
    return found


def liveliest(configs: Sequence[Config]) -> list[str]:
    """The knobs with more than one value, the five first, those with most values first. Of choices that divide the
    configurations alike (a prior that comes with its posterior) the first."""
    found = [settings(c) for c in configs]
    names = list(dict.fromkeys(n for s in found for n in s))
    counts = {n: len({s.get(n) for s in found} - {None}) for n in names}
    ordered = sorted((n for n in names if counts[n] > 1), key=lambda n: (n not in KNOBS, -counts[n]))
    seen, kept = set(), []
    for name in ordered:
        values = [s.get(name) for s in found]
        choice = any(isinstance(v, str) for v in values)
        division = _division(values)
        if not (choice and division in seen):
            kept.append(name)
        if choice:
            seen.add(division)
    return kept


def _division(values: Sequence[Value]) -> tuple[int, ...]:
    """Which configurations share a value: each value as the number of its first appearance."""
    first: dict[Value, int] = {}
    return tuple(first.setdefault(v, len(first)) for v in values)


def families(configs: Sequence[Config], most: int) -> list[str]:
    """What the parts of each configuration are called, where they differ; by the one choice that tells most apart where
    there are more than `most` combinations. All "" if none differs."""
    parts = [n for n in liveliest(configs) if n.rpartition(".")[2] == "type"]
    told: list[Callable[[dict[str, Value]], str]] = [
        lambda s: " ".join(dict.fromkeys(str(s[n]) for n in parts if s.get(n) is not None)),
        *((lambda s, n=n: f"{n.rpartition('.')[0].rpartition('.')[2]}: {s.get(n)}") for n in parts),
    ]
    for tell in told:
        labels = [tell(settings(c)) for c in configs]
        if parts and len(set(labels)) <= most:
            return labels
    return [""] * len(configs)


def label(c: Config, names: Sequence[str], most: int = 5) -> str:
    """`β=1 r=0.5 d=8`: the knobs `names` of a configuration."""
    found = settings(c)
    some = [(n, found[n]) for n in names if found.get(n) is not None][:most]
    return " ".join(
        v
        if isinstance(v, str) and n.endswith(".type")
        else f"{SYMBOLS.get(n, n.rpartition('.')[2])}={v if isinstance(v, str) else format(v, '.4g')}"
        for n, v in some
    )


def short(value: Value) -> str:
    return "none" if value is None else value if isinstance(value, str) else f"{value:g}"


def called(name: str) -> str:
    """A knob as an axis says it."""
    return NAMES.get(dotless(name), name)
