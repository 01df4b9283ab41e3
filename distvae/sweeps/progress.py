"""What a person sees while a sweep runs: done, running, failed, ETA and the best so far; live on a terminal, plain
lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

PLAIN_S = 10.0  # seconds between plain lines


@dataclass
class Progress:
    """Counts of a sweep, updated by the driver's callbacks."""

    total: int
    skipped: int = 0  # ended in an earlier run
    epochs: int = 1  # epochs of all trials still to run, for the ETA
    done: int = 0
    diverged: int = 0
    stopped: int = 0  # by the sweep's scheduler
    failed: int = 0
    failures: list[str] = field(default_factory=list)  # their keys
    foreseen: bool = False  # are the epochs that stopped trials do not train left out of `epochs`?
    running: dict[str, tuple[int, int]] = field(default_factory=dict)  # key -> (epoch, epochs)
    best: dict[str, tuple[float, str]] = field(default_factory=dict)  # measure -> (valid elbo, what)
    began: float = field(default_factory=time.monotonic)
    trained: int = 0  # epochs so far
    first_at: float | None = None  # when the first report came: start-up is not speed

    @property
    def ended(self) -> int:
        return self.skipped + self.done + self.diverged + self.stopped + self.failed

    def report(self, key: str, epoch: int, epochs: int, rows: list[dict[str, Any]], label: str) -> None:
        before = self.running.get(key, (0, epochs))[0]
        self.first_at = self.first_at or time.monotonic()
        self.trained += max(0, epoch - before)
        self.running[key] = (epoch, epochs)
        for row in rows:
            elbo, measure = row.get("elbo_nats"), row.get("measure")
            if row["split"] != "valid" or elbo is None or measure is None or row["epoch"] != epochs:
                continue
            if measure not in self.best or elbo > self.best[measure][0]:
                self.best[measure] = (elbo, label)

    def end(self, key: str, status: str) -> None:
        epoch, epochs = self.running.pop(key, (0, 0))
        if not (status == "stopped" and self.foreseen):
            self.epochs -= epochs - epoch  # of one that ended early, they will not be trained
        self.failures += [key] if status == "failed" else []
        name = "done" if status == "finished" else status
        setattr(self, name, getattr(self, name) + 1)

    def eta_s(self) -> float | None:
        """Seconds left, from epochs per second since the first report."""
        if self.first_at is None or not self.trained:
            return None
        elapsed = time.monotonic() - self.first_at
        if elapsed < 3:
            return None
        return max(0.0, (self.epochs - self.trained) * elapsed / self.trained)

    def line(self) -> str:
        parts = [f"{self.ended}/{self.total} done", f"{len(self.running)} running"]
        parts += ["starting Ray and the first workers"] if self.first_at is None and not self.running else []
        parts += [f"{self.skipped} from an earlier run"] if self.skipped else []
        parts += [f"{self.diverged} diverged"] if self.diverged else []
        parts += [f"{self.stopped} stopped"] if self.stopped else []
        parts += [f"{self.failed} failed"]
        eta = self.eta_s()
        parts += [
            f"{duration(time.monotonic() - self.began)} so far",
            f"ETA {duration(eta) if eta is not None else '...'}",
        ]
        for measure, (elbo, label) in self.best.items():
            parts.append(f"best valid ELBO {elbo:.2f} nats ({measure}; {label})")
        return " · ".join(parts)

    def details(self) -> list[str]:
        return [f"{key}  epoch {epoch}/{epochs}" for key, (epoch, epochs) in list(self.running.items())[:8]]


def duration(seconds: float) -> str:
    """`4m 05s`"""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}h {m:02d}m" if hours else f"{m}m {s:02d}s" if m else f"{s}s"


class Shown(Protocol):
    """What a `Display` draws."""

    @property
    def total(self) -> int: ...
    @property
    def ended(self) -> int: ...
    def eta_s(self) -> float | None: ...
    def line(self) -> str: ...
    def details(self) -> list[str]: ...


class Display:
    """Draws a `Progress` until closed, from a thread of its own. `progress` may be replaced while it does. `record` is told
    every plain line, shown or not."""

    def __init__(
        self,
        progress: Shown,
        console: Console | None = None,
        *,
        shown: bool = True,
        record: Callable[[str], None] = lambda text: None,
    ):
        self.progress, self.shown, self.record = progress, shown, record
        self.console = console or Console(stderr=True)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> Display:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(timeout=2)

    def say(self, text: str) -> None:
        """A plain line, above the live display if there is one."""
        self.record(text)
        if self.shown:
            self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def _run(self) -> None:
        if not (self.shown and self.console.is_terminal):
            self._plain(self.say)
            return
        with Live(console=self.console, refresh_per_second=4, transient=False) as live:
            self._plain(self.record, lambda: live.update(self._picture()))
            live.update(self._picture())

    def _plain(self, tell: Callable[[str], None], meanwhile: Callable[[], None] = lambda: None) -> None:
        """A line when there is something new to say, every `PLAIN_S` at most; and the last."""
        shown, due = "", time.monotonic() + 1.0
        while not self._stop.wait(0.25):
            meanwhile()
            if time.monotonic() >= due and (line := self.progress.line()) != shown:
                tell(line)
                shown, due = line, time.monotonic() + PLAIN_S
        tell(self.progress.line())

    def _picture(self) -> Table:
        p, grid = self.progress, Table.grid(padding=(0, 1))
        width = 40
        full = int(width * p.ended / max(1, p.total))
        bar = Text("█" * full, style="green") + Text("─" * (width - full), style="dim")
        grid.add_row(bar, f"{p.ended}/{p.total}")
        grid.add_row(Text(p.line(), overflow="fold"))
        for detail in p.details():
            grid.add_row(Text(f"  {detail}", style="dim"))
        return grid
