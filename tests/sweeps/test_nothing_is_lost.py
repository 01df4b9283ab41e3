"""Real faults on real sweeps: Ctrl-C, kill -9 of the driver and of a worker, a second owner, NaN, an exception. The
invariant: after the fault and the same command again, every planned trial has ended exactly once, rows committed
before are identical, and no process is left."""

import json
import signal
import time

import pyarrow.parquet as pq
import pytest
from driver import Sweep, distvae, write_config

import distvae as api
from distvae.config import load
from distvae.results.schema import METRICS
from distvae.sweeps import cluster

pytestmark = [pytest.mark.sweep, pytest.mark.timeout(420)]


def contents(points):
    return {p.name: p.read_bytes() for p in points}


def ended(out):
    rows = pq.read_table(out / "rd_curve.parquet", columns=["trial_key", "status"]).to_pylist()
    return {(r["trial_key"], r["status"]) for r in rows}


def children_in_mlflow(out):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "tiny"]
    runs = client.search_runs([experiment.experiment_id])
    return [r.data.tags["distvae.trial_key"] for r in runs if "distvae.trial_key" in r.data.tags]


# Two groups, each of three configurations of which halving lets one go on: long enough to be killed between two
# checkpoints, and cheap: one step an epoch, every 200th evaluated.
LONG = """
name: tiny
vae: {encoder: {type: mlp, hidden: {grid: [[8], [16]]}}, latent_dim: 2}
objective: {type: elbo, beta: {grid: [0.1, 1, 4]}}
train: {epochs: 800, batch_size: 1437}
evaluate: {every: 200, train_examples: 1}
search: {scheduler: {type: halving, grace: 20}}
resources: {checkpoint_s: 0.3}
engine: torch
"""


def test_kill_9_of_the_driver_then_of_a_worker(tmp_path, monkeypatch):
    """The driver dies after the first commits; the same command goes on, loses a worker in the middle of a group, and
    ends well; once more, and there is nothing left to do. Halving stops whom it would have stopped."""
    config, out = tmp_path / "long.yaml", tmp_path / "out"
    config.write_text(LONG)
    with Sweep(config, out) as sweep:
        sweep.wait_for(lambda: sweep.points() and saved(out))
        sweep.end(signal.SIGKILL)
        before = contents(sweep.points())
        assert sweep.all_gone(), sweep.survivors()
    assert 1 <= len(before) < 6
    old = taken_up(out)
    with Sweep(config, out) as again:
        again.wait_for(lambda: taken_up(out) > old)  # a trial is in the middle: half of it takes seconds
        victim = next(p for p in again.family if p.is_running() and "Rank" in " ".join(p.cmdline()))
        victim.kill()
        assert again.end(timeout=240) == 0, again.text()
        assert again.all_gone(), again.survivors()
    assert "2 finished, 4 stopped" in again.text()
    after = contents((out / "points").glob("*.parquet"))
    assert len(after) == 6 and all(after[name] == blob for name, blob in before.items())
    halved_by_the_rule(config, out)
    keys = children_in_mlflow(out)
    assert len(keys) == len(set(keys)) == 6
    monkeypatch.setattr(cluster, "connect", None)  # nothing is left: no Ray, no training
    assert api.sweep(config, out).exit_code == 0
    assert contents((out / "points").glob("*.parquet")) == after


def halved_by_the_rule(config, out):
    """In each group the best of three at epoch 20, by its own committed rows, went on, with the rows of a trial that
    trained by itself; the others stopped there and kept theirs."""
    rows = pq.read_table(out / "rd_curve.parquet").to_pylist()
    assert len(rows) == len({(r["trial_key"], r["epoch"], r["split"]) for r in rows})
    groups = {}
    for trial in load(config).trials:
        groups.setdefault(trial.vae.encoder, {})[trial.key] = trial
    for trials in groups.values():
        mine = [r for r in rows if r["trial_key"] in trials]
        at_20 = {r["trial_key"]: r["elbo_nats"] for r in mine if (r["epoch"], r["split"]) == (20, "valid")}
        best = max(at_20, key=at_20.__getitem__)
        epochs = {key: sorted({r["epoch"] for r in mine if r["trial_key"] == key}) for key in trials}
        assert epochs == {key: [20, 60, 180, 200, 400, 540, 600, 800] if key == best else [20] for key in trials}
        status = {(r["trial_key"], r["status"]) for r in mine}
        assert status == {(key, "finished" if key == best else "stopped") for key in trials}
        found = {(r["epoch"], r["split"]): r for r in mine if r["trial_key"] == best}
        alone = api.train(trials[best]).rows.to_pylist()
        assert len(alone) == 3 * 4
        for row in alone:  # to rounding: a stack of three measures one example by another product than a trial alone
            values = {k: row[k] and pytest.approx(row[k], rel=1e-6, abs=1e-9) for k in METRICS}
            assert {k: found[row["epoch"], row["split"]][k] for k in METRICS} == values


