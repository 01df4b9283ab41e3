"""Stacked trials against the same trials alone: bit for bit where the shapes are the same, whatever the slot and the
number of neighbours; what happens to one happens to no other."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from distvae.config import loads
from distvae.likelihoods import Gaussian
from distvae.training.fused import Fused
from distvae.training.group import Lockstep, Serial, Setting, open_group
from distvae.training.halving import Halving
from distvae.training.loop import Runner
from distvae.trial import Evaluate

YAML = """
data: {type: digits}
vae:
  encoder: {type: mlp, hidden: [16]}
  latent_dim: 3
  posterior: {type: du, gamma: {grid: [0.5, 1.0]}, p_keep: {grid: [1.0, 0.7]}}
  prior: {type: binarized, r: {grid: [0.0, 0.5]}}
  likelihood: {type: bernoulli}
objective: {type: elbo, beta: {grid: [0.5, 2.0]}, schedule: {type: linear, steps: 20, start: {grid: [0.1, 0.4]}}}
train: {epochs: 17, batch_size: 128, lr: 0.004, lr_schedule: {type: cosine, steps: 150, final: 0.2}}
evaluate: {every: 17}
"""  # 17 epochs of 12 steps: 204 steps


def trials(n, *sets, seeds=1):
    made = loads(YAML, [*sets, f"seeds={seeds}"]).trials
    return list(made[:: max(1, len(made) // n)][:n])


def numbers(rows):
    return [{k: v for k, v in r.items() if k not in ("wall_s",)} for r in rows]


def stacked(members, **kw):
    """(rows by key, weights by key) of a stack."""
    group = open_group(members, Setting(note=pytest.fail), stacked=True, **kw)
    rows = {k: r.rows for k, r in group.advance(math.inf).items()}
    for key in rows:
        group.trainer._pull(key)
    return rows, {k: one.vae.state_dict() for k, one in group.trainer.ones.items()}


def alone(trial):
    runner = Runner(trial)
    return runner.advance().rows, runner.vae.state_dict()


def same_bits(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def close(a, b, rel=1e-6):
    for x, y in zip(numbers(a), numbers(b), strict=True):
        assert x.keys() == y.keys()
        for name, value in x.items():
            if isinstance(value, float):
                assert abs(value - y[name]) <= rel * max(1.0, abs(value)), (name, value, y[name])
            else:
                assert value == y[name]


@pytest.mark.parametrize("k", [2, 16])
def test_200_steps_of_a_stack_are_those_of_each_trial_alone(k):
    members = trials(k)
    assert len({t.fusion_group for t in members}) == 1 and len({t.key for t in members}) == k
    rows, weights = stacked(members)
    for slot in {0, k // 2, k - 1}:
        mine, own = alone(members[slot])
        assert mine[-1]["step"] == 204
        assert same_bits(own, weights[members[slot].key]), slot
        close(mine, rows[members[slot].key])


@pytest.mark.parametrize(
    "sets",
    [
        ("train.optimizer=adamw", "train.weight_decay={grid: [0.1, 0.01]}"),
        ("train.optimizer=sgd", "train.momentum={grid: [0.0, 0.9]}", "train.lr=0.0004"),
        ("train.dtype=bfloat16",),
        ("vae.likelihood={type: gaussian, sigma: {grid: [0.5, 1.0]}}", "vae.posterior={type: gaussian}"),
    ],
)
def test_optimizers_and_precisions(sets):
    members = trials(3, *sets, "train.epochs=3", "evaluate.every=3")
    rows, weights = stacked(members)
    for trial in (members[0], members[-1]):
        mine, own = alone(trial)
        assert same_bits(own, weights[trial.key])
        close(mine, rows[trial.key])


def test_clipping_is_of_each_trial():
    members = trials(
        3, "train.clip_norm={grid: [0.1, 1.0, 1.0e6]}", "train.optimizer=sgd", "train.lr=0.01", "train.epochs=4"
    )
    members = [replace(members[0], train=replace(members[0].train, clip_norm=c)) for c in (0.1, 1.0, 1e6)]
    rows, weights = stacked(members)
    assert len({float(w["decoder.0.weight"].norm()) for w in weights.values()}) == 3
    for trial in members:
        close(alone(trial)[0], rows[trial.key], 1e-5)


def test_a_narrower_model_is_itself_in_a_wider_stack():
    sets = ("vae.latent_dim={grid: [1, 3, 6]}", "train.clip_norm=4.0", "train.weight_decay=0.01", "train.epochs=6")
    members = trials(
        3, *sets, "vae.prior={type: binarized, r: 0.0}", "vae.posterior.p_keep=0.7", "vae.posterior.gamma=0.5"
    )
    members = [replace(members[0], vae=replace(members[0].vae, latent_dim=d)) for d in (1, 3, 6)]
    assert len({t.fusion_group for t in members}) == 1
    rows, weights = stacked(members)
    for trial in members:
        mine, own = alone(trial)
        assert {n: t.shape for n, t in own.items()} == {n: t.shape for n, t in weights[trial.key].items()}
        for name, t in own.items():
            torch.testing.assert_close(weights[trial.key][name], t, rtol=1e-4, atol=1e-5)
        close(mine, rows[trial.key], 1e-5)


def test_a_sigma_frozen_by_evaluation_is_in_the_weights():
    sets = ("vae.likelihood={type: gaussian, mode: optimal}", "train.epochs=2", "evaluate.every=1")
    members = trials(2, *sets)
    rows, weights = stacked(members)
    for trial in members:
        (train,) = [r for r in rows[trial.key] if r["split"] == "train" and r["epoch"] == 2]
        assert float(weights[trial.key]["likelihood.frozen_var"]) == pytest.approx(train["distortion_mse"], rel=1e-6)


def test_what_needs_all_its_dimensions_is_not_masked():
    def group(prior, d, objective="{type: elbo}"):
        sets = [f"vae.prior={prior}", f"vae.latent_dim={d}", "vae.posterior={type: gaussian}", f"objective={objective}"]
        return loads(YAML, sets).trials[0].fusion_group

    assert group("{type: normal}", 2) == group("{type: normal}", 5)
    assert group("{type: mixture, components: 3}", 2) != group("{type: mixture, components: 3}", 5)
    assert group("{type: normal}", 2, "{type: dip}") != group("{type: normal}", 5, "{type: dip}")


def test_a_nan_trial_changes_nothing_in_the_others():
    """One of four is poisoned after its third step, another explodes by itself."""
    members = trials(4, "train.epochs=4", "evaluate.every=2")
    members[2] = replace(members[2], train=replace(members[2].train, lr=99.0))

    class Poisoned(Fused):
        def step_on(self, stacked, rows):
            losses = super().step_on(stacked, rows)
            if self.states[members[1].key].step == 3:
                with torch.no_grad():
                    stacked.stack.learning[0][stacked.keys.index(members[1].key)] = math.nan
            return losses

    setting = Setting(note=pytest.fail)
    group = Lockstep(members, Poisoned(members, setting), setting, None, ())
    news = group.advance(math.inf)
    assert news[members[1].key].status == "diverged" and news[members[1].key].rows == []
    assert news[members[2].key].status in ("diverged", "finished")
    for trial in (members[0], members[3]):
        mine, own = alone(trial)
        assert news[trial.key].status == "finished"
        group.trainer._pull(trial.key)
        assert same_bits(own, group.trainer.ones[trial.key].vae.state_dict())
        close(mine, news[trial.key].rows)


def test_a_stack_that_is_interrupted_goes_on_alone_and_back(tmp_path):
    """A checkpoint does not say how it was trained: stacked, then one alone, then stacked again, at different epochs."""
    members = trials(3, "train.epochs=5", "evaluate.every=1")
    setting = Setting(folder=tmp_path, note=pytest.fail)
    first = open_group(members, setting, stacked=True)
    first.advance(0.0)
    first.save()
    at = [(s.epoch, s.position) for s in first.states.values()]
    assert len(set(at)) == 1 and at[0] < (5, 0)
    first.close()
    one = Runner(members[0], folder=tmp_path / members[0].key)
    assert one.step_count == first.states[members[0].key].step
    one.train_epoch()
    one.evaluate()
    one.save()
    again = open_group(members, setting, stacked=True)
    assert len({s.at for s in again.states.values()}) == 2  # one is ahead: the others catch up first
    again.advance(math.inf)
    for trial in members:
        mine, own = alone(trial)
        again.trainer._pull(trial.key)
        assert same_bits(own, again.trainer.ones[trial.key].vae.state_dict())
        close(mine[-3:], again.rows(trial.key)[-3:])


class AsksForANumber(nn.Module):
    """A likelihood that looks at a value: fine alone, impossible when mapped over trials."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.mean = inner.mean

    def nll(self, y, x, batch):
        assert y.sum().item() == y.sum().item()
        return self.inner.nll(y, x, batch)


