"""What early stopping buys: seconds until a sweep has the frontier of the full grid, for ASHA, median stopping,
HyperBand and our own halving against training every trial to its last epoch.

The measure is the area (hypervolume) that a sweep's points dominate in the rate-distortion plane, test split, up to a
corner that all ways share: the largest rate and distortion of the full grid's points. A point counts from the moment
its trial's rows are committed: `finished` counts trials trained to the last epoch, as the curve's frontier does;
`any` those that were stopped too, at the epoch they had reached. Reached is 99% of the full grid's final area, on
`finished`. Seconds depend on what else the machine does (its load is noted beside them), so the same is given in epochs:
all epochs of the trials that had ended by then. All ways run the same trials and seeds, alternately, in one call;
start-up is not counted (the first commit minus the first trial's own training time is the beginning).

ASHA and its kin rank by the bound, so where beta spreads trials along the frontier they stop its ends: the losing rows
are as interesting as the winning ones."""

from __future__ import annotations

import itertools
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from distvae.metrics.curve_difference import hypervolume

Points = list[tuple[float, float, float]]  # (seconds or epochs, rate, distortion)
REACHED = 0.99
EPOCHS = 27
SPACE = """
name: early-stopping
data: {type: digits}
vae:
  encoder: {type: mlp, hidden: [64]}
  latent_dim: 8
  prior: {type: binarized, r: {grid: [0.0, 0.5]}}
objective: {type: elbo, beta: {grid: [0.25, 0.5, 1.0, 2.0, 4.0]}}
train: {epochs: %d, batch_size: 128, lr: {grid: [0.0001, 0.0005, 0.002, 0.008]}}
resources: {fuse: off}
engine: torch
search: %s
"""
WAYS = {
    "grid": "{}",
    "asha": "{scheduler: {type: asha, grace: GRACE, eta: 3}}",
    "median": "{scheduler: {type: median, grace: GRACE}}",
    "hyperband": "{scheduler: {type: hyperband, eta: 3}}",
    "halving": "{scheduler: {type: halving, grace: GRACE, eta: 3}}",
}


def search(way: str, grace: int) -> str:
    return WAYS[way].replace("GRACE", str(grace))


def once(way: str, out: Path, epochs: int, grace: int) -> dict[str, Any]:
    """One sweep: its points, when they came, and what it trained."""
    from distvae.config import loads
    from distvae.results import ledger
    from distvae.sweeps.run import sweep

    study = loads(SPACE % (epochs, search(way, grace)))
    started = time.monotonic()
    outcome = sweep(study, out, display=False)
    total = time.monotonic() - started
    table = ledger.load(out)
    commits = {p.name.partition(".")[0]: p.stat().st_mtime for p in (out / "points").glob("[!.]*.parquet")}
    last = {r["trial_key"]: r for r in table.to_pylist() if r["split"] == "test"}  # rows are in order of epochs
    began = min(commits[key] - row["wall_s"] for key, row in last.items())
    rows = sorted(({**row, "s": commits[key] - began} for key, row in last.items()), key=lambda r: r["s"])
    trained = list(itertools.accumulate(r["epoch"] for r in rows))
    return {
        "statuses": {s: outcome.count(s) for s in sorted(set(outcome.status.values()))},
        "epochs": sum(r["epoch"] for r in rows),
        "whole_s": total,
        "training_s": max(r["s"] for r in rows),
        "finished": [(r["s"], r["rate_nats"], r["distortion_nats"]) for r in rows if r["status"] == "finished"],
        "any": [(r["s"], r["rate_nats"], r["distortion_nats"]) for r in rows],
        "by_epoch": [
            (n, r["rate_nats"], r["distortion_nats"])
            for n, r in zip(trained, rows, strict=True)
            if r["status"] == "finished"
        ],
    }


def area(points: Points, corner: tuple[float, float]) -> float:
    return hypervolume([p[1:] for p in points], corner)


def reached(points: Points, corner: tuple[float, float], least: float) -> float | None:
    """Seconds (or epochs) until the points that have come dominate `least`; None: never."""
    found: list[tuple[float, float]] = []
    for s, rate, distortion in sorted(points):
        found.append((rate, distortion))
        if hypervolume(found, corner) >= least:
            return s
    return None


def _median(values: Sequence[float | None]) -> float | None:
    """Of an odd or even number; None where a run never got there."""
    if any(v is None for v in values):
        return None
    ordered = sorted(v for v in values if v is not None)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def run(
    repeats: int = 2,
    epochs: int = EPOCHS,
    grace: int = 3,
    ways: Sequence[str] = tuple(WAYS),
    say: Callable[[str], None] = print,
    **_: Any,
) -> dict[str, Any]:
    """Every way `repeats` times, forwards then backwards; JSON-able."""
    import ray
    import torch

    from distvae import __version__
    from distvae.results.provenance import git_sha
    from distvae.sweeps.cluster import cores

    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    loads = [round(os.getloadavg()[0], 1)]  # before, and after every sweep: what else the machine did
    with tempfile.TemporaryDirectory() as temp:
        for i in range(repeats):
            for way in ways if i % 2 == 0 else reversed(ways):
                found = once(way, Path(temp) / f"{way}{i}", epochs, grace)
                runs[way].append(found)
                loads.append(round(os.getloadavg()[0], 1))
                say(f"{way}: {found['training_s']:.1f} s, {found['epochs']} epochs, {found['statuses']}")
    grid = [p for r in runs["grid"] for p in r["finished"]]
    corner = max(p[1] for p in grid), max(p[2] for p in grid)
    whole = area(runs["grid"][0]["finished"], corner)
    results = {}
    for way, found in runs.items():
        results[way] = {
            "statuses": found[0]["statuses"],
            "epochs": [r["epochs"] for r in found],
            "training_s": [r["training_s"] for r in found],
            "whole_s": [r["whole_s"] for r in found],
            "share_of_area_finished": [area(r["finished"], corner) / whole for r in found],
            "share_of_area_any": [area(r["any"], corner) / whole for r in found],
            "reached_s": [reached(r["finished"], corner, REACHED * whole) for r in found],
            "reached_epochs": [reached(r["by_epoch"], corner, REACHED * whole) for r in found],
            "reached_any_s": [reached(r["any"], corner, REACHED * whole) for r in found],
        }
    base = _median(results["grid"]["reached_s"])
    for r in results.values():
        mine = _median(r["reached_s"])
        r["speedup_to_reach"] = base / mine if base and mine else None
    return {
        "trials": sum(results["grid"]["statuses"].values()),
        "epochs_each": epochs,
        "repeats": repeats,
        "corner_rate_nats": corner[0],
        "corner_distortion_nats": corner[1],
        "ways": {way: {**r, "search": search(way, grace)} for way, r in results.items()},
        "what": f"seconds until the points dominate {REACHED:.0%} of the full grid's area; null: never",
        "space": SPACE % (epochs, "..."),
        "load_average": loads,
        "device": f"{platform.machine()}, {cores()} cores",
        "versions": {"distvae": __version__, "torch": torch.__version__, "ray": ray.__version__},
        "git_sha": git_sha(),
    }


if __name__ == "__main__":
    print(json.dumps(run(), indent=1))
