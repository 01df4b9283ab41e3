"""Does a sweep live? Beside its driver, by its process; from another node, by whether its beats go on while we watch. Only
our own monotonic clock is read: a machine whose clock is a day off makes no difference."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from distvae.operate import record

State = Literal["running", "ended", "died", "unknown"]
LATE_S = 30.0  # without a beat, of a driver on another node: network file systems show a change seconds late
LOOK_S = 0.5


@dataclass
class Pulse:
    """What a reader knows of the sweep in `out`, look by look."""

    out: Path
    now: Callable[[], float] = time.monotonic
    seen: dict[str, Any] | None = None  # the last record
    heard: bool = False  # has it written since we began to watch?
    at: float = field(default=0.0)  # when its last beat was first seen

    def look(self) -> State | None:
        """`running`, `ended` or `died`; `unknown` until one can tell; None if no sweep has left a record."""
        found, now = record.read(self.out), self.now()
        if found is not None and (self.seen is None or _beat(found) != _beat(self.seen)):
            self.heard, self.at, self.seen = self.seen is not None, now, found
        if self.seen is None:
            return None
        if self.seen["ended"] is not None:
            return "ended"
        owner = self.seen["owner"]
        if owner.get("place") is not None and owner["place"] == record.place():
            return "running" if record.started(owner["pid"]) == owner["started"] else self._died()
        if now - self.at > LATE_S:
            return "died"
        return "running" if self.heard else "unknown"

    def _died(self) -> State:
        """The process is gone: unless it wrote its end between our two looks."""
        again = record.read(self.out)
        if again is not None and self.seen is not None and again["run"] == self.seen["run"]:
            self.seen = again
            return "ended" if again["ended"] is not None else "died"
        return "died"

    def tell(self, sleep: Callable[[float], None] = time.sleep) -> State | None:
        """`look` until it can tell: at once beside the driver, else within `LATE_S`."""
        while (state := self.look()) == "unknown":
            sleep(LOOK_S)
        return state


def _beat(record: dict[str, Any]) -> tuple[str, int]:
    return record["run"], record["beat"]
