"""What every metric states about itself, and what it returns.

A metric is measured once, of an ended trial, on whole splits; its values are columns of the curve table. What cannot be
measured (no labels, no density) is null, and the log says why: never a number that means something else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from distvae.part import Hyper, Part

if TYPE_CHECKING:
    from distvae.metrics.subject import Subject
    from distvae.trial import Trial

Splits = Annotated[tuple[Literal["train", "valid", "test"], ...], Hyper(doc="splits it is measured on")]


@dataclass(frozen=True)
class Column:
    """A column of the curve table. Its name says what a reader must not mistake (the feature net, the labels used)."""

    name: str
    unit: str  # "" if it has none
    doc: str
    whole: bool = False  # a whole number


@dataclass(frozen=True, kw_only=True)
class MetricPart(Part):
    """Base of the metrics: `type`, knobs, columns, and `measure`."""

    type: str
    splits: Splits = ("valid", "test")  # one selects, the other is reported

    version: ClassVar[int] = 1  # of its mathematics: what was measured by an older one is measured again

    def columns(self, trial: Trial) -> tuple[Column, ...]:
        """What `measure` returns, in order."""
        raise NotImplementedError

    def why_not(self, subject: Subject) -> str | None:
        """Why it has no value for this model or data, in words for the user; None if it has one."""
        return None

    def first(self) -> str | None:
        """What its first use of a data set does beside measuring, in words for who waits; None if nothing."""
        return None

    def measure(self, subject: Subject, split: str) -> Mapping[str, float | int | None]:
        """Its columns on one split. Only called where `why_not` is None."""
        raise NotImplementedError


def clash(metrics: Sequence[MetricPart], trial: Trial) -> str | None:
    """Why these metrics cannot stand side by side: two of them give one column. None if they can."""
    seen: dict[str, str] = {}
    for m in metrics:
        for column in m.columns(trial):
            if column.name in seen:
                return f"{seen[column.name]} and {m.type} both give the column {column.name} (leave one out)"
            seen[column.name] = m.type
    return None
