"""A person stops one trial of a group: it ends with the rows it has, its neighbours' are the same as if it had stayed."""

import json

import pytest
from test_rank import rank, status, tasks

from distvae.config import loads
from distvae.operate import again
from distvae.results import ledger
from distvae.sweeps.remaining import remaining

TEXT = """
vae: {encoder: {type: mlp, hidden: [8]}, latent_dim: 2, prior: {type: binarized, r: {grid: [0.0, 0.5]}}}
objective: {type: elbo, beta: {grid: [0.5, 4]}}
train: {epochs: 4, batch_size: 512}
evaluate: {every: 2, train_examples: 1}
"""


def train(study, out, stop=None, after=0):
    """Every group to its end; from its report number `after` on the key `stop` is asked to stop."""
    reports, told = 0, {}
    for task in tasks(study, out):
        one, left = rank(study, out, 1e6), {m["key"] for m in task["members"]}
        one.begin(task)
        while left:
            stops = [stop, "no such trial"] if stop and reports >= after else []
            for key, t in one.advance(0, stops=stops)["trials"].items():
                told.setdefault(key, []).append(t)
                left -= {key} if t["status"] else set()
            reports += 1
    return told


def rows(out):
    return {
        (r["trial_key"], r["epoch"], r["split"]): {
            k: v for k, v in r.items() if k not in ("wall_s", "status", "attempt")
        }
        for r in ledger.load(out).to_pylist()
    }


KINDS = {
    "stacked": ["resources.fuse=16"],
    "taking turns": [
        "resources.fuse=off",
        "search={scheduler: {type: halving, grace: 4}}",
    ],  # its rung is never reached
    "alone": ["resources.fuse=off"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_neighbours_rows_are_identical_and_it_can_go_on_later(tmp_path, kind):
    """Stopped in its third epoch of four (of three steps; a report is a step)."""
    study = loads(TEXT, KINDS[kind])
    keys = [t.key for t in study.trials]
    plain, out, chosen = tmp_path / "plain", tmp_path / "stopped", keys[0]
    assert len(tasks(study, out)) == (4 if kind == "alone" else 1)
    train(study, plain)
    told = train(study, out, stop=chosen, after=4 * 7 if kind == "taking turns" else 7)
    assert status(out) == dict.fromkeys(keys, "finished") | {chosen: "stopped"}
    assert (told[chosen][-1]["status"], told[chosen][-1]["epoch"]) == ("stopped", 2)
    all_, some = rows(plain), rows(out)
    assert all_.keys() - some.keys() == {at for at in all_ if at[0] == chosen and at[1] > 2}
    for at, row in some.items():  # a stack of three measures by other products than one of four: equal to rounding
        assert row == all_[at] if kind != "stacked" else close(row, all_[at]), at
    events = [json.loads(line) for line in (out / "logs" / f"{chosen}.jsonl").read_text().splitlines()]
    assert events[-1] | {"unix_s": 0} == {
        "unix_s": 0, "event": "end", "status": "stopped", "epoch": 2, "by": "distvae stop"
    }  # fmt: skip
    assert list((out / "checkpoints" / chosen).glob("ep0000002-*")), "it can go on from where it was"
    assert all(not list((out / "checkpoints" / key).glob("ep*")) for key in keys[1:])

    assert not remaining(study, ledger.scan(out)[0], again.read(out))  # not run again by itself
    before = {p.name: p.read_bytes() for p in out.glob("points/*.parquet")}
    again.add(out, {chosen: 0})
    ((trial, task),) = remaining(study, ledger.scan(out)[0], again.read(out))
    assert (trial.key, task["attempt"], task["committed_epoch"]) == (chosen, 1, 2)
    one = rank(study, out, 1e6)
    one.begin({"members": [task], "stacked": False, "ended": keys[1:]})
    steps = 1
    while one.advance(0)["trials"][chosen]["status"] is None:
        steps += 1
    assert steps <= 5, "two epochs are six steps, of which one at least is not done again"
    assert status(out) == dict.fromkeys(keys, "finished")
    assert rows(out).keys() == all_.keys() and all(close(row, all_[at]) for at, row in rows(out).items())
    assert {p.name: p.read_bytes() for p in out.glob("points/*.parquet")}.items() >= before.items()
    assert not remaining(study, ledger.scan(out)[0], again.read(out))  # the mark says nothing any more


def close(row, other):
    return all(
        v == pytest.approx(other[k], rel=1e-6) if isinstance(v, float) else v == other[k] for k, v in row.items()
    )


def test_a_trial_can_be_stopped_before_its_first_step_and_twice(tmp_path):
    study = loads(TEXT, KINDS["stacked"])
    (task,) = tasks(study, tmp_path)
    one, keys = rank(study, tmp_path), [m["key"] for m in task["members"]]
    one.begin(task)
    told = one.advance(0, stops=keys[:2])["trials"]
    assert {key: t["status"] for key, t in told.items()} == dict.fromkeys(keys[:2], "stopped") | dict.fromkeys(keys[2:])
    told = one.advance(0, stops=keys)["trials"]
    assert {key: t["status"] for key, t in told.items()} == dict.fromkeys(keys[2:], "stopped")
    assert one.advance(0, stops=keys)["trials"] == {}
    assert status(tmp_path) == dict.fromkeys(keys, "stopped") and len(list(tmp_path.glob("points/*"))) == 4
