"""A sweep long enough to be stopped, and what its OUT and its machines have of it."""

import json
import time
from contextlib import suppress

import psutil
import pyarrow.parquet as pq

from distvae.config import load

# Two groups at a time that take long enough to be stopped; steps are few, and every 750th epoch is evaluated
LONG = """
name: long
vae: {encoder: {type: mlp, hidden: [8]}, latent_dim: 2}
objective: {type: elbo, beta: {grid: [0.5, 1, 2, 4]}}
train: {epochs: 1500, batch_size: 1437}
evaluate: {every: 750, train_examples: 1}
resources: {fuse: off, checkpoint_s: 0.5}
engine: torch
"""


def saved(out) -> set[str]:
    return {p.parts[-3] for p in out.glob("checkpoints/*/*/state.json")}


def once(out, config) -> None:
    """Every planned trial has finished, in one attempt, and its rows are there once."""
    points = sorted(p.name for p in (out / "points").glob("[!.]*.parquet"))
    assert [p.split(".")[0] for p in points] == sorted(t.key for t in load(config).trials)
    rows = pq.read_table(
        out / "rd_curve.parquet", columns=["trial_key", "status", "attempt", "epoch", "split"]
    ).to_pylist()
    assert {r["status"] for r in rows} == {"finished"} and {r["attempt"] for r in rows} == {0}
    assert len({(r["trial_key"], r["epoch"], r["split"]) for r in rows}) == len(rows)


def nobody(machine, seconds=30, but=()) -> bool:
    """Soon nothing runs on it, but for processes of these names."""

    def left() -> bool:
        with suppress(psutil.Error):
            return any(p.name() not in but for p in machine.processes())
        return True

    deadline = time.monotonic() + seconds
    while left() and time.monotonic() < deadline:
        time.sleep(0.3)
    return not left()


def reached(out) -> int:
    """The least epoch of the checkpoints."""
    found = []
    for path in out.glob("checkpoints/*/*/state.json"):
        with suppress(OSError):  # replaced by a newer one
            found.append(json.loads(path.read_text())["epoch"])
    return min(found, default=0)


def starts(out, key) -> list[dict]:
    lines = (out / "logs" / f"{key}.jsonl").read_text().splitlines()
    return [e for e in map(json.loads, lines) if e["event"] == "start"]
