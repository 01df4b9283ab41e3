"""The ledger against damage, retries and a full disk. Nothing is read in silence that was not written."""

import os
import resource
import struct
import subprocess
import sys

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from ledgers import commit, finished, measured, table, trial

from distvae.results import ledger
from distvae.results.schema import SCHEMA


def test_what_is_committed_comes_back(tmp_path):
    t = trial()
    path = commit(tmp_path, t, [measured(1, "valid", 2.0, 3.0), measured(1, "test", 2.5, 3.5)])
    assert path == tmp_path / "points" / f"{t.key}.0.parquet"
    back = ledger.load(tmp_path)
    assert back.schema.equals(SCHEMA, check_metadata=True)
    test, valid = back.to_pylist()  # ordered by split
    assert (valid["split"], valid["rate_nats"], valid["elbo_nats"]) == ("valid", 2.0, -5.0)
    assert (test["split"], test["trial_key"], test["config_key"]) == ("test", t.key, t.config_key)
    assert (test["beta"], test["r"], test["latent_dim"], test["gamma"]) == (1.0, 0.0, 2, None)
    assert test["iw_nll_nats"] is None and test["mi_nats"] is None  # not measured, not printed
    assert not list((tmp_path / "points").glob(".*"))


def test_the_file_says_its_units_schema_and_checksums(tmp_path):
    path = commit(tmp_path, trial(), [measured(1, "test", 2.0, 3.0)])
    metadata = pq.read_schema(path).metadata
    assert metadata[b"distvae.schema_version"] == b"1"
    assert b'"rate_nats": "nats/example"' in metadata[b"distvae.units"]
    assert pq.read_schema(path).field("trial_key").type == pa.dictionary(pa.int32(), pa.string())


def test_every_metric_that_is_not_finite_is_null(tmp_path):
    commit(tmp_path, trial(), [measured(1, "test", float("nan"), float("inf"), elbo_nats=float("-inf"))], "diverged")
    (row,) = ledger.load(tmp_path).to_pylist()
    assert row["rate_nats"] is row["distortion_nats"] is row["elbo_nats"] is None and row["status"] == "diverged"


def test_committing_twice_changes_nothing(tmp_path):
    path = commit(tmp_path, trial(), [measured(1, "test", 2.0, 3.0)])
    before = path.read_bytes()
    commit(tmp_path, trial(), [measured(1, "test", 99.0, 3.0)])
    assert path.read_bytes() == before


@pytest.mark.parametrize("stride", [31, pytest.param(7, marks=pytest.mark.slow)])
def test_every_flipped_byte_of_the_data_is_noticed(tmp_path, stride):
    """Every 31st byte in turn, or every 7th: either the file is refused, or what it says is what was written (the byte carried
    nothing)."""
    path = commit(tmp_path, trial(), [measured(e, "test", 2.0 + e, 3.0) for e in (1, 2)])
    sound, truth = path.read_bytes(), ledger.load(tmp_path)
    refused = 0
    for at in range(0, len(sound), stride):
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 0x55]) + sound[at + 1 :])
        found = ledger._read(path)
        refused += found is None
        assert found is None or found.cast(SCHEMA).sort_by("epoch").equals(truth), at
    assert refused > len(sound) / stride / 2
    path.write_bytes(sound[: len(sound) // 2])
    assert ledger._read(path) is None


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "foreign schema", "misnamed", "symlink"])
def test_a_damaged_file_is_set_aside_and_its_trial_runs_again(tmp_path, damage):
    good, bad = trial(0), trial(1)
    finished(tmp_path, good, 1.0, 2.0)
    path = finished(tmp_path, bad, 1.2109375, 2.0)
    blob = path.read_bytes()
    if damage == "flipped":
        at = blob.index(struct.pack("<d", 1.2109375))  # the rate itself
        path.write_bytes(blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :])
    elif damage == "truncated":
        path.write_bytes(blob[:-100])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "foreign schema":
        pq.write_table(pa.table({"trial_key": [bad.key], "attempt": [0]}), path)
    elif damage == "misnamed":
        path.write_bytes((tmp_path / "points" / f"{good.key}.0.parquet").read_bytes())
    else:
        os.rename(path, tmp_path / "elsewhere.parquet")
        path.symlink_to(tmp_path / "elsewhere.parquet")
    looked, told = ledger.scan(tmp_path, mend=False)
    assert set(looked) == {good.key} and len(told) == 1 and path.is_symlink() | path.exists()
    ended, damaged = ledger.scan(tmp_path)
    assert set(ended) == {good.key}
    assert damaged == [f"{path} is damaged: moved to {tmp_path / 'quarantine'}, its trial is run again"]
    assert os.path.lexists(tmp_path / "quarantine" / path.name) and not os.path.lexists(path)
    assert set(ledger.load(tmp_path)["trial_key"].to_pylist()) == {good.key}
    finished(tmp_path, bad, 1.0, 2.0)
    assert set(ledger.scan(tmp_path)[0]) == {good.key, bad.key}


