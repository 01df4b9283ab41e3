"""Sweeps through Ray, end to end: the quickstart, two workers, a machine without DeepSpeed and MLflow, an edited config."""

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from driver import Background, distvae, write_config
from mlflow import MlflowClient

import distvae as api
from distvae.results.tracking import sync

pytestmark = [pytest.mark.sweep, pytest.mark.timeout(420)]
CONFIGS = Path(__file__).parents[2] / "tune_configs"
METRICS = ("rate_nats", "distortion_nats", "distortion_mse", "elbo_nats", "objective")


def quickstart(tmp_path, *args):
    out = tmp_path / "quickstart"
    done = distvae("sweep", CONFIGS / "quickstart.yaml", "--out", out, *args, timeout=400)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return out, done.stderr


def test_the_quickstart_from_yaml_to_picture(tmp_path):
    """With one epoch instead of all of them, two betas of three, and a metric; everything else as shipped."""
    sets = ("train.epochs=1", "objective.beta={grid: [0.25, 4.0]}", "metrics=[clustering]")
    out, said = quickstart(tmp_path, *(word for s in sets for word in ("--set", s)))
    table = pq.read_table(out / "rd_curve.parquet")
    planned = pq.read_table(out / "plan.parquet")["trial_key"].to_pylist()
    assert set(table["trial_key"].to_pylist()) == set(planned) and len(planned) >= 48
    assert table.schema.metadata[b"distvae.schema_version"] == b"1" and set(table["status"].to_pylist()) == {"finished"}
    rows = [r for r in table.to_pylist() if r["split"] == "test"]
    for axis in ("r", "beta", "gamma", "p_keep", "latent_dim"):
        assert len({r[axis] for r in rows}) >= 2, axis
    assert all(r["elbo_nats"] == pytest.approx(-r["rate_nats"] - r["distortion_nats"]) for r in rows)
    assert all(0 < r["nmi"] < 1 for r in rows) and f"measuring clustering of {len(planned)} trials" in said
    assert all(r["git_sha"] and r["device"] == "cpu" and r["rate_se"] > 0 for r in rows)
    for picture in ("rd.png", "heat.png", "parallel.png"):
        assert (out / "plots" / picture).stat().st_size > 20_000
        assert len(list((out / "mlartifacts").glob(f"*/artifacts/plots/{picture}"))) == 1
    # What a person reads: plain lines while it runs, then the frontier, the best, where everything lies.
    assert re.search(rf"\d+/{len(planned)} done · \d+ running · .*0 failed · .* ETA ", said)
    title = r"frontier( \(\d+ of its \d+ configurations: the lower hull\))?: digits \(binary\), test split, nats per example"
    assert re.search(title, said)
    for part in ("95% CI over 3 seeds", "best by valid bound", "valid ELBO"):
        assert part in said, part
    assert f"distvae ui {out}" in said and f"{out}/rd_curve.parquet" in said
    assert {p.name for p in out.iterdir()} >= {
        "plan.parquet",
        "sweep.yaml",
        "points",
        "logs",
        "checkpoints",
        "mlflow.db",
    }
    mlflow_has_each_trial_once(out, planned)
    ui_serves_it(out)


def mlflow_has_each_trial_once(out, planned):
    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("quickstart")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    children = [r for r in runs if "mlflow.parentRunId" in r.data.tags]
    (parent,) = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    assert sorted(r.data.tags["distvae.trial_key"] for r in children) == sorted(planned)
    assert {r.data.tags["mlflow.parentRunId"] for r in children} == {parent.info.run_id}
    assert {r.info.status for r in runs} == {"FINISHED"} and parent.data.tags["distvae.git_sha"]
    one = children[0]
    assert one.data.params["vae.posterior.type"] == "du" and "objective.beta" in one.data.params
    assert {"test/rate_nats", "valid/elbo_nats", "train/objective", "test/nmi"} <= set(one.data.metrics)


def ui_serves_it(out):
    """`distvae ui` prints a loopback URL that answers, and leaves nothing behind on Ctrl-C."""
    with Background("ui", out, "--port", "0", log=out.parent / "ui.log") as ui:
        ui.wait_for(lambda: "http://127.0.0.1:" in ui.text())
        url = re.search(r"http://127\.0\.0\.1:\d+", ui.text())
        assert url is not None
        with urllib.request.urlopen(url[0], timeout=20) as page:
            assert b"MLflow" in page.read()
        ui.wait_for(lambda: "Ctrl-C stops it" in ui.text())
        assert re.search(
            r"the frontier compared: http://127\.0\.0\.1:\d+/#/compare-runs\?runs=%5B%22[0-9a-f]{32}", ui.text()
        )
        assert ui.end(signal.SIGINT) == 0, ui.text()
        assert ui.all_gone(), ui.survivors()


