"""How a sweep ended, in a number and in a line that says why: 0 only if all that was planned has ended, failed nowhere, and
was measured."""

from __future__ import annotations

from typing import Protocol


class Ending(Protocol):
    """What the verdict is of (`sweeps.outcome.Outcome`)."""

    planned: int
    interrupted: bool
    interrupted_by: str
    left: int  # planned, and neither ended for good nor failed
    unasked: int  # suggestions that a search had still to make
    unmeasured: int
    unwritten: str  # why OUT could not be written

    def count(self, status: str) -> int: ...


def exit_code(o: Ending) -> int:
    """130 interrupted, 4 OUT could not be written, 3 something failed or is left, 0."""
    return (
        130
        if o.interrupted
        else 4
        if o.unwritten
        else 3
        if o.count("failed") or o.left or o.unasked or o.unmeasured
        else 0
    )


def why(o: Ending) -> str:
    """The last line of a sweep."""
    open_ = [
        _some(o.count("failed"), "failed trial"),
        _some(o.left, "trial", "not ended"),
        _some(o.unasked, "suggestion", "not made"),
        _some(o.unmeasured, "trial", "not measured"),
    ]
    missing = ", ".join(filter(None, open_))
    code = exit_code(o)
    if code == 0:
        ends = ", ".join(f"{n} {status}" for status in ("finished", "stopped", "diverged") if (n := o.count(status)))
        return f"complete: {o.planned} of {o.planned} trials ended ({ends or 'none planned'})"
    if code == 130:
        left = missing or "nothing is left"
        return f"interrupted by {o.interrupted_by}: {left}; the same command goes on (exit code 130)"
    if code == 4:
        return f"stopped: {o.unwritten}; {missing or 'nothing is left'} (exit code 4)"
    return f"incomplete: {missing}; the same command tries again what failed and goes on (exit code 3)"


def _some(n: int, what: str, more: str = "") -> str:
    return f"{n} {what}{'' if n == 1 else 's'} {more}".strip() if n else ""
