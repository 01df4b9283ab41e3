"""Logs and measurements that lie in zips are read as if they lay by themselves."""

import json

import pytest
from ledgers import finished, trial

from distvae import files
from distvae.metrics.metric import Column
from distvae.operate import logs
from distvae.results import compaction, ledger, measurements, packs
from distvae.results.measurements import Measurement
from distvae.store import folded, twice

SIZE = 4


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for module in (packs, folded):
        monkeypatch.setattr(module, "SIZE", SIZE)
    monkeypatch.setattr(ledger, "MANY", 2 * SIZE)


def measure(out, t, value):
    m = Measurement(t.key, 2)
    m.columns["moment"], m.settings["moment"] = Column("moment", "prior std", "E|mu|"), "{}"
    m.rows["test", 0] = {"epoch": 2, "split": "test", "point": 0, "moment": value}
    return measurements.commit(out, m)


def log(out, t, *events):
    for event in events:
        files.append(logs.path(out, t.key), json.dumps({"event": event, "unix_s": 1.0}) + "\n")


@pytest.fixture
def sweep(tmp_path):
    """(OUT, its trials, {key: "finished"}): ended, measured, logged."""
    trials = [trial(seed) for seed in range(2 * SIZE + 2)]
    for t in trials:
        finished(tmp_path, t, 1.0 + t.seed, 2.0)
        measure(tmp_path, t, float(t.seed))
        log(tmp_path, t, "begin", f"seed {t.seed}")
    return tmp_path, trials, {t.key: "finished" for t in trials}


def everything(out, trials):
    return ledger.load(out).to_pylist(), {t.key: logs.text(out, t.key) for t in trials}, logs.texts(out, ["none"])


def test_nothing_that_is_read_changes(sweep):
    out, trials, status = sweep
    before = everything(out, trials)
    assert sum(row["moment"] is not None for row in before[0]) == len(trials)
    assert compaction.compact(out, status, running=False) == 2 * SIZE
    assert everything(out, trials) == before
    assert [len(list((out / f).glob("*.*"))) for f in ("points", "logs", "metrics")] == [4, 4, 4]  # 2 of 4, and 2
    assert compaction.mend(out) == []


def test_while_a_sweep_runs_only_logs_of_trials_that_ended_well_go(sweep):
    out, trials, status = sweep
    status |= {trials[0].key: "failed", trials[1].key: "failed", trials[2].key: "failed"}
    compaction.compact(out, status, running=True)
    assert not list(folded.members(out / "metrics"))
    assert not list(folded.members(out / "logs"))  # seven are too few
    for seed in (50, 51):
        t = trial(seed)
        log(out, t, "begin")
        status[t.key] = "finished"
    compaction.compact(out, status, running=True)
    gone = {m.name.removesuffix(".jsonl") for m in folded.members(out / "logs")}
    assert len(gone) == 2 * SIZE and not gone & {t.key for t in trials[:3]}


def test_a_log_and_a_measurement_go_on_after_they_were_folded(sweep):
    out, trials, status = sweep
    compaction.compact(out, status, running=False)
    t = trials[0]
    log(out, t, "again")
    assert [e["event"] for e in logs.events(logs.text(out, t.key))] == ["begin", "seed 0", "again"]
    assert measure(out, t, 77.0).name == f"{t.key}.1.parquet"
    (value,) = {r["moment"] for r in ledger.load(out, {t.key}).to_pylist() if r["epoch"] == 2 and r["split"] == "test"}
    assert value == 77.0
    for other in trials[1:]:
        log(out, other, "again")
        measure(out, other, 77.0)
    before = everything(out, trials)
    compaction.compact(out, status, running=False)
    assert everything(out, trials) == before
    assert [e["event"] for e in logs.events(logs.text(out, t.key))] == ["begin", "seed 0", "again"]


def test_who_dies_before_the_files_go_leaves_every_line_once(sweep, monkeypatch):
    out, trials, status = sweep
    before = everything(out, trials)

    def die(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(files, "remove", die)
        for fold in (lambda: logs.fold(out, set(status), 1), lambda: measurements.fold(out, 1)):
            with pytest.raises(KeyboardInterrupt):
                fold()
    assert everything(out, trials) == before
    compaction.compact(out, status, running=False)
    assert everything(out, trials) == before


@pytest.mark.parametrize("folder", ["logs", "metrics"])
def test_a_damaged_zip_is_read_from_its_spare_and_made_again(sweep, folder):
    out, trials, status = sweep
    before = everything(out, trials)
    compaction.compact(out, status, running=False)
    zips = twice.found(out / folder, "folded-*.zip")
    sound = zips[0].read_bytes()
    zips[0].write_bytes(sound[:99] + bytes([sound[99] ^ 1]) + sound[100:])
    folded._open.cache_clear()
    assert everything(out, trials) == before
    assert compaction.mend(out) == [f"{zips[0]} is damaged: made again from {twice.spare(zips[0])}"]
    assert zips[0].read_bytes() == sound and compaction.mend(out) == []


def test_a_zip_that_is_damaged_twice_is_told_of_and_the_others_are_read(sweep):
    out, trials, status = sweep
    before = everything(out, trials)
    compaction.compact(out, status, running=False)
    (first, _) = twice.found(out / "metrics", "folded-*.zip")
    lost = {m.name[:16] for m in folded.members(out / "metrics") if m.zip == first}
    for copy in (first, twice.spare(first)):
        copy.write_bytes(copy.read_bytes()[:-9])
    folded._open.cache_clear()
    folded._names_of.cache_clear()
    (line,) = compaction.mend(out)
    assert line.startswith(f"{first} is damaged, and its spare: moved to") and "`distvae eval` measures again" in line
    now = everything(out, trials)
    assert now[1:] == before[1:]
    for row, was in zip(now[0], before[0], strict=True):
        assert row == ({**was, "moment": None} if was["trial_key"] in lost else was)
