"""What a sweep keeps, on S3, below Ray: ledger, measurements, plan, checkpoints, and the commands that read them."""

import errno
import json
import os
import threading
import time
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from commands import command
from ledgers import commit, finished, measured, table, trial
from ray.exceptions import RayTaskError

import distvae
from distvae import files
from distvae.config import loads
from distvae.nets import Mlp
from distvae.results import ledger
from distvae.store import lease, local
from distvae.store.errors import StoreError, UnwrittenError
from distvae.sweeps.gang import _place
from distvae.sweeps.groups import GroupPlan
from distvae.sweeps.lock import OutLockedError, hold_out
from distvae.sweeps.outcome import Outcome
from distvae.sweeps.plan import read_plan, write_plan
from distvae.sweeps.rank import Rank
from distvae.sweeps.remaining import group_task, remaining
from distvae.training import checkpoint
from distvae.training.loop import Runner
from distvae.training.world import World
from distvae.trial import Train, Trial
from distvae.vae import Model

TRIAL = Trial(vae=Model(encoder=Mlp(hidden=(8,)), latent_dim=2), train=Train(epochs=3, batch_size=600))


def test_rows_are_committed_once_and_come_back(out):
    t = trial()
    path = commit(out, t, [measured(1, "test", 2.0, 3.0)])
    assert str(path) == f"{out}/points/{t.key}.0.parquet"
    before = path.read_bytes()
    commit(out, t, [measured(1, "test", 99.0, 3.0)])
    assert path.read_bytes() == before
    finished(out, trial(1), 1.0, 2.0)
    (row,) = [r for r in ledger.load(out).to_pylist() if r["trial_key"] == t.key]
    assert row["rate_nats"] == 2.0
    assert ledger.end(out, t.key, 0).status == "finished" and ledger.end(out, t.key, 1) is None
    assert ledger.history(out, t.key).last("rate_nats", "test") == 2.0
    assert set(ledger.scan(out)[0]) == {t.key, trial(1).key}


@pytest.mark.parametrize("place", ["s3", "folder"])
def test_of_two_that_commit_one_attempt_one_does(place, out, tmp_path):
    where = out if place == "s3" else tmp_path
    both = [table(trial(), [measured(1, "test", rate, 3.0)]) for rate in (1.0, 2.0)]
    threads = [threading.Thread(target=ledger.commit, args=(where, t)) for t in both]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    (row,) = ledger.load(where).to_pylist()
    assert row["rate_nats"] in (1.0, 2.0)


def test_a_damaged_object_is_set_aside_and_s3_that_is_away_is_not_damage(out, monkeypatch):
    good, bad = trial(0), trial(1)
    finished(out, good, 1.0, 2.0)
    path = finished(out, bad, 1.0, 2.0)
    with files.replacing(path) as f:
        f.write(path.read_bytes()[:-100])
    ended, told = ledger.scan(out)
    assert set(ended) == {good.key} and told == [
        f"{path} is damaged: moved to {out}/quarantine, its trial is run again"
    ]
    assert (out / "quarantine" / path.name).exists() and not path.exists()
    from distvae.store import s3

    s3.give_up()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreError):
        ledger.scan(out)


def test_a_damaged_file_in_the_way_of_a_commit_is_set_aside(out):
    path = ledger.path(out, trial().key, 0)
    with files.replacing(path) as f:
        f.write(b"PAR1 half")
    finished(out, trial(), 1.0, 2.0)
    assert set(ledger.scan(out)[0]) == {trial().key} and (out / "quarantine" / path.name).exists()


def stopped_after(epochs, folder):
    runner = Runner(TRIAL, folder=folder)
    for _ in range(epochs):
        runner.train_epoch()
        runner.evaluate()
        runner.save()
    runner.close()


def facts(runner):
    return [{k: v for k, v in r.items() if k != "wall_s"} for r in runner.rows]


