"""Families of configurations: those that choose the same parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from distvae.trial import flatten


def varied_choices(configs: Iterable[Mapping[str, Any]], *, absent: bool = False) -> list[str]:
    """Dotted names of the choices (of parts, of modes) that differ between configurations; with `absent`, also those
    that only some of them have."""
    flat = [dict(flatten(config)) for config in configs]
    names = dict.fromkeys(name for config in flat for name, value in config.items() if isinstance(value, str))
    values = {name: {config.get(name) for config in flat if absent or name in config} for name in names}
    return [name for name in names if len(values[name]) > 1]
