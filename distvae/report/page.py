"""The page: template, style, scripts and data in one file.

Its Content-Security-Policy names the hashes of the one style and the one script, so nothing else runs and nothing is
fetched, whatever the data hold. The data are JSON in an element that no browser executes, every `<`, `>` and `&` in
them escaped."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from distvae.files import replacing

SCRIPTS = ("dom.js", "filter.js", "plane.js", "table.js", "trial.js", "report.js")


def write(data: dict[str, Any], to: Path) -> Path:
    """`data` as a page in the file `to`, whole or not at all."""
    with replacing(to) as f:
        f.write(render(data).encode())
    return to


def render(data: dict[str, Any]) -> str:
    here = files("distvae.report")
    css = here.joinpath("report.css").read_text("utf-8")
    js = '"use strict";\n' + "".join(here.joinpath(name).read_text("utf-8") for name in SCRIPTS)
    policy = f"default-src 'none'; img-src data:; style-src {_hash(css)}; script-src {_hash(js)}; base-uri 'none'"
    parts = {"title": html.escape(data["about"]["name"]), "policy": policy, "css": css, "js": js, "data": escaped(data)}
    template = here.joinpath("template.html").read_text("utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda m: parts[m[1]], template)


def escaped(data: Any) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: what is not a number is null."""
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
