"""The whole pipeline against an exact curve: `distvae sweep tune_configs/linear_exact.yaml` lands on reverse
water-filling; and, without Ray, one of its trials.

The formula is written out here, from the eigenvalues and sigma of each row's own config_json, not taken from
distvae."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from driver import distvae

import distvae as api
from distvae.config import load
from distvae.plots import draw
from distvae.results import ledger

CONFIG = Path(__file__).parents[2] / "tune_configs" / "linear_exact.yaml"


def test_a_trial_lands_on_reverse_water_filling(tmp_path):
    """Trained in this process as shipped, committed and exported as a sweep does. That a sweep's rows are those of
    training here: test_sweep.py."""
    (trial,) = load(CONFIG, ["objective.beta=3.0"]).trials
    api.train(trial, tmp_path)
    on_the_exact_curve(ledger.export(tmp_path), [3.0])
    (picture,) = draw(tmp_path, ["rd"]).paths
    assert picture.stat().st_size > 10_000


@pytest.mark.sweep
@pytest.mark.slow
def test_the_pipeline_lands_on_reverse_water_filling(tmp_path):
    out = tmp_path / "out"
    done = distvae("sweep", CONFIG, "--out", out, timeout=400)
    assert done.returncode == 0, done.stderr
    on_the_exact_curve(out / "rd_curve.parquet", [0.6, 1.5, 3.0, 6.0, 11.0])
    assert (out / "plots" / "rd.png").stat().st_size > 10_000


def on_the_exact_curve(path, betas):
    rows = pq.read_table(path).to_pylist()
    for split in ("train", "valid", "test"):
        mine = [r for r in rows if r["split"] == split]
        assert sorted(r["beta"] for r in mine) == betas
        for row in mine:
            config = json.loads(row["config_json"])
            lam = np.array(config["data"]["eigenvalues"])
            var = config["vae"]["likelihood"]["sigma"] ** 2
            theta = row["beta"] * var
            sse, rate = np.minimum(lam, theta).sum(), (0.5 * np.log(lam / theta)).clip(0).sum()
            assert row["distortion_mse"] * len(lam) == pytest.approx(sse, rel=0.01), (split, row["beta"])
            assert row["rate_nats"] == pytest.approx(rate, rel=0.01), (split, row["beta"])
            normaliser = 0.5 * len(lam) * np.log(2 * np.pi * var)
            assert row["distortion_nats"] == pytest.approx(normaliser + row["distortion_mse"] * len(lam) / (2 * var))
            assert row["elbo_nats"] == pytest.approx(-row["rate_nats"] - row["distortion_nats"])
