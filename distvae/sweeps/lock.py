"""One owner per OUT: an advisory lock on OUT/.lock, which the kernel releases when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class OutLockedError(Exception):
    """OUT belongs to another running sweep (exit code 5)."""


@contextmanager
def hold_out(out: Path) -> Iterator[None]:
    """Own `out` for the duration. Raises OutLockedError naming the owner."""
    out.mkdir(parents=True, exist_ok=True)
    fd = os.open(out / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise OutLockedError(f"{out} is being swept by {_owner(fd)}; wait for it, or give another --out") from None
        os.truncate(fd, 0)
        os.pwrite(fd, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        yield
    finally:
        os.close(fd)


def _owner(fd: int) -> str:
    try:
        owner = json.loads(os.pread(fd, 1000, 0))
        return f"process {owner['pid']} on {owner['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
