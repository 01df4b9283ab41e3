"""stop, retry and extend where no sweep runs, and their words of the command line."""

import json

import pytest
from commands import command
from ledgers import measured
from lives import desk

from distvae.config import load
from distvae.operate import again, kept, steer
from distvae.results import ledger
from distvae.sweeps.lock import hold_out
from distvae.sweeps.plan import write_plan
from distvae.sweeps.remaining import remaining


def left(made):
    return [t.key for t, _ in remaining(made.study, ledger.scan(made.out)[0], again.read(made.out))]


def test_a_trial_is_named_by_the_first_digits_of_its_key(made):
    plan = steer.planned(made.out)
    assert steer.named(plan, [made.open[:5], made.open, made.failed]) == [made.open, made.failed]
    for bad, why in (("zz", "begins no trial's key"), ("", "begins no trial's key")):
        with pytest.raises(steer.KeyNotFoundError, match=why):
            steer.named(plan, [bad])
    with pytest.raises(steer.KeyNotFoundError, match="begins the keys of several trials"):
        steer.named({"ab1": {}, "ab2": {}}, ["ab"])


def test_where_no_sweep_runs_a_trial_is_stopped_in_the_ledger_with_the_rows_of_its_checkpoint(capsys, made):
    (trial,) = [t for t in made.study.trials if t.key == made.open]
    from distvae.training import checkpoint
    from distvae.training.world import World

    state = {"rows": [measured(1, s, 3.0, 4.0) for s in ("valid", "test")], "step": 12, "position": 3}
    checkpoint.write(made.out / "checkpoints" / trial.key, 1, state, {}, World())
    done = command(capsys, "stop", made.out, made.open[:6], made.diverged)
    assert done.code == 0 and f"trial {made.open} is stopped, with 2 rows (no sweep is running)" in done.err
    assert f"trial {made.diverged} has ended already: diverged" in done.err
    assert made.status()[made.open] == "stopped" and left(made) == [made.failed]
    assert [(r["rate_nats"], r["sweep"]) for r in ledger.history(made.out, made.open).rows] == [(3.0, "s")] * 2
    assert kept.is_there(made.out, made.open) and made.open in str(ledger.load(made.out)["trial_key"].to_pylist())


def test_a_sweep_that_runs_is_asked(capsys, made):
    with hold_out(made.out), desk(made.out) as one:
        heard = []
        one.drain = heard.append
        done = command(capsys, "stop", made.out, "--all")
        assert done.code == 0 and "taken: running trials save and stop" in done.err and len(heard) == 1
        done = command(capsys, "stop", made.out, made.open)
        assert done.code == 0 and f"trial {made.open} is not being trained now" in done.err
    done = command(capsys, "stop", made.out, "--all")
    assert done.code == 0 and "no sweep is running" in done.err


def test_retry_marks_what_ended_and_nothing_that_finished(made):
    said = []
    assert left(made) == [made.failed, made.open]
    what = steer.retry(made.out, [made.diverged, made.finished, made.open], failed=True, say=said.append)
    assert what.config == made.out / "sweep.yaml" and not what.sets
    assert again.read(made.out) == {made.diverged: 0, made.failed: 0}
    assert left(made) == [made.failed, made.diverged, made.open]
    assert any(f"{made.finished} has finished" in line for line in said)
    assert any(f"{made.open} has not ended" in line for line in said)
    by_key = {t.key: t for t in made.study.trials}
    made.end(by_key[made.diverged], "diverged", attempt=1, epochs=())
    assert left(made) == [made.failed, made.open], "the later attempt counts"
    assert [t.key for t in load(what.config).trials] == [t.key for t in made.study.trials]


def test_retry_needs_out_to_itself_and_says_what_it_takes(capsys, made):
    with hold_out(made.out):
        assert command(capsys, "retry", made.out, "--failed").code == 5
    assert again.read(made.out) == {}
    done = command(capsys, "retry", made.out)
    assert done.code == 2 and "--failed, or --key KEY" in done.err
    assert command(capsys, "stop", made.out).code == 2 == command(capsys, "stop", made.out, made.open, "--all").code


def test_marks_that_cannot_be_read_are_no_marks(tmp_path):
    (tmp_path / again.FILE).write_text("[1, 2]")
    assert again.read(tmp_path) == {}
    again.add(tmp_path, {"a": 3})
    again.add(tmp_path, {"b": 0})
    assert again.read(tmp_path) == {"a": 3, "b": 0}


def test_extend_says_who_goes_on_from_where(made):
    said = []
    what = steer.extend(made.out, 5, said.append)
    study = load(what.config, what.sets)
    assert {t.train.epochs for t in study.trials} == {5} and [t.key for t in study.trials] == list(
        steer.planned(made.out)
    )
    assert any("1 finished trials have no checkpoint" in line and "from the start" in line for line in said)
    assert any("1 stopped or diverged trials stay" in line for line in said)
    todo = {t.key: task for t, task in remaining(study, ledger.scan(made.out)[0])}
    assert todo[made.finished]["committed_epoch"] == 2 and made.diverged not in todo
    (made.out / "checkpoints" / made.finished / "ep0000002").mkdir(parents=True)
    said.clear()
    steer.extend(made.out, 5, said.append)
    assert any("1 finished trials go on from their checkpoints to epoch 5" in line for line in said)


def test_extend_takes_nothing_back_and_reaches_everybody(capsys, made):
    done = command(capsys, "extend", made.out, "--epochs", 1)
    assert done.code == 2 and "--epochs 1 is less than the 2 that are planned" in done.err
    made.config.write_text(made.config.read_text() + "points: [{train.epochs: 3, vae.prior.r: 2}]\n")
    write_plan(made.out, load(made.config))
    done = command(capsys, "extend", made.out, "--epochs", 9)
    assert done.code == 2 and "epochs of their own (a block, `when` or `points`" in done.err


def test_a_folder_that_is_no_sweep(capsys, tmp_path):
    for words in (["stop", "--all"], ["retry", "--failed"], ["extend", "--epochs", 3], ["attach"], ["logs", "ab"]):
        done = command(capsys, words[0], tmp_path, *words[1:])
        assert done.code == 2 and "holds no sweep" in done.err, words


def test_status_as_data_has_the_last_launch(capsys, made):
    assert json.loads(command(capsys, "status", made.out, "--json").out)["run"] is None
    with desk(made.out) as one:
        one.close(3, "incomplete: 1 failed trial")
    run = json.loads(command(capsys, "status", made.out, "--json").out)["run"]
    assert run["state"] == "ended" and run["ended"]["exit_code"] == 3
    done = command(capsys, "status", made.out)
    assert done.code == 0 and "incomplete: 1 failed trial" in done.err and "4 trials planned" in done.err
