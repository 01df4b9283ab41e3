"""The report's data and file: what is counted and shown, commands that run, a page that is whole or not there."""

import json
import re
import shlex
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from made_sweeps import TEXT, commit, passes, sweep

from distvae.cli import main
from distvae.config import load, loads
from distvae.report import build, page, pictures, write
from distvae.results import curves, ledger
from distvae.sweeps.plan import write_plan

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "a sweep"
    return out, sweep(out)


def run(capsys, *args) -> tuple[int, str]:
    before, sys.argv = sys.argv, ["distvae", *map(str, args)]
    try:
        main()
        code = 0
    except SystemExit as e:
        code = e.code or 0
    finally:
        sys.argv = before
    return code, capsys.readouterr().out


def cells(data, name):
    at = [c["id"] for c in data["columns"]].index(name)
    return [row[at] for row in data["trials"]]


def test_every_planned_trial_is_a_row_with_its_last_test_epoch(swept):
    out, trials = swept
    data = build(out)
    assert cells(data, "key") == [t.key for t in trials]  # in the plan's order
    assert data["about"]["counts"] == {"finished": 44, "failed": 1, "diverged": 1, "stopped": 1, "to run": 1}
    for name, knob in (("beta", lambda t: t.objective.beta), ("p_keep", lambda t: t.vae.posterior.p_keep)):
        assert cells(data, name) == [knob(t) for t in trials]  # also of what has not run
    expected = [passes(t)[-1]["elbo_nats"] for t in trials]
    expected[-4] = expected[-3] = expected[-1] = None
    assert cells(data, "elbo_nats") == expected
    valid = cells(data, "valid_elbo")
    assert valid[0] == passes(trials[0])[-2]["elbo_nats"] != expected[0] and valid[-1] is None
    told = {c["id"]: c for c in data["columns"]}
    assert told["elbo_nats"]["split"] == "test" and told["elbo_nats"]["unit"] == "nats/example"
    assert {c for c in told if told[c]["surrogate"]} == {"rate_surrogate_nats", "objective"}
    assert "iw_nll_nats" not in told  # nobody measured it
    assert data["about"]["errors"] == {trials[-4].key: "ValueError: no such thing"}


def test_the_frontier_and_the_best_are_those_of_the_curves(swept):
    data, table = build(swept[0]), ledger.load(swept[0])
    shown = [[c["rate"], c["distortion"], [t["key"] for t in c["trials"]]] for c in data["configs"] if c["frontier"]]
    expected = [
        [[i.mean, i.low, i.high] for i in (c.rate, c.distortion)] + [[p.trial_key for p in c.points]]
        for c in curves.frontier(table)
    ]
    assert shown == expected and 0 < len(shown) < len(data["configs"]) == 22
    (best,) = [c for c in data["configs"] if c["best"]]
    assert [t["key"] for t in best["trials"]] == [p.trial_key for p in curves.best(table)[0].points]


def test_stopped_and_diverged_trials_are_on_no_frontier(swept):
    data = build(swept[0])
    on = {t["key"] for c in data["configs"] for t in c["trials"]}
    assert on == {t.key for t in swept[1][:-4]}


