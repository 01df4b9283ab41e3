"""Files and folders that are whole or not there, whatever happens: written beside, synced to disk, then renamed. And logs,
which grow."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A binary file to write; `path` becomes it when the block ends, and keeps what it held if the block raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temp, "xb") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(temp, path)
    finally:
        temp.unlink(missing_ok=True)
    sync(path.parent)


def append(path: Path, text: str) -> None:
    """Add `text` at the end of a log, in one write: what several processes append does not mix. Not synced: of a log, the
    last lines may be lost with the machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab", buffering=0) as f:
        f.write(text.encode())


def sync(folder: Path) -> None:
    """Wait until the names in `folder` are on disk: a rename itself may be lost."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def cache_folder() -> Path | None:
    """What outlives a sweep and can be made again: `$DISTVAE_CACHE`, `$XDG_CACHE_HOME/distvae` or `~/.cache/distvae`; None
    if there is no home."""
    if os.environ.get("DISTVAE_CACHE"):
        return Path(os.environ["DISTVAE_CACHE"])
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "distvae"
    except RuntimeError:
        return None
