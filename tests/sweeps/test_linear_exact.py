"""The whole pipeline against an exact curve: `distvae sweep tune_configs/linear_exact.yaml` lands on reverse
water-filling.

The formula is written out here, from the eigenvalues and sigma of each row's own config_json, not taken from
distvae."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from driver import distvae

CONFIG = Path(__file__).parents[2] / "tune_configs" / "linear_exact.yaml"


ALL = [0.6, 1.5, 3.0, 6.0, 11.0]


@pytest.mark.sweep
@pytest.mark.parametrize("betas", [[1.5, 6.0], pytest.param(ALL, marks=pytest.mark.slow)], ids=["two", "all"])
def test_the_pipeline_lands_on_reverse_water_filling(tmp_path, betas):
    out = tmp_path / "out"
    some = () if betas == ALL else ("--set", f"objective.beta={{grid: {betas}}}")
    done = distvae("sweep", CONFIG, "--out", out, *some, timeout=400)
    assert done.returncode == 0, done.stderr
    rows = pq.read_table(out / "rd_curve.parquet").to_pylist()
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
    assert (out / "plots" / "rd.png").stat().st_size > 10_000
