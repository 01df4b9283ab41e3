"""`python -m distvae.sweep.reaper FOLDER`: outlives the driver by a moment, to leave nothing behind whatever killed it.

Reads standard input, a pipe whose other end the driver holds: end of file means that the driver is gone (or done). Then every process that carries the cluster's
token path in its environment, which is to say that the driver's own cluster started, is ended, and FOLDER, the cluster's scratch, is removed. Ray ends most of its processes by itself,
but agents of a raylet that was orphaned by `kill -9` were seen to live on."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time

import psutil

TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"
GRACE_S = 1.0


def members(folder: str) -> list[psutil.Process]:
    """Processes of the cluster in `folder`, but for this one and the driver (whose environment was set after its start)."""
    found = []
    for p in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if p.pid != psutil.Process().pid and p.environ().get(TOKEN_PATH, "").startswith(folder + "/"):
                found.append(p)
    return found


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
    sys.stdin.buffer.read()
    time.sleep(GRACE_S)
    reap(sys.argv[1])
