"""OUT/status.json: how a sweep is, written by its driver every few seconds and at its end.

`run` names one launch of the driver, `beat` counts its writes: a reader judges by its own clock whether they go on
(`pulse.py`). `written_unix_s` is for people: nothing is decided by comparing the clocks of two machines."""

from __future__ import annotations

import json
import os
import secrets
import socket
from pathlib import Path
from typing import Any

from distvae.files import replacing

FILE = "status.json"
BEAT_S = 2.0  # seconds between writes
FORMAT = 1
MOST = 100  # failed trials that are named, answers that are remembered


def read(out: Path) -> dict[str, Any] | None:
    """The record of the last launch; None if there is none, or not one that can be read."""
    try:
        found = json.loads((out / FILE).read_bytes())
    except (OSError, ValueError):
        return None
    sound = isinstance(found, dict) and found.get("format") == FORMAT and isinstance(found.get("owner"), dict)
    return found if sound and {"run", "beat", "ended"} <= found.keys() else None


def write(out: Path, record: dict[str, Any]) -> None:
    with replacing(out / FILE) as f:
        f.write(json.dumps(record, indent=1).encode())


def new_run() -> str:
    return secrets.token_hex(8)


def owner() -> dict[str, Any]:
    """This process, so that a reader beside it can look whether it lives."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "place": place(), "started": started(os.getpid())}


def place() -> str | None:
    """Where a process id means something: one boot of one machine, one namespace. None where that cannot be known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def started(pid: int) -> int | None:
    """When a process started, in ticks since boot: with its id, its identity. None if there is no such process, or it is
    dead and only waits to be buried."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if after_name[0] in "ZX" else int(after_name[19])
