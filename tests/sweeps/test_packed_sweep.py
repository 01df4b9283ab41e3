"""A sweep whose files are packed while it runs, killed in the middle, resumed, extended: as if each row lay by itself."""

import signal
import sys

import driver
import pytest
from driver import Sweep, distvae

from distvae.config import load
from distvae.operate import logs
from distvae.results import compaction, ledger, packs
from distvae.results.schema import METRICS

pytestmark = [pytest.mark.slow, pytest.mark.sweep, pytest.mark.timeout(600)]

CONFIG = """
name: packed
vae: {encoder: {type: mlp, hidden: [8]}, latent_dim: {grid: [1, 2]}, prior: {type: binarized, r: {grid: [0.0, 0.5]}}}
objective: {type: elbo, beta: {grid: [0.1, 1, 4]}}
train: {epochs: 40, batch_size: 512}
evaluate: {every: 20, train_examples: 1}
seeds: 4
resources: {fuse: 4, checkpoint_s: 0.5}
engine: torch
"""
SMALL = """
import sys
from distvae.results import ledger, packs
from distvae.store import folded
packs.SIZE = folded.SIZE = 4
ledger.MANY = 8
from distvae.cli import main
main()
"""


def measured(out):
    rows = [r for r in ledger.load(out).to_pylist() if r["n_examples"]]
    found = {(r["trial_key"], r["epoch"], r["split"]): {m: r[m] for m in METRICS} for r in rows}
    assert len(found) == len(rows), "a row is there twice"
    return found


def said(*words):
    done = distvae(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def same(one, other):
    assert one.keys() == other.keys()
    for place, values in one.items():
        for name, value in values.items():
            mine = other[place][name]
            assert mine is value if value is None else mine == pytest.approx(value, rel=1e-6, abs=1e-6), (place, name)


def test_packed_while_it_runs_killed_and_extended(tmp_path, monkeypatch):
    config, plain, out = tmp_path / "packed.yaml", tmp_path / "plain", tmp_path / "out"
    config.write_text(CONFIG)
    keys = {t.key for t in load(config).trials}
    assert distvae("sweep", config, "--out", plain).returncode == 0
    assert len(list((plain / "points").iterdir())) == len(keys) == 48
    monkeypatch.setattr(driver, "CLI", [sys.executable, "-c", SMALL])
    with Sweep(config, out) as sweep:
        sweep.wait_for(lambda: len(packs.found(out)) >= 2)
        sweep.end(signal.SIGKILL)
        assert sweep.all_gone(), sweep.survivors()
    ended, told = ledger.scan(out, mend=False)
    assert not told and 8 <= len(ended) < len(keys)
    done = distvae("sweep", config, "--out", out)
    assert done.returncode == 0, done.stderr
    assert len(packs.found(out)) == 12 and compaction.mend(out) == []
    same(measured(out), measured(plain))
    begun = {key: [e["event"] for e in logs.events(text)].count("begin") for key, text in logs.texts(out, keys).items()}
    assert {begun[key] for key in ended} == {1} and max(begun.values()) <= 2
    assert len(list((out / "logs").glob("*.jsonl"))) < 8
    assert said("status", out).count("48") >= 1
    assert "begin" in said("logs", out, next(iter(keys)))
    assert "48" in said("sweep", config, "--out", out) and len(packs.found(out)) == 12
    extended = distvae("extend", out, "--epochs", "60")
    assert extended.returncode == 0, extended.stderr
    for key, end in ledger.scan(out, mend=False)[0].items():
        assert (end.status, end.epoch, end.attempt) == ("finished", 60, 1), key
    assert len(packs.found(out)) == 24
    assert {place: v for place, v in measured(out).items() if place[1] <= 40}.keys() == measured(plain).keys()
    assert distvae("report", out).returncode == 0 and (out / "report.html").exists()
