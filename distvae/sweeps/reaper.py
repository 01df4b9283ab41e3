"""`python -m distvae.sweeps.reaper FOLDER`: outlives the driver by a moment, to leave nothing behind whatever killed it.

Reads standard input, a pipe whose other end the driver holds: end of file means that the driver is gone (or done). Then
every process of the driver's own cluster is ended, and FOLDER, the cluster's scratch, is removed. Ray ends most of its
processes by itself, but the agents of a raylet that was orphaned by `kill -9` were seen to live on.

A process is of the cluster if its environment carries the cluster's token path, or if it is called `ray::...` and holds
a file of FOLDER open: those that give themselves a title overwrite their environment by it."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from pathlib import Path

import psutil

TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"
GRACE_S = 1.0


def members(folder: str) -> list[psutil.Process]:
    """Processes of the cluster in `folder`. The driver is none: its environment was set after its start."""
    found = []
    for p in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            mine = p.environ().get(TOKEN_PATH, "").startswith(folder + "/")
            if p.pid != os.getpid() and (mine or (p.name().startswith("ray::") and _holds(p.pid, folder))):
                found.append(p)
    return found


def _holds(pid: int, folder: str) -> bool:
    """Has the process a file of `folder` open? (Linux; elsewhere unknown, hence no.)"""
    files = Path(f"/proc/{pid}/fd")
    return files.is_dir() and any(os.readlink(f).startswith(folder + "/") for f in files.iterdir())


def reap(folder: str) -> None:
    """End the cluster's processes, now, and remove its folder."""
    for _ in range(20):
        alive = members(folder)
        if not alive:
            break
        for p in alive:
            with contextlib.suppress(psutil.Error):
                p.kill()
        psutil.wait_procs(alive, timeout=1)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    if not sys.stdin.buffer.read():  # a driver that ends by itself has shut Ray down, and says so
        time.sleep(GRACE_S)
    reap(sys.argv[1])
