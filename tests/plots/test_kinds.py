"""The kinds by name, `distvae plot`, and the pictures at a sweep's end, which may go wrong without harm."""

import json
import subprocess
import sys
from dataclasses import fields, replace

import pytest
from commands import command
from ledgers import commit, finished, measured, trial
from matplotlib.image import imread
from rich.console import Console

from distvae import plots
from distvae.config import loads
from distvae.plots import FILES, KINDS, Options
from distvae.plots.kind import Kind, NothingToPlotError
from distvae.results import finish, tracking
from distvae.sweeps.outcome import Outcome
from distvae.sweeps.plan import write_plan

SWEEP = ["rd", "heat", "parallel", "training"]


@pytest.fixture
def out(tmp_path):
    for beta in (0.5, 1.0):
        for r in (0.0, 0.5):
            finished(tmp_path, trial(0, beta, r), 2.0 / beta, 10.0 + beta - r)
    return tmp_path


def test_every_kind_is_found_by_its_name_and_reads_options_that_exist():
    assert list(KINDS) == list(FILES) and len(KINDS) == len(FILES)
    assert {name: kind.name for name, kind in KINDS.items()} == {name: name for name in FILES}
    assert [name for name, kind in KINDS.items() if kind.of == "sweep"] == SWEEP
    options = {f.name for f in fields(Options)}
    assert {option for kind in KINDS.values() for option in kind.reads} == options
    assert "pie" not in KINDS


def test_of_all_a_trial_or_a_sampler_that_is_named_chooses_the_kinds_that_read_it():
    assert {k.of for k in plots.chosen(["all"], ["trial", "seed"])} == {"trial"}
    assert [k.name for k in plots.chosen(["all"], ["n", "sampler"])] == ["samples"]
    assert [k.name for k in plots.chosen(["rd", "all"], ["color"])] == list(FILES)


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nsys.argv = ['distvae', 'plot', '--help']\nfrom distvae.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'matplotlib', 'pyarrow', 'numpy', 'mlflow'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in FILES)


def test_all_draws_what_has_something_to_show_and_says_why_not(capsys, out):
    view = json.loads(command(capsys, "plot", out, "--json").out)
    assert view["pictures"] == {name: [str(out / "plots" / f"{name}.png")] for name in SWEEP}
    for name in SWEEP:
        pixels = imread(out / "plots" / f"{name}.png")
        assert pixels.shape[0] > 500 and pixels[..., :3].std() > 0.05
    one = out / "one"
    finished(one, trial(0), 1.0, 2.0)
    done = command(capsys, "plot", one)
    assert done.code == 0 and done.out.splitlines() == [str(one / "plots" / f"{n}.png") for n in ("rd", "training")]
    said = done.err.replace("\n", "")
    assert "no heat: " in said and "no parallel: " in said and "there is only one" in said


def test_kinds_by_name(capsys, out):
    done = command(capsys, "plot", out, "--kind", "heat,rd", "--kind", "training", "--color", "r")
    assert done.out.splitlines() == [str(out / "plots" / f"{n}.png") for n in ("heat", "rd", "training")]
    assert done.err == ""  # a ledger without a sweep has no MLflow


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--kind", "paralel"], "--kind: 'paralel' is not one of rd, heat, parallel, training"),
        (["--kind", "paralel"], "did you mean 'parallel'?"),
        (["--kind", "rd", "--x", "beta"], "--x: rd does not read it, only heat (add --kind heat)"),
        (["--kind", "rd,training", "--x", "beta"], "--x: rd and training do not read it, only heat"),
        (["--kind", "heat", "--value", "elbo"], "--value: 'elbo' is not one of"),
        (["--kind", "heat", "--value", "iw_nll_nats"], "iw_nll_nats was not measured on the test split"),
        (["--color", "nothing"], "--color: 'nothing' has no value here"),
        (["--split", "train", "--kind", "rd"], "no finished trial has a valid bound on the train split"),
    ],
)
def test_what_cannot_be_drawn_exits_2(capsys, out, args, said):
    done = command(capsys, "plot", out, *args)
    assert done.code == 2 and said in done.err.replace("\n", ""), done.err
    assert done.out == ""


