"""The driver's side: a thread that writes the record, takes requests, and answers them. Of the sweep it changes nothing
but the flag that drains it: a trial is stopped on the driver's own thread (`serve`)."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from distvae import files
from distvae.operate import record, requests
from distvae.operate.requests import Request
from distvae.store.lease import Hold

if TYPE_CHECKING:
    from distvae.sweeps.progress import Display, Progress

DRAINING = "running trials save and stop"
NOT_TRAINING = "is not being trained now"
INTERRUPTED = "interrupted by Ctrl-C or a signal; the same command goes on (exit code 130)"


class Desk:
    """Of one launch, while the `with` lasts. `display` draws what a person sees, `progress` holds the counts of the
    training; `drain(by)` is called when someone asks the sweep to stop, and sets `draining`. Once OUT is somebody else's
    (`hold`), nothing is written there any more."""

    def __init__(self, out: Path, name: str, progress: Progress, display: Display, hold: Hold | None = None):
        self.out, self.name, self.progress, self.display = out, name, progress, display
        self.hold = hold or Hold(out)
        self.run, self.count, self.phase = record.new_run(), 0, "starting"
        self.drain: Callable[[str], None] = lambda by: None
        self.draining = threading.Event()
        self.serving = False  # does the driver's thread come by to `serve`?
        self.ended: dict[str, Any] | None = None  # the last record says it
        self.answers: dict[str, dict[str, Any]] = {}
        self._over: dict[str, Any] = {"exit_code": 1, "why": "the driver did not say how it ended"}
        self._began, self._began_unix_s, self._owner = time.monotonic(), time.time(), record.owner()
        self._seen: set[str] = set()
        self._asked: list[Request] = []
        self._answered: list[Request] = []
        self._lock = threading.Lock()
        self._wake, self._closed = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="desk", daemon=True)

    def __enter__(self) -> Self:
        self.beat()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self._closed.set()
        self._wake.set()
        self._thread.join(timeout=10)
        if e is not None:
            code = _code(e)
            self._over = {"exit_code": code, "why": INTERRUPTED if code == 130 else str(e) or type(e).__name__}
        self.phase, self.ended = "ended", self._over
        self.beat()

    def close(self, exit_code: int, why: str) -> None:
        """How it ended, for the last record."""
        self._over = {"exit_code": exit_code, "why": why}

    def leave(self, exit_code: int, why: str) -> None:
        """The last record, of a process that is about to end where it stands."""
        self.phase, self.ended = "ended", {"exit_code": exit_code, "why": why}
        self.beat()

    # --- requests ---------------------------------------------------------------------------------------------------

    def serve(self, stop: Callable[[Sequence[str]], dict[str, str]]) -> None:
        """On the driver's thread: `stop` the trials that were asked for; it says of each what becomes of it."""
        if self._asked:
            with self._lock:
                asked, self._asked = self._asked, []
            for request in asked:
                self._answer(request, {"trials": stop(request.keys)})

    def take(self) -> None:
        """What has been asked since the last time."""
        for request in requests.take(self.out, self.run):
            if request.id in self._seen:
                continue
            self._seen.add(request.id)
            if request.what == "drain":
                self.drain(request.by)
                self._answer(request, {"sweep": DRAINING})
            elif self.serving:
                with self._lock:
                    self._asked.append(request)
            else:
                self._answer(request, {"trials": dict.fromkeys(request.keys, NOT_TRAINING)})

    def _answer(self, request: Request, told: dict[str, Any]) -> None:
        with self._lock:
            self.answers[request.id] = told
            self._answered.append(request)
        self._wake.set()

    # --- the record -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closed.is_set():
            self._wake.wait(record.BEAT_S)
            self._wake.clear()
            with contextlib.suppress(Exception):  # OUT is away: the next beat asks again
                self.take()
            self.beat()

    def beat(self) -> None:
        """Write the record, if OUT is ours still. A disk that is full, or away, does not end the sweep: the next beat tries again."""
        if self.hold.is_lost:
            return
        with self._lock:
            answered, self._answered = self._answered, []
        self.count += 1
        try:
            record.write(self.out, self.view())
        except Exception:
            with self._lock:
                self._answered = answered + self._answered
            return
        for request in answered:  # its answer can be read now
            with contextlib.suppress(Exception):
                files.remove(request.path)

    def view(self) -> dict[str, Any]:
        """The record as data."""
        p, shown = self.progress, self.display.progress
        with self._lock:
            answers = dict(list(self.answers.items())[-record.MOST :])
        counts = {"finished": p.done, "diverged": p.diverged, "stopped": p.stopped, "failed": p.failed}
        return {
            "format": record.FORMAT,
            "run": self.run,
            "beat": self.count,
            "every_s": record.BEAT_S,
            "owner": self._owner,
            "name": self.name,
            "phase": self.phase,
            "draining": self.draining.is_set(),
            "ended": self.ended,
            "began_unix_s": self._began_unix_s,
            "written_unix_s": time.time(),
            "so_far_s": time.monotonic() - self._began,
            "eta_s": shown.eta_s(),
            "line": shown.line(),
            "planned": p.total,
            "counts": {"earlier": p.skipped, **counts},  # of trials; `earlier`: that ended in an earlier run
            "running": [{"key": k, "epoch": at, "epochs": of} for k, (at, of) in list(p.running.items())],
            "failed": list(p.failures)[: record.MOST],
            "best": [{"measure": m, "elbo_nats": elbo, "label": label} for m, (elbo, label) in list(p.best.items())],
            "answers": answers,
        }


def _code(e: BaseException) -> int:
    from distvae.cli import exit_code

    if isinstance(e, KeyboardInterrupt) or (isinstance(e, SystemExit) and e.code == 130):
        return 130
    return (exit_code(e) if isinstance(e, Exception) else None) or 1