@pytest.mark.parametrize("name", ["linear_exact", pytest.param("zoo", marks=pytest.mark.slow), "quickstart"])
def test_a_trials_yaml_gives_the_same_trial(tmp_path, name):
    study = load(ROOT / "tune_configs" / f"{name}.yaml")
    some = study.trials[:: max(1, len(study.trials) // 30)]
    write_plan(tmp_path, study)
    data = build(tmp_path)
    for trial in some:
        seed, body = data["trial_yaml"][trial.key]
        text = f"name: trial-{trial.key}\n{data['bodies'][body]}seeds: [{seed}]\n"
        assert loads(text).trials == (trial,)


def test_a_trials_yaml_keeps_how_the_sweep_was_run(tmp_path):
    text = "seeds: 2\nengine: torch\nresources: {threads: 2}\ndeepspeed: {zero_optimization: {stage: 1}}\n"
    study = loads(text)
    write_plan(tmp_path, study)
    data = build(tmp_path)
    again = loads(data["bodies"][data["trial_yaml"][study.trials[1].key][1]] + "seeds: [1]\n")
    assert (again.engine, again.resources, again.deepspeed) == (study.engine, study.resources, study.deepspeed)
    assert again.trials[0].key == study.trials[1].key


@pytest.mark.slow
def test_the_printed_commands_run(swept, capsys):
    """`sweep` needs Ray, `eval` weights, `ui` a browser: theirs are other tests."""
    out, _ = swept
    seen = set()
    for _, line in build(out)["commands"]:
        program, name, *args = shlex.split(line)
        assert program == "distvae"
        seen.add(name)
        if name not in ("sweep", "eval", "ui"):
            assert run(capsys, name, *args)[0] == 0, line
    assert {"sweep", "plan", "status", "plot", "export", "report", "eval", "ui"} <= seen
    assert (out / "report.html").exists() and (out / "rd_curve.csv").exists()


@pytest.mark.slow
@pytest.mark.sweep
def test_the_printed_sweep_command_finds_everything_done(tmp_path, capsys):
    out = tmp_path / "a sweep"
    trials = sweep(out, odd=False)
    before = {p: p.read_bytes() for p in (out / "points").iterdir()}
    (line,) = [line for _, line in build(out)["commands"] if line.startswith("distvae sweep")]
    assert run(capsys, *shlex.split(line)[1:])[0] == 0
    assert {p: p.read_bytes() for p in (out / "points").iterdir()} == before and len(before) == len(trials)


def test_the_command_writes_the_page_or_prints_the_data(swept, capsys, tmp_path):
    out, trials = swept
    to = tmp_path / "page.html"
    assert run(capsys, "report", out, "--to", to) == (0, f"{to}\n")
    text = to.read_text()
    for part in ("report.css", *page.SCRIPTS):  # whole: nothing is fetched
        assert (ROOT / "distvae" / "report" / part).read_text() in text
    assert set(re.findall(r"\w+://[^\s\"'`]+", text)) == {"http://www.w3.org/2000/svg"}
    code, printed = run(capsys, "report", out, "--json")
    assert code == 0 and len(json.loads(printed)["trials"]) == len(trials)
    assert run(capsys, "report", tmp_path / "nowhere")[0] == 2


def test_only_pictures_that_lie_in_out_are_embedded(tmp_path):
    folder = tmp_path / "out" / "plots"
    folder.mkdir(parents=True)
    picture = (ROOT / "tests" / "quickstart.png").read_bytes()
    (folder / "rd.png").write_bytes(picture)
    (folder / "samples_0123456789abcdef.png").write_bytes(picture)
    (folder / "not_a_picture.png").write_bytes(b"<svg onload=alert(1)>")
    (tmp_path / "secret.png").write_bytes(picture)
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    found = [(p["title"], p["trial"]) for p in pictures.embedded(tmp_path / "out")]
    assert found == [("rd", None), ("samples", "0123456789abcdef")]


def test_a_page_that_cannot_be_written_leaves_the_old_one(swept, tmp_path, monkeypatch):
    to = tmp_path / "page.html"
    to.write_text("old")
    monkeypatch.setattr(page, "render", lambda data: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        page.write({}, to)
    assert to.read_text() == "old" and list(tmp_path.iterdir()) == [to]


def test_several_panels_and_a_beta_input_models_betas(tmp_path):
    text = "vae: {conditioning: {type: film}, latent_dim: 2}\nobjective: {type: beta_input}\ntrain: {epochs: 3}\n"
    trial = loads(text).trials[0]
    grid = list(trial.objective.grid())
    measured = [p | {"point": i, "beta": b} for i, b in enumerate(grid) for p in passes(loads(TEXT).trials[0])]
    commit(tmp_path, trial, measured)
    other = loads(
        "data: {type: gaussian, eigenvalues: [1.0]}\nvae: {likelihood: {type: gaussian}, latent_dim: 1}\n"
    ).trials[0]
    commit(tmp_path, other, passes(loads(TEXT).trials[0], measure="density"))
    data = build(tmp_path)
    assert [(p["data"], p["measure"]) for p in data["panels"]] == [("digits", "binary"), ("gaussian", "density")]
    rows = dict(zip(cells(data, "key"), cells(data, "beta"), strict=True))
    assert [b for k, b in zip(cells(data, "key"), cells(data, "beta"), strict=True) if k == trial.key] == grid
    assert rows[other.key] == 1.0 and cells(data, "data").count("digits") == len(grid)
    assert {(c["id"], c["shown"]) for c in data["columns"]} >= {("point", True), ("data", True)}


def test_a_long_training_is_thinned_and_says_so(tmp_path):
    trial = loads("train: {epochs: 500}\n").trials[0]
    one = passes(loads(TEXT).trials[0])[2]
    commit(tmp_path, trial, [one | {"epoch": e} for e in range(1, 501)])
    data = build(tmp_path)
    epochs = [r[2] for r in data["history"][trial.key]]
    assert data["thinned"] and len(epochs) == 50 and epochs[0] == 1 and epochs[-1] == 500
    assert max(b - a for a, b in pairwise(epochs)) <= 11


def test_values_that_are_no_numbers_are_null(tmp_path):
    trial = loads("train: {epochs: 3}\n").trials[0]
    commit(tmp_path, trial, passes(loads(TEXT).trials[0], elbo_nats=float("nan"), wall_s=float("inf")))
    text = page.escaped(build(tmp_path))
    assert "NaN" not in text and "Infinity" not in text and json.loads(text)["trials"]


def test_an_empty_out_is_a_page_too(tmp_path):
    write_plan(tmp_path, loads(TEXT))
    data = build(tmp_path)
    assert data["about"]["counts"] == {"to run": 48} and data["configs"] == [] == data["panels"]
    assert write(tmp_path).read_text().startswith("<!doctype html>")
