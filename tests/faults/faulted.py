"""A small sweep that faults are done to, and the invariant that must hold afterwards.

After the fault and the same command again: every planned trial has ended, exactly once, as it was to end; files committed
before are the same bytes; the rows are those of a sweep that nothing happened to; every trial that had saved went on from
its newest sound checkpoint, which was at most an interval old; no process is left."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest
from driver import Sweep, distvae

from distvae.config import load
from distvae.results import ledger
from distvae.results.schema import METRICS

CONFIG = """
name: faults
data: {type: digits}
vae: {encoder: {type: mlp, hidden: {grid: [[8], [16]]}}, latent_dim: 2}
objective: {type: elbo, beta: {grid: [0.5, 1.0]}}
train: {epochs: 3200, batch_size: 1437}
evaluate: {every: 1600, train_examples: 1}
resources: {checkpoint_s: 0.5, fuse: off}
engine: torch
"""
TRIALS = 4
INTERVAL_S = 0.5 + 1.5 + 0.5  # checkpoint_s, the report it waits for, the writing of it
SLACK_S = 2.0  # of a machine that does something else


def cannot(why: str) -> NoReturn:
    """A machine where a fault cannot be done: skip, but fail where CI=true, so that a green run has done them all."""
    pytest.fail(why) if os.environ.get("CI") == "true" else pytest.skip(why)


def config(folder: Path, text: str = CONFIG, *, tracking: str = "") -> Path:
    path = folder / "faults.yaml"
    path.write_text(text + (f"tracking: {{uri: {tracking!r}}}\n" if tracking else ""))
    return path


def contents(out: Path) -> dict[str, bytes]:
    """The committed files, by name."""
    return {p.name: p.read_bytes() for p in (out / "points").glob("[!.]*.parquet")}


def saved(out: Path) -> dict[str, tuple[tuple[int, int], float]]:
    """Trial key -> (epoch and position of its newest checkpoint, when it was written by this machine's clock)."""
    found = {}
    for path in sorted(out.glob("checkpoints/*/ep*/state.json")):
        try:
            state, at = json.loads(path.read_bytes()), path.stat().st_mtime
        except (OSError, ValueError):
            continue  # it went while we looked
        found[path.parts[-3]] = (state["epoch"], state.get("position", 0)), at
    return found


def events(out: Path, key: str, name: str) -> list[dict]:
    log = out / "logs" / f"{key}.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue  # half a line: its writer was killed
    return [e for e in found if e.get("event") == name]


def by_place(out: Path) -> dict[tuple, dict]:
    """The measured rows by (trial, epoch, split), without what differs from run to run."""
    rows = [r for r in ledger.load(out).to_pylist() if r["n_examples"]]
    found = {(r["trial_key"], r["epoch"], r["split"]): {m: r[m] for m in METRICS} for r in rows}
    assert len(found) == len(rows), "a row is there twice"
    return found


@dataclass
class Before:
    """What was there when the fault struck."""

    points: dict[str, bytes]
    saved: dict[str, tuple[tuple[int, int], float]]
    at: float = field(default_factory=time.time)


def before(out: Path) -> Before:
    return Before(contents(out), saved(out))


def same_command_again(path: Path, out: Path, code: int = 0, **how) -> str:
    """Run it to its end. Returns what it said."""
    done = distvae("sweep", path, "--out", out, **how)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr


def holds(
    path: Path,
    out: Path,
    then: Before,
    clean: dict[tuple, dict],
    *,
    lost: Iterable[str] = (),
) -> str:
    """The invariant. `lost`: keys whose newest checkpoint the fault has damaged. A trial that the fault spared, or that
    ended before it was stopped, is not taken up again. Returns a phrase for the table."""
    planned = {t.key for t in load(path).trials}
    ended, damaged = ledger.scan(out, mend=False)
    assert not damaged, damaged
    assert set(ended) == planned, planned ^ set(ended)
    assert {e.status for e in ended.values()} == {"finished"}, ended
    now = contents(out)
    good = [ledger.end(out, *_named(name)) for name in now]
    assert sorted(e.key for e in good if e and e.status == "finished") == sorted(planned), "not each trial exactly once"
    assert all(now.get(name) == blob for name, blob in then.points.items()), "a committed file has changed"
    found = by_place(out)
    assert found.keys() == clean.keys(), found.keys() ^ clean.keys()
    for place, values in clean.items():
        for name, value in values.items():
            mine = found[place][name]
            assert (mine is None) == (value is None), (place, name, mine, value)
            assert value is None or abs(mine - value) <= 1e-6 * max(1.0, abs(value)), (place, name, mine, value)
    went_on = 0
    for key, (position, written) in then.saved.items():
        if any(name.startswith(key) for name in then.points) or key in lost:
            continue
        begun = [e for e in events(out, key, "begin") if e["unix_s"] >= then.at - 0.001]
        if not begun and [e for e in events(out, key, "end") if e["unix_s"] >= then.at - 0.001]:
            continue
        assert begun, f"{key} had a checkpoint, did not end and was not taken up again"
        assert (begun[0]["epoch"], begun[0]["position"]) >= position, (key, begun[0], position)
        assert then.at - written <= INTERVAL_S + SLACK_S, f"{key}: its checkpoint was {then.at - written:.1f} s old"
        went_on += 1
    return f"{len(then.points)} of {len(planned)} had ended, {went_on} went on from a checkpoint"


def _named(name: str) -> tuple[str, int]:
    key, attempt, _ = name.split(".")
    return key, int(attempt)


def strike_after(sweep: Sweep, moment: float, took: float) -> bool:
    """Wait for the fraction `moment` of the time a clean sweep takes. False if it has ended before."""
    deadline = sweep.started + moment * took
    while time.monotonic() < deadline and sweep.process.poll() is None:
        sweep.look()
        time.sleep(0.02)
    sweep.look()
    return sweep.process.poll() is None


@dataclass(frozen=True)
class When:
    """A moment of a sweep's life: so far into one of its phases."""

    phase: str
    fraction: float

    def __str__(self) -> str:
        return f"{self.phase}, {self.fraction:.2f}"


BEGINS: dict[str, Callable[[Path], Any]] = {
    "starting": lambda out: True,
    "training": saved,  # the first checkpoint is there,
    "ending": lambda out: len(contents(out)) == TRIALS,  # the last trial's rows
}


def wait_for_phase(sweep: Sweep, out: Path, phase: str) -> bool:
    """False if the sweep ends before."""
    while not BEGINS[phase](out):
        if sweep.process.poll() is not None:
            return False
        sweep.look()
        time.sleep(0.02)
    return True


@contextmanager
def running(path: Path, out: Path, when: When, clean: Any, **how) -> Iterator[Sweep]:
    """A sweep at the moment. One that is over by then, for the machine was slow when the clean one ran, says how long the
    phase is, and another is begun."""
    for _ in range(3):
        with Sweep(path, out, **how) as sweep:
            assert wait_for_phase(sweep, out, when.phase), sweep.text()
            began = time.monotonic()
            while (left := began + when.fraction * clean.spans[when.phase] - time.monotonic()) > 0:
                if sweep.process.poll() is not None:
                    break
                sweep.look()
                time.sleep(min(left, 0.02))
            sweep.look()
            if sweep.process.poll() is None:
                yield sweep
                return
            clean.spans[when.phase] = time.monotonic() - began
        shutil.rmtree(out)
    cannot(f"over before {when}, time and again")
