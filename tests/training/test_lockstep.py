"""Members that take turns: each as if it were alone, and what one raises is its own."""

from dataclasses import replace

import pytest

from distvae.nets import Mlp
from distvae.objectives import Elbo
from distvae.training.group import Setting, open_group
from distvae.training.halving import Halving
from distvae.training.loop import Runner
from distvae.trial import Evaluate, Train, Trial
from distvae.vae import Model

BASE = Trial(
    vae=Model(encoder=Mlp(hidden=(4,)), latent_dim=2),
    train=Train(epochs=3, batch_size=1437),
    evaluate=Evaluate(every=2, train_examples=1),
)
TRIALS = [replace(BASE, objective=Elbo(beta=b)) for b in (0.5, 1.0, 2.0)]


def facts(rows):
    return [{k: v for k, v in r.items() if k != "wall_s"} for r in rows]


def alone(trial):
    runner = Runner(trial)
    runner.advance()
    return facts(runner.rows)


def to_the_end(group, keys):
    status, calls = {}, 0
    while len(status) < len(keys):
        status |= {k: r.status for k, r in group.advance(0).items() if r.status}
        calls += 1
        assert calls < 30
    return status


@pytest.fixture
def raising(monkeypatch):
    """Makes a trial raise at an epoch, so many times."""
    plan: dict[str, list[int]] = {}
    train_epoch = Runner.train_epoch

    def train(self, *pace):
        epochs = plan.get(self.trial.key, [])
        if self.epoch in epochs:
            epochs.remove(self.epoch)
            raise OSError("the disk is gone")
        return train_epoch(self, *pace)

    monkeypatch.setattr(Runner, "train_epoch", train)
    return plan


@pytest.mark.parametrize(("epochs", "end"), [([2], "finished"), ([1, 1], "failed"), ([0], "finished")])
def test_an_exception_is_the_members_own(tmp_path, raising, epochs, end):
    keys, heard = [t.key for t in TRIALS], []
    raising[keys[1]], times = list(epochs), len(epochs)
    setting = Setting(folder=tmp_path, checkpoint_s=0, failed=lambda key, e: heard.append((key, str(e))))
    group = open_group(TRIALS, setting)
    assert to_the_end(group, keys) == {keys[0]: "finished", keys[1]: end, keys[2]: "finished"}
    assert heard == [(keys[1], "the disk is gone")] * times
    for t in TRIALS:
        if t.key != keys[1] or end == "finished":
            assert facts(group.rows(t.key)) == alone(t)


def test_an_error_of_the_device_is_the_processes(tmp_path, raising, monkeypatch):
    def train(self, *pace):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(Runner, "train_epoch", train)
    group = open_group(TRIALS, Setting(failed=lambda key, e: None))
    with pytest.raises(RuntimeError, match="illegal memory"):
        group.advance()


def test_members_that_had_all_but_ended_say_so(tmp_path):
    """Killed between the last checkpoint (`resources.keep: all`) and the commit."""
    setting = Setting(folder=tmp_path)
    first = open_group(TRIALS[:2], setting)
    to_the_end(first, [t.key for t in TRIALS[:2]])
    first.save(TRIALS[0].key)
    again = open_group(TRIALS[:2], setting)
    told = again.advance(0)
    assert told[TRIALS[0].key].status == "finished" and again.rows(TRIALS[0].key)
    assert to_the_end(again, [TRIALS[1].key]) == {TRIALS[1].key: "finished"}


def test_the_rule_does_not_depend_on_any_order():
    scores = {"a": [1.0, 3.0], "b": [0.1, 0.2, 0.3], "c": [float("nan"), 9.0], "d": [2.0, 2.0], "e": [5.0]}
    rule = Halving(eta=2.0)
    for order in ("abcde", "edcba", "cadbe"):
        assert rule.stops({c: scores[c] for c in order}) == {"b", "c"}
        assert rule.stops({c: scores[c][::-1] for c in order if c in "ad"}) == {"d"}  # a tie: by key
    assert rule.stops({"a": [float("nan")]}) == set() == rule.stops({})
    assert [Halving(grace=g, eta=e).rungs(30) for g, e in ((1, 3.0), (4, 2.0), (30, 2.0), (1, 1.5))] == [
        [1, 3, 9, 27],
        [4, 8, 16],
        [],
        [1, 2, 3, 5, 8, 11, 17, 26],
    ]