def test_what_cannot_be_stacked_takes_turns_and_says_why(monkeypatch):
    build = Gaussian.build
    monkeypatch.setattr(Gaussian, "build", lambda part, shape: AsksForANumber(build(part, shape)))
    members = trials(2, "vae.likelihood={type: gaussian}", "train.epochs=2", "evaluate.every=2")
    notes = []
    group = open_group(members, Setting(note=notes.append), stacked=True)
    news = group.advance(math.inf)
    assert isinstance(group.trainer, Serial)
    assert len(notes) == 1 and "2 trials cannot be stacked" in notes[0] and "item()" in notes[0]
    for trial in members:
        assert numbers(news[trial.key].rows) == numbers(alone(trial)[0])


def test_halving_stops_whole_configurations_and_leaves_the_others_alone():
    members = trials(4, "train.epochs=6", "evaluate.every=3", seeds=2)
    configs = list(dict.fromkeys(t.config_key for t in members))
    members = [replace(t, seed=s) for t in members[::2] for s in (0, 1)][:8]
    configs = list(dict.fromkeys(t.config_key for t in members))
    halving = Halving(grace=1, eta=2.0)
    assert halving.rungs(6) == [1, 2, 4]
    group = open_group(members, Setting(note=pytest.fail), stacked=True, halving=halving)
    news = group.advance(math.inf)
    ended = {c: {news[t.key].status for t in members if t.config_key == c} for c in configs}
    assert all(len(s) == 1 for s in ended.values())  # all seeds of a configuration share its fate
    assert sorted(s for fate in ended.values() for s in fate) == ["finished"] + ["stopped"] * (len(configs) - 1)
    at_1 = {c: [r["elbo_nats"] for t in members if t.config_key == c for r in news[t.key].rows
                if r["epoch"] == 1 and r["split"] == "valid"] for c in configs}  # fmt: skip
    order = sorted(configs, key=lambda c: -np.mean(at_1[c]))
    reached = {t.config_key for t in members if news[t.key].epoch > 1}
    assert reached == set(order[: math.ceil(len(order) / 2)])
    winner = next(t for t in members if news[t.key].status == "finished")
    plain = Runner(replace(winner, evaluate=Evaluate(every=1))).advance().rows
    epochs = {r["epoch"] for r in news[winner.key].rows}
    close([r for r in plain if r["epoch"] in epochs], news[winner.key].rows)