def test_a_trial_resumes_from_its_checkpoint_on_s3(out):
    folder = out / "checkpoints" / TRIAL.key
    whole = Runner(TRIAL)
    whole.advance()
    stopped_after(2, folder)
    assert sorted(p.name for p in folder.iterdir()) == ["ep0000001", "ep0000002"]
    with files.replacing(folder / "ep0000003" / "rank0.safetensors") as f:
        f.write(b"its writer died before the manifest")
    runner = Runner(TRIAL, folder=folder)
    assert runner.epoch == 2 and not (folder / "ep0000003").exists()
    shard = folder / "ep0000002" / "rank0.safetensors"
    blob = shard.read_bytes()
    with files.replacing(shard) as f:
        f.write(blob[:-1] + bytes([blob[-1] ^ 1]))
    runner = Runner(TRIAL, folder=folder)
    assert runner.epoch == 1 and (folder / "damaged-ep0000002" / "state.json").exists()
    runner.advance()
    assert facts(runner) == facts(whole)
    runner.write_weights()
    checkpoint.prune(folder, "weights")
    assert sorted(p.name for p in folder.iterdir()) == ["model.safetensors"]
    checkpoint.prune(folder, "none")
    assert not folder.exists()


def test_what_one_rank_cannot_write_all_ranks_raise(tmp_path, monkeypatch):
    """None waits ten minutes for the one whose disk is full."""

    class Gang(World):
        def collect(self, value):
            return [value, (None, OSError("the other rank's disk")) if isinstance(value, tuple) else None]

        def broadcast(self, value):
            return value

    with pytest.raises(OSError, match="the other rank's disk"):
        checkpoint.write(tmp_path, 1, {}, {}, Gang(0, 2))
    assert not (tmp_path / "ep0000001").exists()


SWEEP = """
name: made
vae: {encoder: {type: mlp, hidden: [8]}, latent_dim: 2}
objective: {type: elbo, beta: {grid: [0.5, 1.0]}}
train: {epochs: 2}
"""


def test_a_plan_is_written_and_read(out):
    write_plan(out, loads(SWEEP))
    assert len(read_plan(out)) == 2 and (out / "sweep.yaml").read_text().startswith("name: made")
    assert len(write_plan(out, loads(SWEEP, ["objective.beta={grid: [1.0, 2.0]}"]), keep={"x"})) == 2


def test_the_commands_read_an_out_on_s3(out, capsys, tmp_path):
    study = loads(SWEEP)
    write_plan(out, study)
    for i, t in enumerate(study.trials):
        finished(out, t, 1.0 + i, 5.0 - i)
    done = command(capsys, "status", out, "--json")
    assert done.code == 0 and json.loads(done.out)["counts"] == {"finished": 2}, done.err
    done = command(capsys, "export", out, "--format", "csv")
    assert done.out == f"{out}/rd_curve.csv\n" and (out / "rd_curve.csv").read_text().count("\n") == 9
    done = command(capsys, "export", out, "--to", tmp_path / "mine.parquet")
    assert len(pq.read_table(tmp_path / "mine.parquet")) == 8 == len(distvae.load_curve(str(out)))
    done = command(capsys, "plot", out, "--kind", "rd")
    assert done.code == 0 and (out / "plots" / "rd.png").read_bytes().startswith(b"\x89PNG"), done.err
    done = command(capsys, "report", out)
    assert done.code == 0 and b"made" in (out / "report.html").read_bytes(), done.err
    done = command(capsys, "compare", out, "--by", "objective.beta", "--json")
    assert done.code == 0 and len(json.loads(done.out)["panels"]) == 1, done.err
    config = tmp_path / "made.yaml"
    config.write_text(SWEEP)
    done = command(capsys, "plan", config, "--out", out, "--no-probe", "--json")
    assert json.loads(done.out)["left"] == 0
    empty = command(capsys, "status", f"{out}-other")
    assert empty.code == 2 and "holds no sweep" in empty.err
    gone = command(capsys, "status", "s3://no-such-bucket-here/x")
    assert gone.code == 2 and "--out s3://no-such-bucket-here/x: there is no such bucket" in gone.err


