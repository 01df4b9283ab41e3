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


# Long enough to be killed between two checkpoints, and cheap: one step an epoch, every third evaluated.
LONG = """
name: tiny
vae: {encoder: {type: mlp, hidden: [16]}, latent_dim: 2}
train: {epochs: 300, batch_size: 1437}
evaluate: {every: 3}
seeds: 4
resources: {checkpoint_s: 0.3}
"""


def test_kill_9_of_the_driver_then_of_a_worker(tmp_path, monkeypatch):
    """The driver dies after the first commits; the same command goes on, loses a worker in the middle of a trial, and
    ends well; once more, and there is nothing left to do."""
    config, out = tmp_path / "long.yaml", tmp_path / "out"
    config.write_text(LONG)
    with Sweep(config, out) as sweep:
        sweep.wait_for(lambda: sweep.points() and saved(out))
        sweep.end(signal.SIGKILL)
        before = contents(sweep.points())
        assert sweep.all_gone(), sweep.survivors()
    assert 1 <= len(before) < 4
    old = saved(out)
    with Sweep(config, out) as again:
        again.wait_for(lambda: saved(out) - old)  # a trial of this run has saved, and not yet ended
        victim = next(p for p in again.family if p.is_running() and "Rank" in " ".join(p.cmdline()))
        victim.kill()
        assert again.end(timeout=240) == 0, again.text()
        assert again.all_gone(), again.survivors()
    after = contents((out / "points").glob("*.parquet"))
    assert len(after) == 4
    assert all(after[name] == blob for name, blob in before.items())
    assert sorted(s for _, s in ended(out)) == ["finished"] * 4
    rows = pq.read_table(out / "rd_curve.parquet", columns=["trial_key", "epoch", "split"]).to_pylist()
    assert len(rows) == len({tuple(r.values()) for r in rows}) == 4 * 3 * 100
    keys = children_in_mlflow(out)
    assert len(keys) == len(set(keys)) == 4
    monkeypatch.setattr(cluster, "connect", None)  # nothing is left: no Ray, no training
    assert api.sweep(config, out).exit_code == 0
    assert contents((out / "points").glob("*.parquet")) == after


def saved(out):
    """The checkpoints there are, of trials that have not ended."""
    return set(out.glob("checkpoints/*/ep*/state.json"))


def test_ctrl_c_saves_what_runs_and_a_second_sweep_is_refused_meanwhile(tmp_path):
    config, out = write_config(tmp_path, epochs=4000, seeds=1), tmp_path / "out"
    with Sweep(config, out) as sweep:
        sweep.wait_for(lambda: sweep.text().count("running") and " 2 running" in sweep.text())
        refused = distvae("sweep", config, "--out", out)
        assert refused.returncode == 5
        assert "is being swept by process" in refused.stderr and "Traceback" not in refused.stderr
        time.sleep(3)
        assert sweep.end(signal.SIGINT) == 130, sweep.text()
        assert sweep.all_gone(), sweep.survivors()
    saved = sorted(out.glob("checkpoints/*/ep*/state.json"))
    epochs = {json.loads(p.read_text())["epoch"] for p in saved}
    assert len({p.parent.parent for p in saved}) == 2 and min(epochs) > 1
    # The same command goes on from there: with fewer epochs planned than are saved, each trial has only to be committed.
    again = distvae("sweep", config, "--out", out, "--set", f"train.epochs={min(epochs)}")
    assert again.returncode == 0, again.stderr
    rows = pq.read_table(out / "rd_curve.parquet", columns=["trial_key", "epoch", "split"]).to_pylist()
    assert len(rows) == len({tuple(r.values()) for r in rows}) >= 2 * 3 * min(epochs)


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


def test_nan_is_a_result_and_a_trial_that_raises_is_a_failure(tmp_path):
    """lr = 100 with sgd diverges; a canary file makes one trial raise, each time it is tried."""
    config = tmp_path / "mixed.yaml"
    config.write_text(
        "data: {type: digits}\n"
        "vae: {encoder: {type: mlp, hidden: [16]}, latent_dim: {grid: [2, 3]}}\n"
        "train: {epochs: 40, batch_size: 256, optimizer: sgd, lr: {grid: [1.0e-3, 100.0]}}\n"
    )
    out = tmp_path / "out"
    poisoned = poison(config, out)
    with Sweep(config, out) as sweep:
        sweep.wait_for(lambda: " 2 running" in sweep.text() or sweep.points())
        assert sweep.end(timeout=240) == 3, sweep.text()
        assert sweep.all_gone()
    status = dict(ended(out))
    assert sorted(status.values()) == ["diverged", "diverged", "failed", "finished"], sweep.text()
    assert status[poisoned] == "failed"
    text = sweep.text()
    assert f"logs/{poisoned}.jsonl" in text and "is tried again" in text and "failed twice" in text
    assert "Traceback" not in text  # it is in the log
    events = [json.loads(line) for line in (out / "logs" / f"{poisoned}.jsonl").read_text().splitlines()]
    assert [e["event"] for e in events].count("error") == 2  # once, and retried once
    assert "IsADirectoryError" in next(e["traceback"] for e in events if e["event"] == "error")
    # The failed one, and it alone, is run again, and now nothing is in its way.
    (out / "checkpoints" / poisoned / "model.safetensors").rmdir()
    before = contents((out / "points").glob("*.parquet"))
    again = distvae("sweep", config, "--out", out)
    assert again.returncode == 0, again.stderr
    after = contents((out / "points").glob("*.parquet"))
    assert set(after) - set(before) == {f"{poisoned}.1.parquet"}
    assert all(after[name] == blob for name, blob in before.items())
    assert dict(ended(out))[poisoned] == "finished"


def poison(config, out):
    """A directory where a trial's weights are to be written: an OSError at its end, whoever runs the tests."""
    from distvae.config import load

    trial = next(t for t in load(config).trials if t.train.lr == 1e-3)
    (out / "checkpoints" / trial.key / "model.safetensors").mkdir(parents=True)
    return trial.key
