"""A trial resumed from its checkpoint gives, bit for bit, the rows of one that never stopped, whatever the step; damaged
checkpoints are set aside."""

import json
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from distvae.data import Digits
from distvae.nets import Mlp
from distvae.objectives import Elbo
from distvae.posteriors import Du
from distvae.priors import Binarized
from distvae.schedules import Cosine, Linear
from distvae.training.loop import Runner
from distvae.training.world import meet
from distvae.trial import Evaluate, Train, Trial
from distvae.vae import Model

TRIAL = Trial(
    vae=Model(encoder=Mlp(hidden=(16,)), latent_dim=3, posterior=Du(p_keep=0.7)), train=Train(epochs=4, batch_size=300)
)


def facts(rows):
    return [{k: v for k, v in r.items() if k != "wall_s"} for r in rows]


def stopped_after(epochs, folder, engine="torch"):
    runner = Runner(TRIAL, world=meet(0, 1), engine=engine, folder=folder)
    for _ in range(epochs):
        runner.train_epoch()
        runner.evaluate()
        if runner.status is None:
            runner.save()
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


@dataclass(frozen=True, kw_only=True)
class Bits(Digits):
    """Digits whose pixels are drawn at every step."""

    binarize: ClassVar = "dynamic"


EVENTFUL = Trial(  # 3 epochs of 5 steps, the last one uneven; every schedule moves in them
    data=Bits(),
    vae=Model(encoder=Mlp(hidden=(16,)), latent_dim=3, posterior=Du(p_keep=0.7), prior=Binarized(r=0.5)),
    objective=Elbo(beta=2.0, schedule=Linear(steps=9)),
    train=Train(epochs=3, batch_size=300, lr=3e-3, lr_schedule=Cosine(steps=12), clip_norm=20.0),
    evaluate=Evaluate(every=2, train_examples=300),
    seed=3,
)
# 2^20 overflows at once: the scale falls, and grows again within the run
SCALED = {"fp16": {"initial_scale_power": 20, "hysteresis": 1, "loss_scale_window": 3}}


def trained(trial, **how):
    runner = Runner(trial, world=meet(0, 1), **how)
    runner.advance()
    weights = {k: v.clone() for k, v in runner.vae.state_dict().items()}
    runner.close()
    return facts(runner.rows), weights


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("engine", ["torch", "deepspeed"])
def test_interrupted_at_every_step_is_uninterrupted(tmp_path, engine, dtype):
    """A process that dies after each optimizer step, once it has saved, and another that goes on."""
    trial = replace(EVENTFUL, train=replace(EVENTFUL.train, dtype=dtype))
    how = {"engine": engine, "deepspeed": SCALED}
    rows, weights = trained(trial, **how)
    assert [r["epoch"] for r in rows] == [2, 2, 2, 3, 3, 3]
    steps, status = [], None
    while status is None:
        runner = Runner(trial, world=meet(0, 1), folder=tmp_path, checkpoint_s=0, **how)
        steps.append((runner.epoch, runner.position))
        status = runner.advance(0).status
        runner.close()
    assert steps == [(e, s) for e in range(3) for s in range(5)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ep0000002-000000003", "ep0000002-000000004"]
    assert facts(runner.rows) == rows
    assert all(torch.equal(v, weights[k]) for k, v in runner.vae.state_dict().items())
    if dtype == "float16":
        assert 2.0 < runner.engine.scale.value < 2.0**20


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
