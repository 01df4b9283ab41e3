"""A search, as the driver sees it: the space Optuna chooses from, and the suggestions that OUT/plan.parquet remembers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distvae.sweeps.plan import PLAN, read_plan
from distvae.sweeps.tree import ConfigError
from distvae.trial import Trial

if TYPE_CHECKING:
    from distvae.config import Loader
    from distvae.sweeps.space import Dimension

Known = tuple[int, Mapping[str, Any], Sequence[Trial]]  # number, values, all seeds


class Refused(Exception):
    """A suggestion that is no configuration."""


class Configurations:
    """What may be suggested: a value for each range of the file that counts."""

    def __init__(self, source: Loader):
        self.source = source

    def values(self, ask: Any) -> None:
        """Ask an `optuna.Trial` for one after the other (define by run): which range comes next depends on the last.
        Items of a grid or choice are categories, by their number."""
        space = self.source.space
        assert space is not None
        space.settle(lambda dimension: _asked(ask, dimension))

    def trials(self, values: Mapping[str, Any]) -> tuple[Trial, ...]:
        """All seeds of the configuration. Raises Refused."""
        try:
            found = self.source.configure(values)
        except (ConfigError, ValueError) as e:
            raise Refused(str(e)) from None
        if not found:
            raise Refused(f"the parts do not go together: {dict(values)}")
        return found


def _asked(ask: Any, dimension: Dimension) -> Any:
    if dimension.size:
        return ask.suggest_categorical(dimension.name, list(range(dimension.size)))
    assert dimension.ends is not None
    low, high = dimension.ends
    if dimension.kind == "integer":
        return ask.suggest_int(dimension.name, low, high)
    return ask.suggest_float(dimension.name, low, high, log=dimension.kind == "loguniform")


def known(out: Path, space: Configurations) -> list[Known]:
    """The suggestions planned in earlier runs, by number. Those that an edited space no longer holds are left out."""
    if not (out / PLAN).exists():
        return []
    plan = read_plan(out).select(["current", "config_key", "suggested"]).to_pylist()
    asked = {r["config_key"]: r["suggested"] for r in plan if r["current"] and r["suggested"]}
    found = []
    for text in asked.values():
        for number, values in json.loads(text).items():
            try:
                found.append((int(number), values, space.trials(values)))
            except Refused:
                continue
    return sorted(found, key=lambda k: k[0])


def by_config(suggestions: Sequence[Known]) -> dict[str, dict[int, Mapping[str, Any]]]:
    """config_key -> number -> values: what `write_plan` takes."""
    found: dict[str, dict[int, Mapping[str, Any]]] = {}
    for number, values, trials in suggestions:
        found.setdefault(trials[0].config_key, {})[number] = values
    return found


def distinct(suggestions: Sequence[Known]) -> tuple[Trial, ...]:
    """Their trials, each once."""
    return tuple({t.key: t for _, _, trials in suggestions for t in trials}.values())