def test_a_strangers_file_is_not_deleted(tmp_path):
    finished(tmp_path, trial(), 1.0, 2.0)
    (tmp_path / "points" / "notes.txt").write_text("mine")
    ledger.scan(tmp_path)
    assert (tmp_path / "quarantine" / "notes.txt").read_text() == "mine"


def test_attempts_merge_and_a_row_belongs_to_the_first_that_committed_it(tmp_path):
    t = trial(epochs=3)
    commit(tmp_path, t, [measured(1, "test", 1.0, 1.0), measured(2, "test", 2.0, 2.0)], "finished", 0)
    commit(tmp_path, t, [measured(2, "test", 9.0, 9.0), measured(3, "test", 3.0, 3.0)], "finished", 1)
    rows = ledger.load(tmp_path).to_pylist()
    assert [(r["epoch"], r["attempt"], r["rate_nats"]) for r in rows] == [(1, 0, 1.0), (2, 0, 2.0), (3, 1, 3.0)]
    ended = ledger.scan(tmp_path)[0][t.key]
    assert (ended.status, ended.attempt, ended.epoch) == ("finished", 1, 3)


def test_the_null_row_of_a_failed_attempt_goes_once_there_are_numbers(tmp_path):
    t = trial()
    commit(tmp_path, t, [], "failed", 0)
    (row,) = ledger.load(tmp_path).to_pylist()
    assert (row["status"], row["n_examples"], row["rate_nats"]) == ("failed", 0, None)
    commit(tmp_path, t, [measured(1, "test", 1.0, 1.0)], "finished", 1)
    (row,) = ledger.load(tmp_path).to_pylist()
    assert (row["status"], row["rate_nats"]) == ("finished", 1.0)


def test_an_empty_or_absent_ledger_is_an_empty_table(tmp_path):
    assert ledger.load(tmp_path).schema.equals(SCHEMA) and len(ledger.load(tmp_path)) == 0
    assert ledger.scan(tmp_path) == ({}, [])


def test_export_is_the_ledger_in_both_formats(tmp_path):
    for seed in range(3):
        finished(tmp_path, trial(seed), 1.0 + seed, 2.0)
    curve = pq.read_table(ledger.export(tmp_path))
    assert curve.equals(ledger.load(tmp_path)) and curve.schema.metadata[b"distvae.schema_version"] == b"1"
    plain = pyarrow.csv.read_csv(ledger.export(tmp_path, "csv"))
    assert plain.column_names == SCHEMA.names and plain["rate_nats"].to_pylist() == curve["rate_nats"].to_pylist()
    elsewhere = ledger.export(tmp_path, "csv", tmp_path / "mine.csv")
    assert elsewhere.read_text() == (tmp_path / "rd_curve.csv").read_text()


def test_a_directory_called_like_a_partition_is_only_a_name(tmp_path):
    out = tmp_path / "beta=7"
    finished(out, trial(beta=2.0), 1.0, 2.0)
    assert set(ledger.load(out)["beta"].to_pylist()) == {2.0}


FULL = """
import resource, sys, signal
from pathlib import Path
sys.path.insert(0, {here!r})
from ledgers import finished, trial
finished(Path({out!r}), trial(0), 1.0, 2.0)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    finished(Path({out!r}), trial(1), 1.0, 2.0)
except OSError as e:
    print("refused", e.errno)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no file size limits here")
def test_a_write_that_does_not_fit_leaves_nothing_behind(tmp_path):
    """A full disk, as a limit on the size of files: the write fails in the middle."""
    code = FULL.format(here=os.path.dirname(__file__), out=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("refused"), done.stderr
    assert os.listdir(tmp_path / "points") == [f"{trial(0).key}.0.parquet"]
    assert set(ledger.scan(tmp_path)[0]) == {trial(0).key}


def test_temporary_files_of_a_dead_writer_go(tmp_path):
    finished(tmp_path, trial(), 1.0, 2.0)
    (tmp_path / "points" / ".0123456789abcdef.0.parquet.99.tmp").write_bytes(b"half")
    assert len(ledger.load(tmp_path)) == 4
    ledger.scan(tmp_path)
    assert len(os.listdir(tmp_path / "points")) == 1


def test_one_file_holds_one_attempt(tmp_path):
    both = pa.concat_tables([table(trial(s), [measured(1, "test", 1.0, 1.0)]) for s in (0, 1)])
    with pytest.raises(ValueError):
        ledger.commit(tmp_path, both)


def test_rows_written_before_a_column_existed_are_read_with_it_null(tmp_path):
    path = commit(tmp_path, trial(), [measured(1, "test", 1.0, 2.0)])
    table = pq.read_table(path, partitioning=None)
    pq.write_table(table.drop_columns(["conditioning", "gradient_variance"]), path, write_page_checksum=True)
    ended, damaged = ledger.scan(tmp_path)
    assert list(ended) == [trial().key] and not damaged
    (row,) = ledger.load(tmp_path).to_pylist()
    assert row["conditioning"] is None and row["rate_nats"] == 1.0
    pq.write_table(table.rename_columns([c + "x" if c == "point" else c for c in table.column_names]), path)
    assert len(ledger.scan(tmp_path, mend=False)[1]) == 1  # not an older one: damaged
