"""The exit code tells the truth, and the last line says why."""

from pathlib import Path

import pytest

from distvae.operate import verdict
from distvae.sweeps.outcome import Outcome


def outcome(*status, planned=None, **more):
    ended = dict(enumerate(status))
    return Outcome(Path("o"), len(status) if planned is None else planned, status=ended, **more)  # pyright: ignore


@pytest.mark.parametrize(
    "of, code, words",
    [
        (outcome("finished", "stopped", "diverged"), 0, "complete: 3 of 3 trials ended (1 finished, 1 stopped, 1 div"),
        (outcome(), 0, "complete: 0 of 0 trials ended (none planned)"),
        (outcome("finished", "failed"), 3, "incomplete: 1 failed trial;"),
        (outcome("finished", planned=3, left=2), 3, "incomplete: 2 trials not ended;"),
        (outcome("finished", unasked=1), 3, "incomplete: 1 suggestion not made;"),
        (outcome("finished", unmeasured=4), 3, "incomplete: 4 trials not measured;"),
        (outcome("failed", left=1, planned=2, interrupted=True), 130, "interrupted by Ctrl-C or a signal: 1 failed tr"),
        (outcome("finished", interrupted=True, interrupted_by="distvae stop"), 130, "by distvae stop: nothing is left"),
    ],
)
def test_each_end(of, code, words):
    assert of.exit_code == verdict.exit_code(of) == code
    assert words in verdict.why(of) and ("exit code" in verdict.why(of)) == (code != 0)
