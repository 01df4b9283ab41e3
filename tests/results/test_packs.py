"""Packs change how rows lie on disk and nothing that is read; damage to one costs nothing, to both copies only its own trials."""

import os
import random
import threading
import time

import pytest
from ledgers import commit, finished, measured, trial

from distvae import files
from distvae.results import ledger, packs
from distvae.results.schema import SCHEMA
from distvae.store import twice
from distvae.store.errors import UnwrittenError

SIZE = 4
ROWS, SCAN, ENDS = 0, 2, 3  # of `everything`


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Packs of four, made when eight files lie side by side."""
    monkeypatch.setattr(packs, "SIZE", SIZE)
    monkeypatch.setattr(ledger, "MANY", 2 * SIZE)


def some(out, n=20, first=0):
    """Trials with one to three attempts, that failed, were stopped or extended, some with rows twice. Returns the trials."""
    draw, trials = random.Random(first), [trial(seed, beta=1.0 + seed % 3) for seed in range(first, first + n)]
    for t in trials:
        for attempt in range(draw.randint(1, 3)):
            status = draw.choice(["finished", "stopped", "diverged", "failed"])
            epochs = range(1, draw.randint(1, 4)) if status != "finished" else range(attempt, attempt + 3)
            seen = [measured(e, split, draw.random(), draw.random()) for e in epochs for split in ("test", "valid")]
            commit(out, t, seen if status != "failed" or attempt else [], status, attempt)
    return trials


def everything(out, trials):
    """All that can be read of a ledger."""
    ends = {(t.key, n): ledger.end(out, t.key, n) for t in trials for n in range(4)}
    histories = {t.key: ledger.history(out, t.key) for t in trials}
    tables = [ledger.load(out), ledger.load(out, {t.key for t in trials[::3]})]
    assert all(t.schema.equals(SCHEMA, check_metadata=True) for t in tables)
    return *(t.to_pylist() for t in tables), ledger.scan(out), ends, histories


def singles(out):
    return sorted(f.name for f in (out / "points").iterdir() if not f.name.startswith("pack-"))


def copies(out):
    (pack, *_) = packs.found(out)
    return pack, twice.spare(pack)


def test_nothing_that_is_read_changes(tmp_path):
    trials = some(tmp_path)
    before, files_before = everything(tmp_path, trials), len(singles(tmp_path))
    assert before[SCAN][1] == []
    gone = ledger.compact(tmp_path)
    assert gone == files_before - len(singles(tmp_path)) and gone % SIZE == 0 and len(singles(tmp_path)) < SIZE
    assert len(packs.found(tmp_path)) == gone // SIZE
    assert everything(tmp_path, trials) == before
    more = some(tmp_path, first=100)
    before = everything(tmp_path, trials + more)
    assert ledger.compact(tmp_path) > 0
    assert everything(tmp_path, trials + more) == before
    exported = ledger.export(tmp_path).read_bytes()
    assert ledger.compact(tmp_path) == 0 and ledger.export(tmp_path).read_bytes() == exported


def test_later_attempts_of_a_packed_trial_count(tmp_path):
    trials = [trial(seed, epochs=2) for seed in range(2 * SIZE)]
    for t in trials:
        commit(tmp_path, t, [measured(1, "test", 1.0, 1.0), measured(2, "test", 2.0, 2.0)], "failed")
    assert ledger.compact(tmp_path) == len(trials)
    t = trials[3]
    commit(tmp_path, t, [measured(2, "test", 9.0, 9.0), measured(3, "test", 3.0, 3.0)], "finished", 1)
    assert ledger.scan(tmp_path)[0][t.key] == ledger.Ended(t.key, "finished", 1, 3)
    history = ledger.history(tmp_path, t.key)
    assert history and (history.status, [r["rate_nats"] for r in history.rows]) == ("finished", [1.0, 2.0, 3.0])


def test_few_files_stay_and_so_do_those_of_trials_that_are_not_over(tmp_path):
    trials = [trial(seed) for seed in range(3 * SIZE)]
    for t in trials[: 2 * SIZE - 1]:
        finished(tmp_path, t, 1.0, 2.0)
    assert ledger.compact(tmp_path) == 0 and not packs.found(tmp_path)
    for t in trials[2 * SIZE - 1 :]:
        finished(tmp_path, t, 1.0, 2.0)
    over = {t.key for t in trials[: 2 * SIZE]}
    assert ledger.compact(tmp_path, over) == 2 * SIZE
    assert singles(tmp_path) == sorted(f"{t.key}.0.parquet" for t in trials[2 * SIZE :])


@pytest.fixture
def packed(tmp_path):
    """(OUT of eight packed trials, the trials, all that is read of them)."""
    trials = [trial(seed) for seed in range(2 * SIZE)]
    for t in trials:
        finished(tmp_path, t, 1.0 + t.seed, 2.0)
    before = everything(tmp_path, trials)
    assert ledger.compact(tmp_path) == len(trials)
    return tmp_path, trials, before


def wound(file, how):
    blob = file.read_bytes()
    if how == "flipped":
        file.write_bytes(blob[: len(blob) // 3] + bytes([blob[len(blob) // 3] ^ 1]) + blob[len(blob) // 3 + 1 :])
    elif how == "truncated":
        file.write_bytes(blob[:-50])
    elif how == "lost":
        file.unlink()
    elif how == "another's":
        others = [pack for pack in packs.found(file.parents[0].parent) if pack.name != file.name]
        file.write_bytes(others[0].read_bytes())
    else:
        elsewhere = file.parents[1] / "elsewhere.parquet"
        os.rename(file, elsewhere)
        file.symlink_to(elsewhere)


WOUNDS = ["flipped", "truncated", "lost", "another's", "symlink"]


@pytest.mark.parametrize("how", WOUNDS)
def test_a_damaged_pack_is_read_from_its_spare_and_made_again(packed, how):
    out, trials, before = packed
    pack, spare = copies(out)
    sound = pack.read_bytes()
    wound(pack, how)
    assert ledger.load(out).to_pylist() == before[ROWS]
    ended, told = ledger.scan(out, mend=False)
    assert ended == before[SCAN][0] and told == [f"{pack} is damaged: read from {spare}"]
    ended, told = ledger.scan(out)
    assert ended == before[SCAN][0] and told == [f"{pack} is damaged: made again from {spare}"]
    assert pack.read_bytes() == sound and not pack.is_symlink()
    if how != "lost":
        assert os.path.lexists(out / "quarantine" / pack.name)
    assert everything(out, trials) == before


@pytest.mark.parametrize("how", [w for w in WOUNDS if w != "another's"])
def test_a_damaged_spare_is_made_again(packed, how):
    out, trials, before = packed
    pack, spare = copies(out)
    wound(spare, how)
    assert everything(out, trials) == before
    assert spare.read_bytes() == pack.read_bytes() and not spare.is_symlink()


def test_every_flipped_byte_of_a_pack_is_noticed(packed):
    out, _, _ = packed
    pack, spare = copies(out)
    sound, refused = pack.read_bytes(), 0
    spare.unlink()
    for at in range(0, len(sound), 97):
        pack.write_bytes(sound[:at] + bytes([sound[at] ^ 0x55]) + sound[at + 1 :])
        found = packs.read(pack)
        refused += found is None
        pack.write_bytes(sound)
        assert found is None or found.equals(packs.read(pack)), at
    assert refused > len(sound) / 97 / 2


def test_only_the_trials_of_a_pack_that_is_damaged_twice_run_again(packed):
    out, trials, before = packed
    pack, spare = copies(out)
    lost = {r["trial_key"] for r in packs.read(pack).to_pylist()}
    assert len(lost) == SIZE
    wound(pack, "flipped")
    wound(spare, "truncated")
    ended, (line,) = ledger.scan(out, mend=False)
    assert set(ended) == {t.key for t in trials} - lost and "its trials are run again" in line
    ended, (line,) = ledger.scan(out)
    assert set(ended) == {t.key for t in trials} - lost
    assert line == f"{pack} is damaged, and its spare: moved to {out / 'quarantine'}; its trials are run again"
    assert {f.name for f in (out / "quarantine").iterdir()} == {pack.name, f"spare-{pack.name}"}
    for t in trials:
        if t.key in lost:
            finished(out, t, 1.0 + t.seed, 2.0)
    assert everything(out, trials) == before


def test_who_dies_between_packing_and_removing_leaves_rows_that_are_read_once(tmp_path, monkeypatch):
    trials = some(tmp_path)
    before = everything(tmp_path, trials)

    def die(out, singles):
        if singles:
            raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(packs, "drop", die)
        with pytest.raises(KeyboardInterrupt):
            ledger.compact(tmp_path)
    assert packs.found(tmp_path) and everything(tmp_path, trials) == before
    ledger.compact(tmp_path)
    assert everything(tmp_path, trials) == before
    packed = sum(len(packs.rowfile.attempts(packs.read(pack))) for pack in packs.found(tmp_path))
    assert packed + len(singles(tmp_path)) == sum(end is not None for end in before[ENDS].values())


def test_what_a_dead_man_commits_again_does_not_count(packed):
    """An attempt that is packed, committed once more by a process that everybody took for dead."""
    out, trials, before = packed
    commit(out, trials[0], [measured(1, "test", 99.0, 99.0), measured(5, "valid", 9.0, 9.0)], "stopped")
    assert ledger.scan(out)[0][trials[0].key].status == "finished"
    kept = [r for r in ledger.load(out).to_pylist() if r["trial_key"] == trials[0].key and r["epoch"] <= 2]
    assert kept == [r for r in before[ROWS] if r["trial_key"] == trials[0].key]


def test_a_place_that_is_full_loses_nothing(tmp_path, monkeypatch):
    trials = some(tmp_path)
    before, there = everything(tmp_path, trials), singles(tmp_path)

    def full(path):
        raise UnwrittenError(28, f"{path}: no space")

    with monkeypatch.context() as m:
        m.setattr(files, "replacing", full)
        with pytest.raises(UnwrittenError):
            ledger.compact(tmp_path)
    assert singles(tmp_path) == there and everything(tmp_path, trials) == before


def test_what_is_written_wrong_is_noticed_before_a_file_goes(tmp_path, monkeypatch):
    trials = some(tmp_path)
    before, there = everything(tmp_path, trials), singles(tmp_path)
    with monkeypatch.context() as m:
        m.setattr(twice, "_bytes", lambda file: b"another disk's")
        with pytest.raises(OSError, match="not what is read back"):
            ledger.compact(tmp_path)
    assert singles(tmp_path) == there and everything(tmp_path, trials) == before


def test_a_reader_misses_nothing_while_files_move(tmp_path):
    trials = [trial(seed) for seed in range(60)]
    for t in trials[:40]:
        finished(tmp_path, t, 1.0, 2.0)
    expected, wrong, over, looks = {t.key for t in trials[:40]}, [], threading.Event(), 0

    def read():
        nonlocal looks
        while not over.is_set():
            looks += 1
            table = ledger.load(tmp_path)
            ended, told = ledger.scan(tmp_path, mend=False)
            missing = expected - set(table["trial_key"].to_pylist()) | expected - set(ended)
            rows = table.group_by(["trial_key", "epoch", "split", "point"]).aggregate([([], "count_all")])
            if missing or told or set(rows["count_all"].to_pylist()) != {1}:
                wrong.append((missing, told))

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(40, 60):
        finished(tmp_path, trials[i], 1.0, 2.0)
        ledger.compact(tmp_path)
        time.sleep(0.05)
    over.set()
    reader.join()
    assert not wrong and looks > 3 and len(packs.found(tmp_path)) > 5


def test_a_reader_that_has_listed_what_then_moves_finds_it(packed, tmp_path):
    out, trials, _ = packed
    more = [trial(seed) for seed in range(100, 100 + 2 * SIZE)]
    for t in more:
        finished(out, t, 1.0, 2.0)
    reading = ledger._files(out)
    seen = [next(reading)[1]]
    assert ledger.compact(out) == len(more)
    seen += [table for _, table in reading]
    assert {key for table in seen for key, _ in packs.rowfile.attempts(table)} == {t.key for t in trials + more}
