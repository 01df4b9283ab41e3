"""plan.parquet, sweep.yaml, and the directory they go to."""

from __future__ import annotations

import os

import pyarrow as pa
import pytest

from distvae.config import ConfigError, load, loads
from distvae.sweeps import plan
from distvae.sweeps.plan import check_out, read_plan, trial_from_json, write_plan

TEXT = """\
name: p
vae: {prior: {grid: [{type: normal}, {type: binarized, r: {grid: [0, 0.5]}}]}, encoder: {type: mlp, hidden: [8, 4]}}
train: {clip_norm: {grid: [null, 1]}, epochs: 3}
seeds: 2
"""


def test_a_row_per_trial_with_every_knob_and_the_config_itself(tmp_path):
    study = loads(TEXT)
    written = write_plan(tmp_path, study)
    table = read_plan(tmp_path)
    assert table.equals(written) and table.schema.equals(written.schema, check_metadata=True)
    assert table.schema.metadata == {b"distvae.schema_version": b"1"}
    assert table.column_names[:9] == [
        "position", "trial_key", "config_key", "seed", "fusion_group", "epochs", "current", "config_json", "suggested",
    ]  # fmt: skip
    assert table.num_rows == len(study.trials) == 12
    assert table["position"].to_pylist() == list(range(12)) and table["current"].to_pylist() == [True] * 12
    for i, (row, trial) in enumerate(zip(table.to_pylist(), study.trials, strict=True)):
        assert (row["trial_key"], row["config_key"], row["seed"]) == (trial.key, trial.config_key, trial.seed), i
        assert (row["fusion_group"], row["epochs"]) == (trial.fusion_group, 3)
        assert trial_from_json(row["config_json"]) == trial and trial_from_json(row["config_json"]).key == trial.key
        for name, value in trial.flat().items():
            assert row[name] == ("[8, 4]" if name == "vae.encoder.hidden" else value), name
    assert set(table.column_names[9:]) == {n for t in study.trials for n in t.flat()} - {"seed"}


def test_column_types_are_explicit(tmp_path):
    schema = write_plan(tmp_path, loads(TEXT)).schema
    words = pa.dictionary(pa.int32(), pa.string())
    assert schema.field("vae.prior.r").type == pa.float64() and schema.field("train.epochs").type == pa.int64()
    assert schema.field("vae.encoder.hidden").type == words and schema.field("vae.decoder").type == words
    assert schema.field("config_key").type == words and schema.field("trial_key").type == pa.string()
    du = write_plan(tmp_path, loads("vae: {posterior: {grid: [{type: gaussian}, {type: du}]}}")).schema
    assert du.field("vae.posterior.fixed_gamma").type == pa.bool_()
    assert plan._column([1, 2.5, None]).to_pylist() == [1.0, 2.5, None]
    assert plan._column([True, 1, "x", [1, 2], None]).to_pylist() == ["true", "1", "x", "[1, 2]", None]
    assert plan._column([2**63, 0]).type == pa.float64()


def test_sweep_yaml_plans_the_same_trials(tmp_path):
    study = loads(TEXT, ["train.lr=0.5"])
    write_plan(tmp_path, study)
    again = load(tmp_path / "sweep.yaml")
    assert again.trials == study.trials and again.name == "p"
    assert sorted(os.listdir(tmp_path)) == ["plan.parquet", "sweep.yaml"]  # no temporary file stays


def test_an_edited_config_keeps_the_trials_that_have_rows(tmp_path):
    old = loads(TEXT)
    write_plan(tmp_path, old)
    new = loads(TEXT, ["train.clip_norm=1", "vae.posterior={type: du, gamma: 0.3}"])
    same = loads(TEXT, ["train.clip_norm=1"])
    keep = {old.trials[0].key, old.trials[11].key, "0" * 16}
    write_plan(tmp_path, new, keep=keep)
    table = read_plan(tmp_path).to_pylist()
    gone = [row for row in table if not row["current"]]
    assert [row["trial_key"] for row in table if row["current"]] == [t.key for t in new.trials]
    assert [row["trial_key"] for row in gone] == [old.trials[0].key, old.trials[11].key]
    assert [row["position"] for row in table] == list(range(len(new.trials) + 2))
    assert gone[0]["vae.posterior.type"] == "gaussian" and gone[0]["vae.posterior.gamma"] is None
    assert table[0]["vae.posterior.gamma"] == 0.3
    # a second edit: still kept, and current again when the config has it again
    write_plan(tmp_path, same, keep=keep)
    table = read_plan(tmp_path).to_pylist()
    assert {row["trial_key"] for row in table if not row["current"]} == {old.trials[0].key}
    assert len(table) == len(same.trials) + 1
    write_plan(tmp_path, same)
    assert read_plan(tmp_path).num_rows == len(same.trials)


def test_a_failed_write_leaves_the_old_plan(tmp_path, monkeypatch):
    write_plan(tmp_path, loads(TEXT))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plan.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_plan(tmp_path, loads("seeds: 3"))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_plan_that_is_missing_or_damaged_says_so(tmp_path):
    with pytest.raises(ConfigError, match="there is no plan yet"):
        read_plan(tmp_path)
    (tmp_path / "plan.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(ConfigError, match=r"cannot be read: .* \(delete it: the next run plans anew\)"):
        read_plan(tmp_path)


def test_out_is_a_directory_of_its_own(tmp_path):
    assert check_out(tmp_path) == tmp_path and check_out(f"{tmp_path}/new/er") == tmp_path / "new" / "er"
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for bad, why in [
        ("a\0b", "no NUL"),
        ("a\nb", "no NUL"),
        ("", "not the name of a directory"),
        (tmp_path / "file", "exists and is not a directory"),
        (tmp_path / "file" / "x", "Not a directory"),
        (tmp_path / "link", "is a symbolic link"),
        (f"{tmp_path}/link/", "is a symbolic link"),
        (tmp_path / "dangling", "is a symbolic link"),
        ("x" * 300, "File name too long"),
    ]:
        with pytest.raises(ConfigError, match=why) as e:
            check_out(bad)
        assert len(str(e.value).splitlines()) == 1
        with pytest.raises(ConfigError):
            write_plan(bad, loads("seeds: 1"))
    assert sorted(os.listdir(tmp_path)) == ["dangling", "file", "link"]
    (tmp_path / "points").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="points: is a symbolic link"):
        check_out(tmp_path)
