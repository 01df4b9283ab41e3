"""A rank that trains groups, in this process and without Ray, killed between any two of its reports. The oracle of who
stops is written out here, from the committed rows."""

import json

import pytest

from distvae.config import loads
from distvae.results import ledger
from distvae.sweeps.groups import partition
from distvae.sweeps.rank import Rank
from distvae.sweeps.remaining import group_task, remaining
from distvae.trial import as_data

TEXT = """
vae: {encoder: {type: mlp, hidden: [4]}, latent_dim: 2, prior: {type: binarized, r: {grid: [0.0, 0.5]}}}
objective: {type: elbo, beta: {grid: [0.1, 4]}}
train: {epochs: 4, batch_size: 1437, lr: 1.0e-2}
evaluate: {every: 3, train_examples: 1}
seeds: 2
resources: {fuse: off}
search: {scheduler: {type: halving, eta: 2}}
"""
RUNGS = [1, 2]


def rank(study, out, checkpoint_s: float = 0):
    """As the gang makes it, of one worker."""
    job = {
        "out": str(out), "sweep": "s", "engine": "torch", "deepspeed": {}, "threads": 1, "gpus": 0, "most": 16, "checkpoint_s": checkpoint_s,
        "keep": study.resources.keep, "local": True, "cwd": "", "git_sha": "",
        "halving": as_data(study.search.scheduler) if study.search.scheduler else None,
    }  # fmt: skip
    one = Rank.__ray_metadata__.modified_class(0, 1, job)  # pyright: ignore
    one.join(one.open_store())
    return one


def tasks(study, out):
    ended, _ = ledger.scan(out)
    todo = remaining(study, ended)
    by_key = {task["key"]: task for _, task in todo}
    return [group_task(g, by_key) for g in partition(study, [t for t, _ in todo])]


def run(study, out, reports=None, checkpoint_s=1e6):
    """Every group to its end, or to the death of its process after some reports. What was told, by trial."""
    told = {}
    for task in tasks(study, out):
        one, left = rank(study, out, checkpoint_s), {m["key"] for m in task["members"]}
        one.begin(task)
        while left and reports != 0:
            for key, t in one.advance(0)["trials"].items():
                told.setdefault(key, []).append(t)
                left -= {key} if t["status"] else set()
            reports = None if reports is None else reports - 1
    return told


def status(out):
    return {key: end.status for key, end in ledger.scan(out)[0].items()}


def facts(out):
    """What was committed, by (trial, epoch, split), but for time and how it ended."""
    return {
        (r["trial_key"], r["epoch"], r["split"]): {k: v for k, v in r.items() if k not in ("wall_s", "status")}
        for r in ledger.load(out).to_pylist()
    }


