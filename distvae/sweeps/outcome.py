"""How a sweep ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from distvae.operate import verdict


@dataclass
class Outcome:
    """How a sweep ended."""

    out: Path
    planned: int
    status: dict[str, str] = field(
        default_factory=dict
    )  # trial key -> finished | stopped | diverged | failed, of the plan
    interrupted: bool = False
    interrupted_by: str = "Ctrl-C or a signal"
    left: int = 0  # trials of the plan that have neither ended for good nor failed
    unasked: int = 0  # suggestions that a search had still to make
    notes: list[str] = field(default_factory=list)
    unmeasured: int = 0  # trials of which a metric could not be measured: it raised
    ran: list[str] = field(default_factory=list)  # trials that ended in this run
    unwritten: str = ""  # why OUT could not be written; what had not been committed by then is run by the next launch
    tracked: bool = True  # did MLflow take everything?
    first: tuple[float, float] | None = None  # `overhead.mark` when the first group started,
    last: tuple[float, float] | None = None  # and when the last trial ended

    def count(self, status: str) -> int:
        return sum(s == status for s in self.status.values())

    @property
    def exit_code(self) -> int:
        return verdict.exit_code(self)
