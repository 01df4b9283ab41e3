"""`distvae bench NAME`: the benchmarks of tests/benchmarks, which live with the source and are run from a checkout."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "benchmarks"


class BenchError(Exception):
    """No such benchmark, or no checkout to find it in (exit code 2)."""


def load(name: str) -> Callable[..., dict[str, Any]]:
    """The `run` function of tests/benchmarks/<name>.py. Raises BenchError."""
    names = sorted(p.stem for p in FOLDER.glob("[a-z]*.py"))
    if name not in names:
        there = (
            f"one of {', '.join(names)}"
            if names
            else f"here: benchmarks live in a source checkout ({FOLDER} is not there)"
        )
        raise BenchError(f"bench: {name!r} is not {there}")
    spec = importlib.util.spec_from_file_location(f"distvae_bench_{name}", FOLDER / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.run


def render(result: dict[str, Any], console: Console) -> None:
    for name, value in result.items():
        if not isinstance(value, dict):
            console.print(
                f"{name:<32} {value:.3g}" if isinstance(value, float) else f"{name:<32} {value}", markup=False
            )
