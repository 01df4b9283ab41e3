"""tests/faults/README.md: every fault, the moments it struck and what came of it, written by the run that saw it."""

from __future__ import annotations

import platform
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

README = Path(__file__).parent / "README.md"
ROW = re.compile(r"\| (.*) \| (.*) \| (.*) \| `(.*)` \| (.*) \|")
DID_NOT = "**did not hold**: "
HEAD = """# Faults

Every fault that the tests do to a sweep, at moments drawn at random, and what was seen. Written by

    DISTVAE_FAULTS_TABLE=1 pytest -m "slow or not slow" tests/faults

and by nothing else (`=add` puts the rows of the tests that are run, by themselves, in the place of their earlier ones).
A moment is a fraction of the time that the sweep takes when nothing happens to it, its start included, or of a phase of
it: starting, training (from the first checkpoint on), ending (once all rows are committed). `seen` has the seed that drew
it (`DISTVAE_FAULTS_SEED` draws it again).

After each fault and the same command again: every planned trial has ended exactly once, files committed before are
the same bytes, the rows are those of a sweep that nothing happened to, every trial that had saved went on from its
newest sound checkpoint, and that was at most a checkpoint interval old, and no process is left. Where a fault is
declared to cost something (a trial that has failed, say), the outcome says what.

{passed} of {all} held. {machine}.

| fault | moment | outcome | test | seen |
|---|---|---|---|---|
"""


@dataclass
class Seen:
    """One fault at one moment, by one test."""

    fault: str
    moment: str
    outcome: str
    test: str
    held: bool


@dataclass
class Table:
    """What this run has seen."""

    seed: int
    seen: list[Seen] = field(default_factory=list)

    def write(self, path: Path = README, *, add: bool = False) -> None:
        from distvae.results.provenance import git_sha
        from distvae.sweeps.cluster import cores

        when = f"{time.strftime('%Y-%m-%d')}, {git_sha()[:12] or 'unknown'}, seed {self.seed}"
        rows = _rows(path) if add else {}
        for s in self.seen:
            cells = [s.fault, s.moment, ("" if s.held else DID_NOT) + s.outcome, f"`{s.test}`", when]
            rows[_cell(s.test)] = f"| {' | '.join(map(_cell, cells))} |"
        head = HEAD.format(
            machine=f"{cores()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}",
            passed=sum(DID_NOT not in row for row in rows.values()),
            all=len(rows),
        )
        path.write_text(head + "\n".join(rows[test] for test in sorted(rows)) + "\n")


def _rows(path: Path) -> dict[str, str]:
    """Test -> its row."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {m[4]: line for line in lines if (m := ROW.fullmatch(line))}


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
