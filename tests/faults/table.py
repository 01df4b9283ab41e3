"""tests/faults/README.md: every fault, the moments it struck and what came of it, written by the run that saw it."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass, field
from pathlib import Path

README = Path(__file__).parent / "README.md"
HEAD = """# Faults

Every fault that the tests do to a sweep, at moments drawn at random, and what was seen. Written by

    DISTVAE_FAULTS_TABLE=1 pytest -m "slow or not slow" tests/faults

and by nothing else. A moment is a fraction of the time that the sweep takes when nothing happens to it, its start
included; seed {seed} drew them (`DISTVAE_FAULTS_SEED` draws them again).

After each fault and the same command again: every planned trial has ended exactly once, files committed before are
the same bytes, the rows are those of a sweep that nothing happened to, every trial that had saved went on from its
newest sound checkpoint, and that was at most a checkpoint interval old, and no process is left. Where a fault is
declared to cost something (a trial that has failed, say), the outcome says what.

{when}, {machine}, commit {commit}: {passed} of {all} held.

| fault | moment | outcome |
|---|---|---|
"""


@dataclass
class Seen:
    """One fault at one moment."""

    fault: str
    moment: str
    outcome: str
    held: bool


@dataclass
class Table:
    """What this run has seen."""

    seed: int
    seen: list[Seen] = field(default_factory=list)

    def write(self, path: Path = README) -> None:
        from distvae.results.provenance import git_sha
        from distvae.sweeps.cluster import cores

        head = HEAD.format(
            seed=self.seed,
            when=time.strftime("%Y-%m-%d"),
            machine=f"{cores()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}",
            commit=git_sha()[:12] or "unknown",
            passed=sum(s.held for s in self.seen),
            all=len(self.seen),
        )
        lines = [
            f"| {s.fault} | {s.moment} | {'' if s.held else '**did not hold**: '}{_cell(s.outcome)} |"
            for s in self.seen
        ]
        path.write_text(head + "\n".join(lines) + "\n")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