@pytest.mark.slow
def test_the_quickstart_as_shipped(tmp_path):
    out, _ = quickstart(tmp_path)
    best = json.loads(distvae("status", out, "--json").stdout)["best"]
    assert best[0]["elbo_nats"]["mean"] > -27.0  # an untrained model is near -44, a good one at -25


def same_rows(curve, trial):
    """A sweep's rows of `trial` against those of plain torch in this process, fp32."""
    expected = api.train(trial).rows.to_pylist()
    found = [r for r in curve.to_pylist() if r["trial_key"] == trial.key]
    at = {(r["epoch"], r["split"]): r for r in found}
    assert len(at) == len(found) == len(expected) == 9
    for e in expected:
        for m in METRICS:
            x, y = e[m], at[e["epoch"], e["split"]][m]
            assert abs(x - y) <= 1e-4 * max(1.0, abs(x)), (e["epoch"], e["split"], m, x, y)


DU = """
name: pair
data: {type: digits}
vae:
  encoder: {type: mlp, hidden: [32]}
  latent_dim: 5
  posterior: {type: du, gamma: 0.7, p_keep: 0.8}
  prior: {type: binarized, r: 0.5}
train: {epochs: 3, batch_size: 100}
"""


@pytest.mark.slow  # below Ray: test_workers.py
def test_two_workers_give_the_curve_of_one(tmp_path):
    """DU-VAE: batch statistics span the workers; 1437 examples in batches of 100 leave 37, unevenly split."""
    from distvae.config import load

    config, out = tmp_path / "pair.yaml", tmp_path / "out"
    config.write_text(DU + "resources: {workers: 2}\n")
    done = distvae("sweep", config, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "torch" not in done.stderr  # DeepSpeed it was
    (trial,) = load(config).trials
    same_rows(api.load_curve(out), trial)


@pytest.mark.slow  # the engines' rows: test_workers.py; a tracker that is away: test_tracking.py
def test_without_deepspeed_and_without_mlflow_the_rows_are_the_same(tmp_path, monkeypatch):
    from distvae.config import load

    broken = tmp_path / "path" / "deepspeed"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('no wheel for this machine')\n")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{s.getsockname()[1]}"
    config, out = tmp_path / "single.yaml", tmp_path / "out"
    config.write_text(DU + f"tracking: {{uri: '{dead}'}}\n")
    monkeypatch.setenv("PYTHONPATH", str(broken.parent), prepend=":")
    done = distvae("sweep", config, "--out", out)
    assert done.returncode == 0, done.stderr
    line = "DeepSpeed cannot be imported (no wheel for this machine): trained by engine: torch"
    assert line in done.stderr
    assert "MLflow does not answer" in done.stderr and f"distvae sync {out}" in done.stderr
    (trial,) = load(config).trials
    same_rows(api.load_curve(out), trial)
    assert sync(out, f"sqlite:///{tmp_path / 'later.db'}")["trials"] == 1


TWICE = """
import sys
from pathlib import Path

import distvae

config, out, *sets = sys.argv[1:]
assert distvae.sweep(config, out).exit_code == 0
before = {p: p.read_bytes() for p in Path(out, "points").glob("*.parquet")}
assert len(before) == 2
assert distvae.sweep(config, out, sets=sets).exit_code == 0
assert all(p.read_bytes() == blob for p, blob in before.items())
"""


@pytest.mark.slow
def test_an_edited_config_trains_only_what_is_new(tmp_path):
    """From Python, one sweep after the other in one process."""
    config, out = write_config(tmp_path, epochs=2, seeds=1), tmp_path / "out"
    grown = ["train.epochs=3", "vae.prior.r={grid: [0.5, 1.0]}"]
    done = subprocess.run(
        [sys.executable, "-c", TWICE, config, out, *grown], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    rows = [r for r in api.load_curve(out).to_pylist() if r["split"] == "test"]
    epochs = {}
    for r in rows:
        epochs.setdefault(r["r"], []).append((r["epoch"], r["attempt"]))
    # r = 0 left the plan and keeps its rows; r = 0.5 gained an epoch, under a new attempt; r = 1 is new
    assert epochs == {0.0: [(1, 0), (2, 0)], 0.5: [(1, 0), (2, 0), (3, 1)], 1.0: [(1, 0), (2, 0), (3, 0)]}