def by_the_rule(study, out, rungs=RUNGS, eta=2):
    """The epoch at which each configuration ends."""
    valid = {k[:2]: r["elbo_nats"] for k, r in facts(out).items() if k[2] == "valid"}
    keys = {}
    for t in study.trials:
        keys.setdefault(t.config_key, []).append(t.key)
    left, end = set(keys), {}
    for rung in rungs:
        mean = {c: sum(valid[k, rung] for k in keys[c]) / len(keys[c]) for c in left}
        go_on = sorted(mean, key=mean.__getitem__, reverse=True)[: -(-len(left) // eta)]
        end |= {c: rung for c in left - set(go_on)}
        left = set(go_on)
    return end | dict.fromkeys(left, study.trials[0].train.epochs)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A sweep with halving that nothing interrupted."""
    study, out = loads(TEXT), tmp_path_factory.mktemp("whole")
    return study, out, run(study, out)


def test_halving_stops_what_the_rule_says_and_keeps_every_row(whole, tmp_path):
    study, out, told = whole
    ends, found = by_the_rule(study, out), status(out)
    assert sorted(ends.values()) == [1, 1, 2, 4]  # of 4 configurations 2, then 1 go on
    for t in study.trials:
        epochs = {e for k, e, _ in facts(out) if k == t.key}
        assert epochs == {e for e in (1, 2, 3, 4) if e <= ends[t.config_key]}, t.label
        assert found[t.key] == ("finished" if ends[t.config_key] == 4 else "stopped")
        assert told[t.key][-1]["status"] == found[t.key]
        assert sum(len(one["rows"]) for one in told[t.key]) == 3 * len(epochs)
    plain, alone = loads(TEXT.replace("search", "# search")), tmp_path / "plain"
    run(plain, alone)
    halved, full = facts(out), facts(alone)
    shared = halved.keys() & full.keys()
    assert {e for _, e, _ in shared} == {3, 4} and all(halved[k] == full[k] for k in shared)  # bit for bit


@pytest.mark.parametrize(("reports", "checkpoint_s"), [(5, 0), (8, 0), (8, 1e6), (11, 0), (12, 1e6)])
def test_a_death_between_two_reports_decides_the_same(whole, tmp_path, reports, checkpoint_s):
    """Before the first rung, at each, after the last; with checkpoints, and with none."""
    study, out, _ = whole
    run(study, tmp_path, reports, checkpoint_s)
    before = {p.name: p.read_bytes() for p in tmp_path.glob("points/*.parquet")}
    run(study, tmp_path)
    assert status(tmp_path) == status(out) and facts(tmp_path) == facts(out)
    assert {p.name: p.read_bytes() for p in tmp_path.glob("points/*.parquet")}.items() >= before.items()
    assert not tasks(study, tmp_path)  # what was stopped is not run again


def test_what_a_dead_process_committed_is_told_and_not_trained(whole, tmp_path):
    """The task is the one from before the death, as Tune retries it."""
    study, _, _ = whole
    (task,) = tasks(study, tmp_path)
    first = rank(study, tmp_path)
    first.begin(task)
    while "stopped" not in status(tmp_path).values():
        first.advance(0)
    committed = status(tmp_path)
    again = rank(study, tmp_path)
    again.begin(task)
    told = again.advance(0)["trials"]
    assert {k: (t["status"], t["epoch"], t["rows"]) for k, t in told.items() if t["status"]} == {
        k: ("stopped", 1, []) for k in committed
    }


def test_an_exception_is_its_trials_own(tmp_path):
    """In a group of four, the weights of one cannot be written."""
    study = loads(
        TEXT, ["search.scheduler.grace=4", "seeds=1"]
    )  # a rung that is never reached: a group, and nobody stops
    out, poisoned = tmp_path / "out", study.trials[1].key
    blocked = out / "checkpoints" / poisoned / "model.safetensors"
    blocked.mkdir(parents=True)
    told = run(study, out)
    assert status(out) == {t.key: "failed" if t.key == poisoned else "finished" for t in study.trials}
    assert [t["raised"] for t in told[poisoned]].count(True) == 2
    events = [json.loads(line) for line in (out / "logs" / f"{poisoned}.jsonl").read_text().splitlines()]
    assert [e["event"] for e in events] == ["begin", "error", "error", "end"]
    assert all("IsADirectoryError" in e["traceback"] for e in events[1:3])
    blocked.rmdir()
    (task,) = tasks(study, out)
    assert [(m["key"], m["attempt"]) for m in task["members"]] == [(poisoned, 1)] and len(task["ended"]) == 3
    run(study, out)
    assert set(status(out).values()) == {"finished"}


def test_a_rank_without_the_compiled_kernels_says_so(tmp_path, monkeypatch):
    from distvae.kernels import cpu

    study = loads(TEXT)
    monkeypatch.setattr(cpu, "unavailable", lambda: None)
    assert rank(study, tmp_path).notes == []
    monkeypatch.setattr(cpu, "unavailable", lambda: "no compiler was found at installation")
    (note,) = rank(study, tmp_path).notes
    assert "compiled kernels are not here (no compiler was found at installation)" in note and "slower" in note
    monkeypatch.setenv("DISTVAE_KERNELS", "reference")  # asked for: nothing to tell
    assert rank(study, tmp_path).notes == []
