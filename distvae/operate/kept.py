"""What a trial that nobody trains has measured so far: the rows in its newest checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def rows(out: Path, key: str) -> list[dict[str, Any]]:
    """Of the newest sound checkpoint; none if there is none. A damaged one is set aside: whoever calls owns OUT."""
    from distvae.training import checkpoint
    from distvae.training.world import World

    found = checkpoint.read(out / "checkpoints" / key, World())
    return [] if found is None else found[0]["rows"]


def is_there(out: Path, key: str) -> bool:
    """Is there a checkpoint to go on from?"""
    folder = out / "checkpoints" / key
    return folder.is_dir() and any(path.name.startswith("ep") for path in folder.iterdir())


def peek(out: Path, key: str) -> list[dict[str, Any]]:
    """`rows` for somebody who does not own OUT: nothing is set aside, and a checkpoint that is being replaced has none."""
    folder = out / "checkpoints" / key
    names = (
        sorted((p.name for p in folder.iterdir() if p.name.startswith("ep")), reverse=True) if folder.is_dir() else []
    )
    for name in names:
        try:
            return json.loads((folder / name / "state.json").read_bytes())["rows"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return []