def test_train_from_python_keeps_its_rows_and_weights_there(out):
    t = replace(TRIAL, train=Train(epochs=1, batch_size=600))
    made = distvae.train(t, str(out))
    again = distvae.train(t, str(out))
    assert again.rows.equals(made.rows) and again.status == "finished"
    best = distvae.load_best(str(out))
    assert best.trial.key == t.key
    for a, b in zip(best.parameters(), made.model.parameters(), strict=True):
        assert a.equal(b)
    assert (out / ".lease-000000002").exists()


def test_mlflow_of_an_out_on_s3_is_in_the_cache_of_this_machine(out, tmp_path):
    from distvae.results import tracking

    where = tracking.home(out)
    assert where.parent == tmp_path / "cache" / "mlflow" and where.name.startswith("one-")
    assert tracking.store_uri(out) == f"sqlite:///{where}/mlflow.db"
    assert tracking.created_ms(out) == tracking.created_ms(out)


def ranked(out, study, lease):
    """A rank that trains the study's one trial, in this process and without Ray."""
    job = {
        "out": str(out), "sweep": "s", "engine": "torch", "deepspeed": {}, "threads": 1, "gpus": 0, "most": 16,
        "checkpoint_s": 1e6, "keep": "weights", "local": True, "cwd": "", "git_sha": "", "halving": None, "lease": lease,
    }  # fmt: skip
    rank = Rank.__ray_metadata__.modified_class(0, 1, job)
    rank.join(rank.open_store())
    (trial,) = study.trials
    rank.begin(group_task(GroupPlan((trial,), False, None, ()), {trial.key: remaining(study, {})[0][1]}))
    return rank


ONE = ["objective.beta=1.0", "train.batch_size=1437"]


def test_a_rank_whose_sweep_was_taken_over_commits_nothing(out, quick_lease):
    study = loads(SWEEP, ONE)
    with hold_out(out) as held:
        rank = ranked(out, study, held.number)
        rank.advance(0)
        with files.creating(out / lease.name(2)) as f:
            f.write(b'{"id": "x", "pid": 7, "host": "other"}')
        with pytest.raises(OutLockedError, match="was taken over by process 7 on other"):
            rank.advance(1e6)
        rank.checked = time.monotonic() + 60  # it has just looked, and commits at once
        with pytest.raises(OutLockedError):
            rank.advance(1e6)
        assert not (out / "points").is_dir() and _place(OutLockedError("gone")) == {"lost": "gone"}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_place_that_cannot_be_written_is_not_the_trials_failure(tmp_path, monkeypatch, code):
    """Not one more go and then `failed`: the rank raises what is wrong with the place, and the gang reports it."""
    study, out = loads(SWEEP, ONE), tmp_path / "out"
    rank = ranked(out, study, None)

    def refused(fd):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as m:
        m.setattr(local.os, "fsync", refused)
        with pytest.raises(UnwrittenError) as told:
            rank.advance(1e6)
        assert _place(RayTaskError("advance", "trace", told.value)) == {"unwritten": str(told.value)}
        assert "nothing of it was written" in str(told.value) and os.strerror(code) in str(told.value)
    assert not list(out.rglob("*.parquet"))
    assert rank.advance(1e6)["trials"][study.trials[0].key]["status"] == "finished"  # there is room again
    assert len(ledger.load(out)) == 6


def test_what_ends_a_sweep_is_in_its_exit_code():
    assert Outcome(None, 2, {"a": "failed"}, unwritten="full").exit_code == 4
    assert Outcome(None, 2, {"a": "failed"}).exit_code == 3 and Outcome(None, 2, interrupted=True).exit_code == 130
