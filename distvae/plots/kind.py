"""What a kind of picture is: a name, what it shows, and how it is drawn into a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class NothingToPlotError(Exception):
    """A picture was asked for that has nothing to show (exit code 2). The message says why and what would help."""


class OptionError(Exception):
    """An option of `distvae plot` names what is not there (exit code 2)."""


@dataclass(frozen=True)
class Options:
    """The options of `distvae plot`; a kind reads those it knows."""

    split: str = "test"
    color: str | None = None  # knob (of the five, or any dotted config name) that colours the points
    x: str | None = None  # heat map: knob along x, of the five or any dotted config name; default: the liveliest,
    y: str | None = None  # along y,
    value: str = "elbo_nats"  # and metric; training curves: metric
    trial: str | None = None  # key of a trial or its first digits; default: the best by valid bound
    sampler: str | None = None  # YAML of a sampler; default: every one that fits the trial
    n: int = 64  # images, examples
    seed: int = 0


@dataclass(frozen=True)
class Kind:
    """`draw(out, folder, options)` writes PNGs into `folder` (OUT/plots) and returns their paths. Raises
    NothingToPlotError."""

    name: str
    doc: str
    of: str  # "sweep" (all its trials) or "trial" (one model)
    reads: tuple[str, ...]  # the options it knows
    draw: Callable[[Path, Path, Options], list[Path]]
