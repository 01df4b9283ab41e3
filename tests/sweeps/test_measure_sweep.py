"""Metrics at a sweep's end and by `distvae eval`, through Ray."""

import json

import pyarrow.parquet as pq
import pytest
from driver import distvae
from mlflow import MlflowClient

from distvae import api
from distvae.sweeps.plan import trial_from_json

pytestmark = [pytest.mark.sweep, pytest.mark.timeout(420)]

BASE = {"vae": {"latent_dim": {"grid": [2, 3]}}, "train": {"epochs": 1}, "evaluate": {"train_examples": 500}}


def write_config(folder, config):
    path = folder / "tiny.yaml"
    path.write_text(json.dumps({"name": "tiny", **config}))
    return path


def last_rows(out, split="test"):
    return [r for r in pq.read_table(out / "rd_curve.parquet").to_pylist() if r["split"] == split]


@pytest.mark.slow  # the quickstart of test_sweep.py measures one
def test_metrics_of_a_sweep_are_measured_once_and_its_weights_go(tmp_path):
    config = {**BASE, "metrics": ["clustering", "mig"], "resources": {"keep": "none"}}
    out = tmp_path / "out"
    done = distvae("sweep", write_config(tmp_path, config), "--out", out)
    assert done.returncode == 0, done.stderr
    assert "measuring clustering, mig of 2 trials" in done.stderr
    assert "not measured, 2 times: the data (digits) have no generating factors" in done.stderr
    rows = last_rows(out)
    assert len(rows) == 2 and all(0 < r["nmi"] < 1 and r["mig"] is None for r in rows)
    assert not list((out / "checkpoints").glob("*/*"))  # keep: none, once they were measured
    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()], "metrics.`test/nmi` > 0")
    assert {round(r.data.metrics["test/nmi"], 9) for r in runs} == {round(r["nmi"], 9) for r in rows}


@pytest.mark.slow
def test_eval_of_a_finished_sweep_and_a_sweep_with_one_more_metric(tmp_path):
    config, out = write_config(tmp_path, BASE), tmp_path / "out"
    assert distvae("sweep", config, "--out", out).returncode == 0
    done = distvae("eval", out, "--metrics", "clustering", "--json")
    assert done.returncode == 0, done.stderr
    view = json.loads(done.stdout)
    assert view["measured"] == 2 and not view["failed"]
    shown = [(v["label"], v["split"]) for v in view["values"]]  # each configuration, by split
    assert sorted(shown) == [(f"beta=1 d={d}", split) for d in (2, 3) for split in ("test", "valid")]
    first = {r["trial_key"]: r["nmi"] for r in last_rows(out)}
    assert all(v is not None for v in first.values())
    again = json.loads(distvae("eval", out, "--metrics", "clustering", "--json").stdout)
    assert again["measured"] == 0 and again["values"] == view["values"]  # nothing is measured twice
    forced = json.loads(distvae("eval", out, "--metrics", "clustering", "--again", "--json").stdout)
    assert forced["measured"] == 2 and forced["values"] == view["values"]  # and the same comes out
    more = write_config(tmp_path, {**BASE, "metrics": ["clustering", {"type": "linear_probe", "labels": [100]}]})
    done = distvae("sweep", more, "--out", out)
    assert done.returncode == 0 and "of 2 trials" in done.stderr, done.stderr
    rows = last_rows(out)
    assert {r["trial_key"]: r["nmi"] for r in rows} == first
    for row in rows:  # what a worker measured is what this process measures of the kept weights
        vae = api.kept_model(out, trial_from_json(row["config_json"]))
        here = api.measure(vae, "[{type: linear_probe, labels: [100]}]")["test"]["probe_accuracy_100"]
        assert row["probe_accuracy_100"] == pytest.approx(here, abs=1e-9) and here > 0.1
