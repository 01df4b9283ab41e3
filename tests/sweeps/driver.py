"""Starts `distvae` as a user does, in a process of its own, and looks at what is left when it ends."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import psutil

CLI = [sys.executable, "-m", "distvae.cli"]

TINY = """
name: tiny
data: {type: digits}
vae:
  encoder: {type: mlp, hidden: [16]}
  latent_dim: 2
  prior: {type: binarized, r: {grid: [0.0, 0.5]}}
train: {epochs: %(epochs)d, batch_size: 256}
seeds: %(seeds)d
"""


def write_config(folder: Path, *, epochs: int = 2, seeds: int = 2, extra: str = "") -> Path:
    path = folder / "tiny.yaml"
    path.write_text(TINY % {"epochs": epochs, "seeds": seeds} + extra)
    return path


def distvae(*args: object, timeout: float = 240, **kwargs) -> subprocess.CompletedProcess:
    """Run a command to its end."""
    return subprocess.run([*CLI, *map(str, args)], capture_output=True, text=True, timeout=timeout, **kwargs)


def heeds_ctrl_c() -> None:
    """A shell starts what it runs in the background with SIGINT ignored, and the children inherit it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Background:
    """A command in the background. `with` guarantees that nothing it started survives the test."""

    def __init__(self, *args: object, log: Path, **how):
        self.log = log
        with open(self.log, "wb") as f:
            self.process = subprocess.Popen(
                [*CLI, *map(str, args)], stdout=f, stderr=f, start_new_session=True, preexec_fn=heeds_ctrl_c, **how
            )
        self.started = time.monotonic()
        self.family: set[psutil.Process] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc) -> None:
        self.look()
        for p in [*self.survivors(), self.process]:
            p.kill()

    def look(self) -> None:
        """Remember every process of the command."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self.family |= set(psutil.Process(self.process.pid).children(recursive=True))

    def wait_for(self, what, timeout: float = 120) -> None:
        """Until `what()` is true; fails with the command's own words if it ends first."""
        deadline = time.monotonic() + timeout
        while not what():
            self.look()
            assert self.process.poll() is None, f"it ended early:\n{self.text()}"
            assert time.monotonic() < deadline, f"nothing after {timeout} s:\n{self.text()}"
            time.sleep(0.1)
        self.look()

    def end(self, sig: signal.Signals | None = None, timeout: float = 90) -> int:
        self.look()
        if sig is not None:
            os.kill(self.process.pid, sig)
        return self.process.wait(timeout)

    def survivors(self) -> list[psutil.Process]:
        return [p for p in self.family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

    def all_gone(self, timeout: float = 30) -> bool:
        deadline = time.monotonic() + timeout
        while self.survivors() and time.monotonic() < deadline:
            time.sleep(0.2)
        return not self.survivors()

    def text(self) -> str:
        return self.log.read_text()


class Sweep(Background):
    """A sweep in the background."""

    def __init__(self, config: Path, out: Path, *args: str, log: Path | None = None, **how):
        self.out = out
        super().__init__("sweep", config, "--out", out, *args, log=log or out.parent / f"{out.name}.stderr", **how)

    def points(self) -> list[Path]:
        return sorted((self.out / "points").glob("[!.]*.parquet"))
