"""Ray's own noise goes to OUT/logs/ray.log: what its processes write to our standard error, what its threads print there,
and its loggers' warnings. What a person has to know of it (a node that died, memory that ran out, errors of its loggers)
is said in a line."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TextIO

from distvae.files import append

MATTERS = re.compile(r"marked dead|memory|disk|unexpected|cannot be scheduled", re.IGNORECASE)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
MOST = 20  # different things that are said; the rest is in the log


def path(out: Path) -> Path:
    return out / "logs" / "ray.log"


class Noise:
    """What Ray says, sorted."""

    def __init__(self, out: Path, say: Callable[[str], None]):
        self.out, self.say = out, say
        self.said: set[str] = set()
        self.mine = threading.local()
        self.logger: logging.Logger | None = None

    def keep(self, text: str) -> None:
        with contextlib.suppress(Exception):
            append(path(self.out), text if text.endswith("\n") else text + "\n")

    def heard(self, text: str, *, matters: bool = False) -> None:
        """Something of Ray's own. It is kept; if it matters it is said, once."""
        text = COLOUR.sub("", text)
        if not text.strip():
            return
        self.keep(time.strftime("%Y-%m-%d %H:%M:%S ") + text)
        line = " ".join(text.split())[:200]
        like = re.sub(r"[0-9a-f]{8,}|\d+", "#", line)  # the same of another node or process is not said again
        if (matters or MATTERS.search(text)) and like not in self.said and len(self.said) < MOST:
            self.said.add(like)
            self.mine.saying = True  # in a thread of Ray's, perhaps
            try:
                self.say(f"Ray: {line} (more in {path(self.out)})")
            finally:
                self.mine.saying = False

    def listen(self) -> None:
        """Once Ray has set up its loggers."""
        for name in ("ray", "ray.tune", "ray.train"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self.logger = logging.getLogger("ray")
        self.before = self.logger.handlers[:]
        self.logger.handlers[:] = [_Handler(self)]

    def stop(self) -> None:
        if self.logger is not None:
            self.logger.handlers[:] = self.before


class _Handler(logging.Handler):
    def __init__(self, noise: Noise):
        super().__init__(logging.WARNING)
        self.noise = noise

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(Exception):
            ours = record.name.startswith("ray.tune")  # of trials: the driver says what becomes of them
            matters = record.levelno >= logging.ERROR and not ours
            self.noise.heard(f"{record.levelname} {record.getMessage()}", matters=matters)


class Sorted(io.TextIOBase):
    """Standard error, or output, without what Ray's threads print: they go by `ray_...`."""

    def __init__(self, terminal: TextIO, noise: Noise):
        self.terminal, self.noise = terminal, noise

    def write(self, text: str) -> int:
        if threading.current_thread().name.startswith("ray_") and not getattr(self.noise.mine, "saying", False):
            self.noise.heard(text)
            return len(text)
        return self.terminal.write(text)

    def flush(self) -> None:
        self.terminal.flush()

    def isatty(self) -> bool:
        return self.terminal.isatty()

    def fileno(self) -> int:
        return self.terminal.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.terminal.encoding


@contextmanager
def apart(out: Path, say: Callable[[str], None]) -> Iterator[Noise]:
    """While Ray runs: descriptor 2, which its processes inherit, is a file; `sys.stderr` is the terminal still. Only where
    `sys.stderr` is that descriptor: one that somebody replaced is theirs. What its raylets complain of, Ray prints to
    `sys.stdout`."""
    noise = Noise(out, say)
    try:
        with _descriptor(noise) if _is_ours() else contextlib.nullcontext():
            yield noise
    finally:
        noise.stop()


def _is_ours() -> bool:
    try:
        return sys.stderr.fileno() == 2
    except (OSError, ValueError, AttributeError):
        return False


@contextmanager
def _descriptor(noise: Noise) -> Iterator[None]:
    ours: Any = sys.stderr
    ours.flush()
    saved = os.dup(2)
    terminal = os.fdopen(os.dup(saved), "w", buffering=1, encoding=ours.encoding, errors="backslashreplace")
    with _file(noise.out) as kept, contextlib.redirect_stdout(Sorted(sys.stdout, noise)):
        os.dup2(kept.fileno(), 2)
        sys.stderr = Sorted(terminal, noise)
        try:
            yield
        finally:
            sys.stderr.flush()
            sys.stderr = ours
            os.dup2(saved, 2)
            os.close(saved)
            terminal.close()
            if not isinstance(noise.out, Path):
                kept.seek(0)
                if text := kept.read().decode(errors="replace").strip():
                    noise.keep(text)


def _file(out: Path) -> IO[bytes]:
    """The log itself, which then outlives our sudden death; for an OUT that is no folder of this machine, one that is
    copied at the end."""
    if isinstance(out, Path):
        with contextlib.suppress(OSError):
            append(path(out), "")  # through no link
            return os.fdopen(os.open(path(out), os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW), "ab")
    return tempfile.TemporaryFile()


def last(out: Path, most: int = 5) -> str:
    """The last lines of the log."""
    try:
        return "\n".join(path(out).read_bytes().decode(errors="replace").splitlines()[-most:])
    except OSError:
        return ""
