"""OUT/logs/console.log: what a sweep says, in plain lines, whether or not a terminal is there to see it (`distvae
attach`). Each launch begins with a line of its own."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from distvae.files import append

WIDTH = 140
BEGINS = "--- "


def path(out: Path) -> Path:
    return out / "logs" / "console.log"


def begin(out: Path) -> None:
    """The first line of a launch."""
    at = time.strftime("%Y-%m-%d %H:%M:%S")
    tell(out, f"{BEGINS}sweep into {out}, process {os.getpid()} on {socket.gethostname()}, {at}")


def tell(out: Path, text: str) -> None:
    """A place that is full, or away, is no reason for a sweep to end."""
    with contextlib.suppress(Exception):
        append(path(out), text + "\n")


class Told(Console):
    """The terminal's standard error, and the log as well."""

    def __init__(self, out: Path):
        wide = None if sys.stderr.isatty() else WIDTH
        super().__init__(stderr=True, highlight=False, soft_wrap=True, width=wide)
        self.sweep = out

    def print(self, *objects: Any, **how: Any) -> None:
        super().print(*objects, **how)
        plain = Console(file=io.StringIO(), width=WIDTH, highlight=False, soft_wrap=True)
        plain.print(*objects, **how)
        assert isinstance(plain.file, io.StringIO)
        tell(self.sweep, plain.file.getvalue().removesuffix("\n"))


class Tail:
    """The log of the last launch, from its last `lines` on. Call it again and again: each time what is new."""

    def __init__(self, file: Path, lines: int):
        self.file, self.lines, self.at = file, lines, -1

    def __call__(self) -> str:
        try:
            if self.at < 0:
                data = self.file.read_bytes()
                self.at = len(data)
                return self._last(data.decode(errors="replace"))
            if self.file.stat().st_size < self.at:  # it was begun anew
                self.at = 0
            with self.file.open("rb") as f:
                f.seek(self.at)
                data = f.read()
        except FileNotFoundError:
            return ""
        whole = data[: data.rfind(b"\n") + 1]  # the rest of a line is being written
        self.at += len(whole)
        return whole.decode(errors="replace")

    def _last(self, text: str) -> str:
        lines = text.splitlines(keepends=True)
        begins = max((i for i, line in enumerate(lines) if line.startswith(BEGINS)), default=0)
        return "".join(lines[max(begins, len(lines) - self.lines) :])
