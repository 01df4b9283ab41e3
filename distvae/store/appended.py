"""Logs on S3, which has no append: the whole object is put again with the new lines at its end.

A whole object, and not numbered parts, because then whoever reads a log reads one object and knows nothing of this.
Several processes write one log (gang, rank, driver), so an object is only put in place of the one that was read
(If-Match), and read again where somebody was faster. A long log costs its length each time, so lines wait, in memory,
for as long as `RATE` bytes a second allow: a few kilobytes go at once, a log of 10 MB once in 40 s. A process that is
killed loses the lines that waited; the record is the ledger, and no line of a log is part of it."""

from __future__ import annotations

import atexit
import contextlib
import threading
import time

from distvae.store.errors import StoreError, UnwrittenError
from distvae.store.path import S3Path
from distvae.store.s3 import Taken

RATE = 256 * 1024  # bytes a second that one process may put of one log
AT_ONCE_S = 0.2  # a pause that is shorter is none
TRIES = 20


class Log:
    """The lines of one log that wait in this process, and when the next may be put."""

    def __init__(self, path: S3Path):
        self.path, self.lines, self.due = path, list[str](), 0.0
        self.lock = threading.Lock()
        self.timer: threading.Timer | None = None

    def append(self, text: str) -> None:
        with self.lock:
            self.lines.append(text)
            wait = self.due - time.monotonic()
            if wait <= AT_ONCE_S:
                self._put()
            elif self.timer is None:
                self.timer = threading.Timer(wait, self._later)
                self.timer.daemon = True
                self.timer.start()

    def flush(self) -> None:
        with self.lock:
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None
            if self.lines:
                self._put()

    def _later(self) -> None:
        with self.lock, contextlib.suppress(StoreError, UnwrittenError):  # they stay, and go with the next
            self.timer = None
            if self.lines:
                self._put()

    def _put(self) -> None:
        new = "".join(self.lines).encode()
        for _ in range(TRIES):
            try:
                old, etag = self.path.read()
            except FileNotFoundError:
                old, etag = b"", None
            try:
                self.path.put(old + new, create=etag is None, match=etag)
            except (FileExistsError, FileNotFoundError, Taken):
                continue  # another process was faster
            self.lines.clear()
            self.due = time.monotonic() + (len(old) + len(new)) / RATE
            return
        raise StoreError(f"{self.path}: others write it all the time; its lines wait")


_logs: dict[str, Log] = {}
_lock = threading.Lock()


def append(path: S3Path, text: str) -> None:
    """Raises UnwrittenError, StoreError; the lines then wait for the next call."""
    with _lock:
        log = _logs.setdefault(str(path), Log(path))
    log.append(text)


@atexit.register
def flush() -> None:
    """Put what waits."""
    with _lock:
        logs = list(_logs.values())
    with contextlib.suppress(StoreError, UnwrittenError):  # where one cannot be put, the others cannot
        for log in logs:
            if log.lines:
                log.flush()
