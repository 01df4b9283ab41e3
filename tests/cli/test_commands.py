"""Commands below Ray: what they print, their exit codes, and bad input of every kind."""

import csv
import gzip
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pyarrow.parquet as pq
import pytest
from commands import command
from ruamel.yaml import YAML

from distvae.cli import app
from distvae.config import load, loads
from distvae.objectives import Elbo
from distvae.priors import Binarized
from distvae.results import ledger, rows
from distvae.sweeps.plan import write_plan

CONFIGS = sorted((Path(__file__).parents[2] / "tune_configs").glob("*.yaml"))
QUICKSTART = next(p for p in CONFIGS if p.stem == "quickstart")
COMMANDS = sorted(c.name or c.callback.__name__ for c in app.registered_commands)


def test_help_is_quick_and_imports_nothing_heavy():
    code = (
        "import sys, time; sys.argv = ['distvae', '--help']; t = time.perf_counter()\n"
        "from distvae.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'mlflow', 'deepspeed', 'numpy', 'pyarrow', 'matplotlib'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy), 'SECONDS', time.perf_counter() - t)\n"
    )
    done = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60) for _ in range(3)]
    assert all("HEAVY [] SECONDS" in d.stdout for d in done), done[0].stdout + done[0].stderr
    assert min(float(d.stdout.split()[-1]) for d in done) < 1.0
    assert all(name in done[0].stdout for name in COMMANDS)


def test_the_commands_of_the_design_are_all_there():
    named = ["plan", "sweep", "status", "export", "plot", "ui", "sync", "eval", "parts", "doctor", "schema", "bench"]
    named += ["compare", "report"]
    assert set(named) <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(capsys, name):
    done = command(capsys, name, "--help")
    assert done.code == 0 and "Usage: distvae" in done.out


def test_parts_lists_every_part_with_knobs_ranges_and_source(capsys):
    shown, listed = command(capsys, "parts").out, json.loads(command(capsys, "parts", "--json").out)
    by_type = {(e["family"], e["type"]): e for e in listed}
    for family, types in {
        "data": "digits mnist fashion_mnist gaussian",
        "vae.encoder / vae.decoder": "mlp",
        "vae.posterior": "gaussian du",
        "vae.prior": "normal binarized",
        "vae.likelihood": "bernoulli gaussian continuous_bernoulli student_t logistic_mixture categorical_256 "
        "bitwise_categorical",
        "objective": "elbo capacity",
        "schedules (warm-up, ramp)": "constant linear cyclic",
    }.items():
        for name in types.split():
            entry = by_type[family, name]
            assert name in shown and entry["doc"] and entry["module"] in shown.replace("\n", "")
    (p_keep,) = [k for k in by_type["vae.posterior", "du"]["knobs"] if k["name"] == "p_keep"]
    assert p_keep["range"] == "(0, 1]" and "probability of KEEPING a variance" in shown
    assert all(k["doc"] for e in listed for k in e["knobs"]), "every knob is explained"


def test_the_schema_accepts_our_configs_and_not_a_typo(capsys):
    schema = json.loads(command(capsys, "schema").out)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for path in CONFIGS:
        data = YAML(typ="safe").load(path)
        assert not list(validator.iter_errors(data)), path
        data.setdefault("vae", {})["latent_dims"] = 3
        assert list(validator.iter_errors(data)), path


def test_doctor_says_what_works_and_what_to_do(capsys):
    done = command(capsys, "doctor", "--json")
    checks = {c["name"]: c for c in json.loads(done.out)}
    assert {"python", "torch", "ray", "deepspeed", "mlflow", "cuda", "philox", "disk", "loopback port"} <= set(checks)
    assert done.code == (0 if all(c["ok"] for c in checks.values() if c["needed"]) else 4)
    assert all(bool(c["remedy"]) != c["ok"] for c in checks.values())
    assert all(name in command(capsys, "doctor").err for name in checks)


def test_plan_counts_the_quickstart(capsys):
    view = json.loads(command(capsys, "plan", QUICKSTART, "--json", "--no-probe").out)
    assert view["trials"] >= 48 and view["trials"] == view["configurations"] * len(view["seeds"])
    assert len(view["seeds"]) >= 2 and view["duplicates_removed"] == 0
    axes = "vae.latent_dim vae.prior.r objective.beta vae.posterior.gamma vae.posterior.p_keep"
    assert set(axes.split()) <= set(view["axes"])
    assert sum(g["trials"] for g in view["groups"]) == view["trials"]


def test_plan_says_which_trials_train_together_and_why_others_do_not(capsys):
    plain = command(capsys, "plan", QUICKSTART, "--no-probe").err
    groups = json.loads(command(capsys, "plan", QUICKSTART, "--no-probe", "--json").out)["groups"]
    sizes = sorted(g["trials"] for g in groups)
    assert f"{len(groups)} groups of {sizes[0]} to {sizes[-1]} trials" in plain and "stacked" in plain
    assert len({key for g in groups for key in g["keys"]}) == 144 and all(g["stacked"] for g in groups)
    off = command(capsys, "plan", QUICKSTART, "--no-probe", "--set", "resources.fuse=off").err
    assert "144 groups of one trial" in off and "not stacked: resources.fuse: off" in off


