"""Launch files on disk. Each carries the checksum of the rest of it, so that a file somebody edited is known, and kept."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from distvae.files import replacing
from distvae.launch.layout import LaunchError

_SEAL = re.compile(r"^# Written by `distvae launch [a-z]+`, as ([0-9a-f]{16}): .*\n", re.M)


def seal(text: str, kind: str) -> str:
    """`text` with its checksum in the first line that may hold a comment."""
    line = f"# Written by `distvae launch {kind}`, as {_sum(text)}: it writes anew what was not edited.\n"
    head, rest = text.split("\n", 1) if text.startswith("#!") else ("", text)
    return f"{head}\n{line}{rest}" if head else line + rest


def edited(text: str) -> bool:
    """Was it changed since it was written, or never written by us?"""
    found = _SEAL.search(text)
    return found is None or _sum(text[: found.start()] + text[found.end() :]) != found[1]


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write(folder: Path, files: dict[str, str], *, force: bool) -> list[Path]:
    """All of them, or none. Raises LaunchError where an edited file, or something else, is in the way."""
    for name, text in files.items():
        path = folder / name
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise LaunchError(f"{path}: is in the way, and not a plain file (give another folder: --to)")
        if path.exists() and not force:
            there = path.read_text(errors="replace")
            if there != text and edited(there):
                raise LaunchError(f"{path}: was edited since it was written (--force writes over it, --to elsewhere)")
    for name, text in files.items():
        with replacing(folder / name) as f:
            f.write(text.encode())
    return [folder / name for name in files]
