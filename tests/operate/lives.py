"""A driver's side without a driver: a desk over counts that a test sets."""

import json
from pathlib import Path

from distvae.operate import record
from distvae.operate.desk import Desk
from distvae.sweeps.progress import Display, Progress


def desk(out: Path, total: int = 4) -> Desk:
    """Not entered: no thread, beats by hand."""
    progress = Progress(total=total)
    return Desk(out, "s", progress, Display(progress, shown=False))


def elsewhere(out: Path, **changes) -> None:
    """The record in `out` as another node's driver would have written it."""
    found = json.loads((out / record.FILE).read_text())
    owner = {"host": "far", "pid": 1, "place": "another boot/pid:[1]", "started": 7}
    record.write(out, {**found, "owner": owner, **changes})


class Clock:
    """Monotonic seconds that pass when someone sleeps; `meanwhile` is called at each sleep."""

    def __init__(self, meanwhile=lambda at: None):
        self.at, self.meanwhile = 1000.0, meanwhile

    def __call__(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += seconds
        self.meanwhile(self.at - 1000.0)
