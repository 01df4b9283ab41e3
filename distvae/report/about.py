"""What a sweep is: its data, how its trials ended, when, with which versions, on what. Only what was recorded."""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa

from distvae import __version__
from distvae.operate import logs
from distvae.results.provenance import git_sha

LOG_TAIL = 1 << 16  # characters of a log's end that are looked at
CREATED = ".created_ms"


def about(out: Path, curve: pa.Table, status: Mapping[str, str]) -> dict[str, Any]:
    ends = {key: _last_event(text) for key, text in logs.texts(out, status).items()}
    walls: dict[str, float] = {}
    for key, wall in zip(curve["trial_key"].to_pylist(), curve["wall_s"].to_pylist(), strict=True):
        walls[key] = max(walls.get(key, 0.0), wall or 0.0)
    stamps = [e["unix_s"] for e in ends.values() if isinstance(e.get("unix_s"), int | float)]
    return {
        "name": next(iter(_values(curve, "sweep")), out.name),
        "trials": len(status),
        "counts": dict(Counter(status.values())),
        "data": _data(curve),
        "started_s": _created(out),
        "ended_s": max(stamps, default=None),
        "training_s": sum(walls.values()) if walls else None,
        "versions": _values(curve, "version"),
        "commits": _values(curve, "git_sha"),
        "devices": _values(curve, "device"),
        "errors": {k: _error(ends[k]) for k, s in status.items() if s == "failed"},
        "report": {
            "made_s": time.time(),
            "distvae": __version__,
            "git_sha": git_sha(),
            "torch": _installed("torch"),
            "python": platform.python_version(),
            "machine": platform.platform(),
        },
    }


def _values(curve: pa.Table, name: str) -> list[str]:
    return sorted({v for v in curve[name].unique().to_pylist() if v})


def _data(curve: pa.Table) -> list[dict[str, Any]]:
    """Each data set with its measures and the examples of its splits."""
    found: dict[str, dict[str, Any]] = {}
    for data, measure, split, n in zip(
        *(curve[c].to_pylist() for c in ("data", "measure", "split", "n_examples")), strict=True
    ):
        mine = found.setdefault(data, {"data": data, "measures": [], "examples": {}})
        if measure is not None and measure not in mine["measures"]:
            mine["measures"].append(measure)
        if n:
            mine["examples"][split] = n
    return list(found.values())


def _created(out: Path) -> float | None:
    try:
        return int((out / CREATED).read_text()) / 1000
    except (OSError, ValueError):
        return None


def _last_event(log: str) -> dict[str, Any]:
    """The last line of a trial's log that can be read; {} if there is none."""
    return next(reversed(logs.events(log[-LOG_TAIL:])), {})


def _error(event: Mapping[str, Any]) -> str | None:
    """The last line of the traceback, if that is how the log ends."""
    lines = str(event.get("traceback") or "").strip().splitlines()
    return lines[-1][:500] if lines else None


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