def test_halving_wants_a_valid_split(capsys, tmp_path):
    config = tmp_path / "h.yaml"
    config.write_text("data: {type: npz, name: x, path: x.npz, valid: 0}\nsearch: {scheduler: {type: halving}}\n")
    np.savez(tmp_path / "x.npz", images=np.full((20, 4, 4), 200, np.uint8))
    done = command(capsys, "plan", config, "--no-probe", "--set", f"data.path={tmp_path / 'x.npz'}")
    assert done.code == 2 and "halving ranks on the valid split, and the" in done.err.replace("\n", " ")


def test_plan_knows_what_is_done(capsys, out):
    config, folder = out
    plain = command(capsys, "plan", config, "--out", folder, "--no-probe")
    assert plain.code == 0 and "4 trials = 2 configurations x 2 seeds" in plain.err
    assert "2 ended already, 2 left" in plain.err and "about" not in plain.err


def test_duplicates_are_removed_and_counted(capsys, tmp_path):
    config = tmp_path / "twice.yaml"
    config.write_text("objective: {type: elbo, beta: {grid: [1.0, 1, 2]}}\n")
    view = json.loads(command(capsys, "plan", config, "--json", "--no-probe").out)
    assert (view["trials"], view["duplicates_removed"]) == (2, 1)


TEXT = """\
name: s
vae: {latent_dim: 2, prior: {type: binarized, r: {grid: [0, 0.5]}}}
train: {epochs: 2}
seeds: 2
"""


@pytest.fixture
def out(tmp_path):
    """(config, OUT): 4 trials planned, one finished, one failed, one diverged and run, one to run."""
    config, folder = tmp_path / "s.yaml", tmp_path / "out"
    config.write_text(TEXT)
    study = load(config)
    write_plan(folder, study)
    for trial, status in zip(study.trials, ("finished", "failed", "diverged"), strict=False):
        passes = [
            {"split": s, "n_examples": 9, "epoch": 2, "step": 24, "point": 0, "measure": "binary",
             "rate_nats": 2.0, "distortion_nats": 8.0, "elbo_nats": -10.0, "objective": 10.0, "wall_s": 1.0}
            for s in ("valid", "test")
        ]  # fmt: skip
        table = rows.table(
            trial, passes if status == "finished" else [], sweep="s", status=status, attempt=0, device="cpu", git_sha=""
        )
        ledger.commit(folder, table)
    return config, folder


def test_status_counts_names_failures_and_shows_the_best(capsys, out):
    _, folder = out
    view = json.loads(command(capsys, "status", folder, "--json").out)
    assert view["planned"] == 4
    assert view["counts"] == {"finished": 1, "failed": 1, "diverged": 1, "to run": 1}
    ((key, log),) = view["failed"].items()
    assert log == str(folder / "logs" / f"{key}.jsonl")
    assert view["best"][0]["elbo_nats"]["mean"] == -10.0
    shown = command(capsys, "status", folder).err
    assert "4 trials planned: 1 diverged, 1 failed, 1 finished, 1 to run" in shown and key in shown
    assert "best by valid bound (digits, binary): r=0" in shown


def test_export_and_plot_print_the_paths_they_wrote(capsys, out):
    _, folder = out
    assert command(capsys, "export", folder).out == f"{folder / 'rd_curve.parquet'}\n"
    assert len(pq.read_table(folder / "rd_curve.parquet")) == 4
    assert command(capsys, "export", folder, "--format", "csv", "--to", folder / "c.csv").out == f"{folder / 'c.csv'}\n"
    with open(folder / "c.csv") as f:
        assert [r["status"] for r in csv.DictReader(f)].count("finished") == 2
    paths = command(capsys, "plot", folder).out.splitlines()
    assert paths == [str(folder / "plots" / "rd.png")]  # of one trial there is no heat map, of one epoch no curve
    assert all(Path(p).read_bytes().startswith(b"\x89PNG") for p in paths)


def test_sync_brings_the_ledger_to_mlflow(capsys, out):
    _, folder = out
    view = json.loads(command(capsys, "sync", folder, "--json").out)
    assert view["trials"] == 3 and view["metrics"] == 2 * 4
    assert view["pictures"] == 0
    assert "MLflow has 3 trials, 8 metric points and 0 pictures" in command(capsys, "sync", folder).err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["export", "{out}", "--format", "xls"], "--format: 'xls' is not one of parquet, csv"),
        (["plot", "{out}", "--kind", "pie"], "--kind: 'pie' is not one of rd, heat, parallel"),
        (["plot", "{out}", "--kind", "heat", "--x", "z"], "'z' has no value here; it is one of r, beta"),
        (["plot", "{out}", "--kind", "rd", "--split", "train"], "no finished trial has a valid bound on the train split"),
        (["status", "{out}/nowhere"], "holds no sweep (no plan.parquet, no points/)"),
        (["ui", "{out}/nowhere"], "holds no sweep"),
        (["export", "{out}/../s.yaml"], "exists and is not a directory"),
        (["bench", "speed"], "bench: 'speed' is not one of early_stopping, kl, kl_gpu, overhead"),
    ],
)  # fmt: skip
def test_bad_options_exit_2_and_say_what_is_allowed(capsys, out, args, said):
    done = command(capsys, *(a.format(out=out[1]) for a in args))
    assert done.code == 2 and said in done.err.replace("\n", ""), done.err