def taken_up(out):
    """How often a trial has begun or gone on, by the logs."""
    return sum(path.read_text().count('"event": "begin"') for path in out.glob("logs/*.jsonl"))


def saved(out):
    """The checkpoints there are, of trials that have not ended."""
    return set(out.glob("checkpoints/*/ep*/state.json"))


MIXED = """
name: tiny
data: {type: digits}
vae: {encoder: {type: mlp, hidden: [16]}, latent_dim: {grid: [2, 3]}}
train: {epochs: 4000, batch_size: 256, optimizer: sgd, lr: {grid: [100.0, 1.0e-3]}}
resources: {fuse: off}
"""


@pytest.mark.slow  # below Ray: test_reaper.py, test_rank.py
def test_ctrl_c_saves_what_runs_nan_is_a_result_and_a_trial_that_raises_is_a_failure(tmp_path):
    """Two trials diverge (lr = 100), two are stopped by Ctrl-C and go on later, one of them only to raise at its end,
    each time it is tried. Meanwhile a second sweep is refused."""
    config, out = tmp_path / "mixed.yaml", tmp_path / "out"
    config.write_text(MIXED)
    long = [t.key for t in load(config).trials if t.train.lr == 1e-3]
    with Sweep(config, out) as sweep:
        sweep.wait_for(lambda: " 2 running · 2 diverged" in sweep.text())
        refused = distvae("sweep", config, "--out", out)
        assert refused.returncode == 5
        assert "is being swept by process" in refused.stderr and "Traceback" not in refused.stderr
        assert sweep.end(signal.SIGINT) == 130, sweep.text()
        assert sweep.all_gone(), sweep.survivors()
    before = contents((out / "points").glob("*.parquet"))
    assert {name[:16] for name in before} == {t.key for t in load(config).trials} - set(long)
    epochs = {p.parts[-3]: json.loads(p.read_text())["epoch"] for p in sorted(saved(out))}
    assert set(epochs) == set(long) and min(epochs.values()) > 1
    # The same command goes on from there: with fewer epochs planned than are saved, each trial has only to be committed.
    poisoned, few = long[0], f"train.epochs={min(epochs.values())}"
    blocked = out / "checkpoints" / poisoned / "model.safetensors"
    blocked.mkdir()  # a directory where weights are to be written: an OSError, whoever runs the tests
    again = distvae("sweep", config, "--out", out, "--set", few)
    assert again.returncode == 3, again.stderr
    status = dict(ended(out))
    assert sorted(status.values()) == ["diverged", "diverged", "failed", "finished"], again.stderr
    assert status[poisoned] == "failed"
    text = again.stderr
    assert f"logs/{poisoned}.jsonl" in text and "is tried again" in text and "failed twice" in text
    assert "Traceback" not in text  # it is in the log
    events = [json.loads(line) for line in (out / "logs" / f"{poisoned}.jsonl").read_text().splitlines()]
    assert [e["event"] for e in events].count("error") == 2  # once, and retried once
    assert "IsADirectoryError" in next(e["traceback"] for e in events if e["event"] == "error")
    rows = pq.read_table(out / "rd_curve.parquet", columns=["trial_key", "epoch", "split"]).to_pylist()
    assert len(rows) == len({tuple(r.values()) for r in rows})
    assert len([r for r in rows if r["trial_key"] == long[1]]) >= 3 * min(epochs.values())
    # The failed one, and it alone, is run again, and now nothing is in its way.
    assert json.loads(distvae("plan", config, "--out", out, "--set", few, "--json", "--no-probe").stdout)["left"] == 1
    blocked.rmdir()
    half = contents((out / "points").glob("*.parquet"))
    assert half.items() >= before.items()
    trial = next(t for t in load(config, [few]).trials if t.key == poisoned)
    assert api.train(trial, out).status == "finished"
    after = contents((out / "points").glob("*.parquet"))
    assert set(after) - set(half) == {f"{poisoned}.1.parquet"} and after.items() >= half.items()


@pytest.mark.slow  # below Ray: test_reaper.py
def test_two_ctrl_c_stop_hard(tmp_path):
    config, out = write_config(tmp_path, epochs=100_000, seeds=1), tmp_path / "out"
    with Sweep(config, out) as sweep:
        sweep.wait_for(lambda: " 2 running" in sweep.text())
        started = time.monotonic()
        sweep.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert sweep.end(signal.SIGINT, timeout=20) == 130
        assert time.monotonic() - started < 15
        assert sweep.all_gone(), sweep.survivors()
