"""A trial resumed from its checkpoint gives, bit for bit, the rows of one that never stopped; damaged checkpoints are
set aside."""

import json
from dataclasses import replace

import pytest
import torch

from distvae.nets import Mlp
from distvae.posteriors import Du
from distvae.training.loop import Runner
from distvae.training.world import meet
from distvae.trial import Train, Trial
from distvae.vae import Model

TRIAL = Trial(
    vae=Model(encoder=Mlp(hidden=(16,)), latent_dim=3, posterior=Du(p_keep=0.7)), train=Train(epochs=4, batch_size=300)
)


def facts(rows):
    return [{k: v for k, v in r.items() if k != "wall_s"} for r in rows]


def stopped_after(epochs, folder, engine="torch"):
    runner = Runner(TRIAL, world=meet(0, 1), engine=engine, folder=folder, checkpoint_s=0)
    for _ in range(epochs):
        runner.advance(0)
    runner.close()
    return runner


def resume(folder, engine="torch"):
    runner = Runner(TRIAL, world=meet(0, 1), engine=engine, folder=folder)
    started_at = runner.epoch
    runner.advance()
    runner.close()
    return started_at, runner


@pytest.mark.parametrize("engine", ["torch", "deepspeed"])
def test_resumed_is_uninterrupted(tmp_path, engine):
    whole = Runner(TRIAL, world=meet(0, 1), engine=engine)
    whole.advance()
    stopped_after(2, tmp_path, engine)
    at, runner = resume(tmp_path, engine)
    assert at == 2
    assert facts(runner.rows) == facts(whole.rows)
    for a, b in zip(runner.vae.parameters(), whole.vae.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("damage", ["truncate", "flip", "state", "missing"])
def test_a_damaged_checkpoint_is_set_aside_and_the_previous_one_used(tmp_path, damage):
    stopped_after(3, tmp_path)
    newest = tmp_path / "ep0000003"
    blob = newest / "rank0.safetensors"
    if damage == "truncate":
        blob.write_bytes(blob.read_bytes()[:-10])
    elif damage == "flip":
        data = bytearray(blob.read_bytes())
        data[-5] ^= 1
        blob.write_bytes(data)
    elif damage == "state":
        (newest / "state.json").write_text("{")
    else:
        blob.unlink()
    at, runner = resume(tmp_path)
    assert at == 2
    assert (tmp_path / "damaged-ep0000003").is_dir()
    assert len(runner.rows) == 12


def test_a_half_written_checkpoint_is_never_seen(tmp_path):
    stopped_after(2, tmp_path)
    (tmp_path / "ep0000002").rename(tmp_path / ".ep0000002.tmp")
    assert resume(tmp_path)[0] == 1


def test_a_pickle_planted_as_a_checkpoint_does_nothing(tmp_path):
    stopped_after(2, tmp_path)
    import hashlib
    import pickle

    canary = tmp_path / "canary"

    class Boom:
        def __reduce__(self):
            return (canary.touch, ())

    blob = pickle.dumps(Boom())
    (tmp_path / "ep0000002" / "rank0.safetensors").write_bytes(blob)
    state = json.loads((tmp_path / "ep0000002" / "state.json").read_text())
    state["files"]["rank0.safetensors"] = hashlib.sha256(blob).hexdigest()
    (tmp_path / "ep0000002" / "state.json").write_text(json.dumps(state))
    assert resume(tmp_path)[0] == 1
    assert not canary.exists()


def test_two_checkpoints_are_kept(tmp_path):
    stopped_after(3, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ep0000002", "ep0000003"]


def test_a_longer_run_extends_a_shorter_one(tmp_path):
    longer = replace(TRIAL, train=replace(TRIAL.train, epochs=6))
    assert longer.key == TRIAL.key
    whole = Runner(longer)
    whole.advance()
    stopped_after(4, tmp_path).save()  # resources.keep: all
    runner = Runner(longer, folder=tmp_path)
    assert runner.epoch == 4 and runner.status is None
    runner.advance()
    assert facts(runner.rows) == facts(whole.rows)


def test_a_diverged_trial_is_a_result():
    runner = Runner(replace(TRIAL, train=Train(epochs=5, batch_size=300, optimizer="sgd", lr=100.0)))
    report = runner.advance()
    assert report.status == "diverged"
    assert report.epoch < 5
    assert all(r["objective"] == r["objective"] for r in runner.rows)