def test_ui_without_a_store_says_how_to_make_one(capsys, out):
    done = command(capsys, "ui", out[1])
    assert done.code == 2 and f"`distvae sync {out[1]}` makes it from the ledger" in done.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("vae: {latent_dims: 3}\n", "bad.yaml:1:7: vae.latent_dims: "),
        ("vae: {prior: {type: binarised}}\n", "- did you mean 'binarized'?"),
        ("train: {lr: -1}\n", "bad.yaml:1:13: train.lr: -1 is not above 0.0 (learning rate)"),
        ("train: {lr: .nan}\n", "bad.yaml:1:13: train.lr: "),
        ("seeds: 2\nseeds: 3\n", "bad.yaml:2:1: seeds: "),
        ("vae: {latent_dim: [\n", "bad.yaml:2:1: "),
        ("objective: {type: elbo, beta: {grid: []}}\n", "bad.yaml:1:38: objective.beta"),
        ("name: ../../etc\n", "bad.yaml:1:7: name: "),
        ("", "bad.yaml:1:1: file: is empty"),
        (f"seeds: 1000000\ntrain: {{lr: {{grid: {[i + 1 for i in range(1000)]}}}}}\n", "trials"),
        ("data: {type: mnist, root: nowhere/at/all}\n", "nowhere/at/all/MNIST/raw: "),
        ("data: {type: mnist, root: short}\n", "short/MNIST/raw/train-images-idx3-ubyte"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["plan", "sweep"])
def test_bad_configs_exit_2_with_their_place(capsys, tmp_path, monkeypatch, name, text, said):
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text(text)
    raw = Path("short/MNIST/raw")
    raw.mkdir(parents=True)
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{part}-ubyte").write_bytes(struct.pack(">I", 77) + bytes(100))
    done = command(capsys, name, "bad.yaml", *(["--out", "out"] if name == "sweep" else []))
    assert done.code == 2 and said in done.err.replace("\n", ""), done.err
    assert not os.path.exists("out"), "refused before anything was made"


def test_a_config_that_is_not_there(capsys):
    done = command(capsys, "plan", "no.yaml")
    assert done.code == 2 and "no.yaml" in done.err


@pytest.mark.parametrize("item", ["vae.latent_dim", "vae.latent_dim=", "vae.latent_dims=3", "=3", "objective.beta=x"])
def test_bad_overrides_exit_2(capsys, item):
    done = command(capsys, "plan", QUICKSTART, "--no-probe", "--set", item)
    assert done.code == 2 and "--set" in done.err, done.err


def test_a_corrupt_gz_exits_2(capsys, tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{part}-ubyte.gz").write_bytes(gzip.compress(b"not mnist"))
    config = tmp_path / "m.yaml"
    config.write_text(f"data: {{type: mnist, root: {tmp_path}}}\n")
    done = command(capsys, "plan", config, "--no-probe")
    assert done.code == 2 and "train-images-idx3-ubyte.gz" in done.err.replace("\n", "")


def test_overrides_reach_the_trials():
    study = loads(TEXT, ["objective={type: elbo, beta: 3}", "vae.prior.r=0.25", "seeds=1"])
    (trial,) = study.trials
    assert trial.objective == Elbo(beta=3.0) and trial.vae.prior == Binarized(r=0.25)


TRIALS = {
    "quickstart": 144,
    "binarized_table1": 35,
    "binarized_table1_d2": 14,
    "binarized_heatmaps": 50,
    "beta_sigma": 30,
    "beta_input": 21,
    "discrete": 16,
    "collapse": 60,
    "linear_exact": 5,
    "zoo": 472,
    "search_optuna": 120,
    "one_gpu": 360,
    "eight_gpus": 96,
}  # of every shipped config


def test_every_shipped_config_is_counted():
    assert {p.stem for p in CONFIGS} == TRIALS.keys()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_a_shipped_config_loads_plans_and_says_target_cost_and_command(capsys, path):
    head = path.read_text().split("name:")[0]
    assert all(word in head for word in ("Target", "Cost", "Command: distvae sweep tune_configs/"))
    done = command(capsys, "plan", path, "--no-probe", "--json")
    assert done.code == 0 and json.loads(done.out)["trials"] == TRIALS[path.stem]
