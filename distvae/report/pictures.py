"""The pictures of OUT/plots, inside the page."""

from __future__ import annotations

import base64
import contextlib
import re
from pathlib import Path
from typing import Any

from distvae.data import DataError
from distvae.plots import KINDS, PLOTS, NothingToPlotError, Options

SLOW = ("samples", "umap")  # they fit something: drawn by `distvae plot`
PNG = b"\x89PNG\r\n\x1a\n"
_OF_TRIAL = re.compile(r"(.+)_([0-9a-f]{16})")


def drawn(out: Path) -> None:
    """Draw the sweep's pictures anew, and those of its best trial that take seconds."""
    for name, kind in KINDS.items():
        if name not in SLOW:
            with contextlib.suppress(NothingToPlotError, DataError):
                kind.draw(out, out / PLOTS, Options())


def embedded(out: Path) -> list[dict[str, Any]]:
    """Every PNG of OUT/plots as {title, trial, uri}: those of the sweep first. `trial` is the key in `<kind>_<key>.png`,
    else null. Links are not followed out of OUT."""
    found = []
    for file in sorted((out / PLOTS).glob("*.png")):
        if file.is_symlink() or not (data := file.read_bytes()).startswith(PNG):
            continue
        match = _OF_TRIAL.fullmatch(file.stem)
        title, trial = match.groups() if match else (file.stem, None)
        uri = "data:image/png;base64," + base64.b64encode(data).decode()
        found.append({"title": title, "file": file.name, "trial": trial, "uri": uri})
    return sorted(found, key=lambda p: p["trial"] or "")
