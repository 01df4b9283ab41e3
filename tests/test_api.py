"""distvae from Python: train, load_curve, load_best."""

from dataclasses import replace

import pyarrow.parquet as pq
import pytest
import torch

import distvae
from distvae.config import ConfigError, loads
from distvae.data import load as load_data
from distvae.results.schema import SCHEMA
from distvae.sweeps.lock import OutLockedError, hold_out

TEXT = """\
vae:
  encoder: {type: mlp, hidden: [16]}
  latent_dim: {grid: [2, 3]}
  posterior: {type: du, gamma: 0.8, p_keep: 0.9}
train: {epochs: 2, batch_size: 256}
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """OUT and the two results of training into it."""
    out = tmp_path_factory.mktemp("api")
    return out, [distvae.train(t, out) for t in loads(TEXT).trials]


def test_train_returns_rows_and_a_model(swept):
    _, (result, _) = swept
    assert result.status == "finished" and result.rows.schema.equals(SCHEMA)
    assert [(r["epoch"], r["split"]) for r in result.rows.to_pylist()] == [
        (e, s) for e in (1, 2) for s in ("train", "valid", "test")
    ]
    assert not result.model.training


def test_the_curve_is_what_training_returned(swept):
    out, results = swept
    curve = distvae.load_curve(out)
    assert curve.num_rows == 12
    mine = [r for r in curve.to_pylist() if r["trial_key"] == results[0].trial.key]
    assert sorted(r["elbo_nats"] for r in mine) == sorted(results[0].rows["elbo_nats"].to_pylist())
    assert sorted(p.name for p in (out / "points").iterdir()) == sorted(f"{r.trial.key}.0.parquet" for r in results)


def test_the_best_model_comes_back_and_works(swept):
    out, results = swept

    def valid(result):
        return next(r["elbo_nats"] for r in reversed(result.rows.to_pylist()) if r["split"] == "valid")

    best = max(results, key=valid)
    vae = distvae.load_best(out)
    x = torch.from_numpy(load_data(best.trial.data).test.pixels(slice(0, 5)))
    q, expected = vae.encode(x), best.model.encode(x)
    assert q.mu.shape == (5, best.trial.vae.latent_dim)
    assert torch.equal(q.mu, expected.mu) and torch.equal(q.var, expected.var)
    assert torch.equal(vae.decode(q.mu), best.model.decode(q.mu))
    drawn = vae.sample(7)
    assert drawn.shape == (7, *vae.x_shape) and drawn.min() >= 0 and drawn.max() <= 1
    assert torch.equal(drawn, vae.sample(7)) and not torch.equal(drawn, vae.sample(7, seed=1))


def test_the_best_at_a_rate_that_none_has(swept):
    with pytest.raises(LookupError, match="no trial has a valid rate of at most"):
        distvae.load_best(swept[0], at_rate=1e-9)


def test_weights_that_were_not_kept(swept, tmp_path):
    out, _ = swept
    (tmp_path / "points").mkdir()
    for p in (out / "points").iterdir():
        (tmp_path / "points" / p.name).write_bytes(p.read_bytes())
    with pytest.raises(FileNotFoundError, match="were not kept"):
        distvae.load_best(tmp_path)


def test_a_trial_that_ended_there_is_not_trained_again(swept, monkeypatch):
    out, (first, _) = swept
    before = {p: p.read_bytes() for p in (out / "points").iterdir()}
    monkeypatch.setattr("distvae.api.Runner", None)
    again = distvae.train(first.trial, out)
    assert again.status == "finished" and again.rows.to_pylist() == first.rows.to_pylist()
    x = torch.from_numpy(load_data(first.trial.data).test.pixels(slice(0, 5)))
    assert torch.equal(again.model.encode(x).mu, first.model.encode(x).mu)
    assert {p: p.read_bytes() for p in (out / "points").iterdir()} == before


def test_more_epochs_commit_only_the_new_ones(tmp_path):
    (trial, _) = loads(TEXT).trials
    distvae.train(trial, tmp_path)
    longer = replace(trial, train=replace(trial.train, epochs=3))
    result = distvae.train(longer, tmp_path)
    added = pq.read_table(tmp_path / "points" / f"{trial.key}.1.parquet").to_pylist()
    assert {(r["epoch"], r["attempt"]) for r in added} == {(3, 1)}
    assert sorted({r["epoch"] for r in result.rows.to_pylist()}) == [1, 2, 3] and result.rows.num_rows == 9
    assert result.rows["elbo_nats"].to_pylist() == distvae.train(longer).rows["elbo_nats"].to_pylist()


def test_training_into_a_folder_that_a_sweep_owns(tmp_path):
    with hold_out(tmp_path), pytest.raises(OutLockedError, match="is being swept by process"):
        distvae.train(loads(TEXT).trials[0], tmp_path)


def test_a_yaml_of_one_trial_and_a_yaml_of_two(tmp_path):
    path = tmp_path / "one.yaml"
    path.write_text(TEXT.replace("{grid: [2, 3]}", "2"))
    assert distvae.train(path).rows.num_rows == 6
    path.write_text(TEXT)
    with pytest.raises(ConfigError, match="describes 2 trials, train\\(\\) takes one"):
        distvae.train(path)
