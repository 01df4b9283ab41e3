"""distvae from Python: train, load_curve, load_best."""

import pyarrow.parquet as pq
import pytest
import torch

import distvae
from distvae.config import ConfigError, loads
from distvae.data import load as load_data
from distvae.results.schema import SCHEMA

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


def test_training_again_is_a_new_attempt_with_the_same_rows(tmp_path):
    (trial, _) = loads(TEXT).trials
    first, again = distvae.train(trial, tmp_path), distvae.train(trial, tmp_path)
    names = sorted(p.name for p in (tmp_path / "points").iterdir())
    assert names == [f"{trial.key}.0.parquet", f"{trial.key}.1.parquet"]
    assert first.rows["elbo_nats"].equals(again.rows["elbo_nats"])
    assert pq.read_table(tmp_path / "points" / names[1])["attempt"].to_pylist() == [1] * 6


def test_a_yaml_of_one_trial_and_a_yaml_of_two(tmp_path):
    path = tmp_path / "one.yaml"
    path.write_text(TEXT.replace("{grid: [2, 3]}", "2"))
    assert distvae.train(path).rows.num_rows == 6
    path.write_text(TEXT)
    with pytest.raises(ConfigError, match="describes 2 trials, train\\(\\) takes one"):
        distvae.train(path)
