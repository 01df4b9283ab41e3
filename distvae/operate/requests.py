"""OUT/requests/<id>.json: what people ask of a running sweep, one file each. The driver takes it at its next beat, answers
in its record, and removes it. A request names the launch it is for: one that was not taken does not reach the next."""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distvae import files
from distvae.files import replacing
from distvae.operate.pulse import LOOK_S, Pulse

FOLDER = "requests"


@dataclass(frozen=True)
class Request:
    """`drain` the sweep, or `stop` trials by their `keys`."""

    id: str
    what: str
    keys: tuple[str, ...]
    by: str
    path: Path


def send(out: Path, run: str, what: str, keys: Sequence[str] = ()) -> str:
    """Ask the launch `run`. Returns the request's id."""
    name = secrets.token_hex(8)
    by = f"process {os.getpid()} on {socket.gethostname()}"
    with replacing(out / FOLDER / f"{name}.json") as f:
        f.write(json.dumps({"to": run, "what": what, "keys": list(keys), "by": by}).encode())
    return name


def take(out: Path, run: str) -> list[Request]:
    """What is asked of the launch `run`; the rest, of earlier ones or unreadable, is removed."""
    folder, found = out / FOLDER, []
    for path in sorted(folder.glob("*.json"), key=lambda p: p.name) if folder.is_dir() else ():
        request = _read(path, run)
        if request is None:
            files.remove(path)
        else:
            found.append(request)
    return found


def _read(path: Path, run: str) -> Request | None:
    try:
        data = json.loads(path.read_bytes())
        if data["to"] != run or data["what"] not in ("stop", "drain"):
            return None
        return Request(path.stem, data["what"], tuple(map(str, data["keys"])), str(data["by"]), path)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def answer(pulse: Pulse, name: str, sleep: Callable[[float], None] = time.sleep) -> dict[str, Any] | None:
    """Wait for the driver's answer. None if the sweep ended, or died, without one."""
    while True:
        state = pulse.look()
        told = pulse.seen["answers"].get(name) if pulse.seen is not None else None
        if told is not None or state not in ("running", "unknown"):
            return told
        sleep(LOOK_S)
