"""OUT/again.json: trials that ended for good and are to be run again (`distvae retry`), with the attempt that no longer
counts. Once a later attempt has ended, the entry says nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from distvae.files import replacing

FILE = "again.json"


def read(out: Path) -> dict[str, int]:
    """Trial key -> the last attempt that does not count."""
    try:
        found = json.loads((out / FILE).read_bytes())
        return {str(key): int(attempt) for key, attempt in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def add(out: Path, attempts: Mapping[str, int]) -> None:
    """Mark these; whoever calls owns OUT."""
    if attempts:
        with replacing(out / FILE) as f:
            f.write(json.dumps(read(out) | dict(attempts), indent=1).encode())