def test_nothing_at_all_to_show_is_an_error_with_the_reasons(capsys, tmp_path):
    commit(tmp_path, trial(0), [measured(1, "test", 1.0, 1.0)], "diverged")
    done = command(capsys, "plot", tmp_path)
    said = done.err.replace("\n", "")
    assert done.code == 2 and "no rd, heat, parallel" in said and "(1 diverged)" in said and "no training" in said


def test_a_picture_is_read_from_the_ledger_as_it_is(out):
    before = plots.sweep.read(out)
    assert plots.sweep.read(out) is before  # read once for all kinds
    finished(out, trial(0, 9.0), 2.0, 3.0)
    assert len(plots.sweep.read(out).panels("test")["digits", "binary"]) == 5


@pytest.fixture
def swept(out):
    """(study, outcome) of a sweep that has just ended in `out`."""
    study = loads("name: s\nvae: {latent_dim: 2, prior: {type: binarized, r: 0}}\ntrain: {epochs: 2}\n")
    write_plan(out, study)
    return study, Outcome(out, 4, {t.key: "finished" for t in study.trials} | {"x": "finished"})


def said_at_the_end(swept, capsys):
    study, outcome = swept
    finish.finish(outcome, Console(stderr=True, width=1000, soft_wrap=True), study)
    return capsys.readouterr().err


def test_a_sweep_ends_with_its_pictures_and_mlflow_is_given_them_unless_it_was_away(swept, out, capsys, monkeypatch):
    """That MLflow has them: test_tracking.py; after a real sweep: test_sweep.py."""
    given = []

    class Store:
        def __init__(self, uri, out, sweep, resolved, *, trials):
            self.told = (uri, out, sweep, trials)

        def pictures(self, paths):
            given.append((self.told, [p.name for p in paths]))

    monkeypatch.setattr(tracking, "Store", Store)
    said = said_at_the_end(swept, capsys)
    assert f"pictures  {', '.join(str(out / 'plots' / f'{n}.png') for n in SWEEP)}\n" in said
    assert given == [((None, out, "s", False), [f"{n}.png" for n in SWEEP])]  # it looks for no trials' runs
    swept[1].tracked = False
    said_at_the_end(swept, capsys)
    assert len(given) == 1


def test_a_picture_that_goes_wrong_is_a_line_and_no_error(swept, out, capsys, monkeypatch):
    def broken(*args, **how):
        raise RuntimeError("no fonts")

    def empty(*args):
        raise NothingToPlotError("nothing")

    kinds = dict(KINDS)
    kinds |= {n: replace(kinds[n], draw=f) for n, f in (("rd", broken), ("heat", empty))}
    monkeypatch.setattr(finish, "KINDS", kinds)
    monkeypatch.setattr(tracking, "Store", broken)
    said = said_at_the_end(swept, capsys)
    assert f"no picture rd: RuntimeError: no fonts; `distvae plot {out} --kind rd` tries again\n" in said
    assert "no picture heat" not in said and f"{out / 'plots' / 'training.png'}" in said
    assert f"did not take the pictures (RuntimeError: no fonts); `distvae sync {out}` brings them later" in said


def test_a_kind_is_a_file_and_a_line(out, monkeypatch):
    module = type(sys)("distvae.plots.pie")
    module.KIND = Kind("pie", "x", "sweep", (), lambda out, folder, options: [folder / "pie.png"])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "distvae.plots.pie", module)
    monkeypatch.setattr(plots, "FILES", (*FILES, "pie"))
    assert plots.draw(out, ["pie"]).paths == [out / "plots" / "pie.png"]
