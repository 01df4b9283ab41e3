"""The report: one HTML page of a sweep that needs nothing else, no network and no server.

    build(out)      what the page shows, as JSON-able data (`distvae report --json`)
    write(out, to)  the page, with the pictures inside

Everything in it is a view of the ledger; what was not measured is null and shown as nothing. Names and values come
from files that anyone may have written: they reach the page as data and are shown as text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from distvae.report import about, commands, frontier, history, page, pictures, trials
from distvae.results import ledger

FILE = "report.html"


def build(out: Path) -> dict[str, Any]:
    """What the page shows, without the pictures."""
    curve = ledger.load(out)
    planned = trials.plan(out)
    status = trials.statuses(curve, planned)
    trained = dict(zip(curve["trial_key"].to_pylist(), curve["config_json"].to_pylist(), strict=True))
    configs = {r["trial_key"]: json.loads(r["config_json"]) for r in planned}  # in the order people write them
    for key, text in trained.items():
        if configs.get(key) != (config := json.loads(text)):
            configs[key] = config
    columns, rows = trials.table(curve, configs, status)
    view = {"about": about.about(out, curve, status), "columns": columns, "trials": rows}
    return page.finite(view | frontier.frontier(curve) | history.history(curve) | commands.commands(out, configs))


def write(out: Path, to: Path | None = None) -> Path:
    """OUT/report.html or the file `to`, whole or not at all. The sweep's own pictures are drawn anew."""
    pictures.drawn(out)
    return page.write(build(out) | {"pictures": pictures.embedded(out)}, to or out / FILE)
