"""What `distvae plan` says of beta and sigma_x, of time and memory, in JSON and in words."""

from __future__ import annotations

import gc
import io
import json
import math
import os
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from distvae.config import loads
from distvae.sweeps import estimate, memory, overhead, probe, probing
from distvae.sweeps.estimate import SHOWN, overview, render
from distvae.sweeps.forecast import cost, costs, kinds, makespan, needed, slowdown
from distvae.sweeps.groups import GroupPlan, partition
from distvae.sweeps.outcome import Outcome
from distvae.training.world import part_ways

FIXED = "{type: gaussian, mode: fixed, sigma: {grid: [0.5, 2.0]}}"


def plan(text):
    view = overview(loads(text), None, probe=False)
    out = io.StringIO()
    render(view, Console(file=out, width=120))
    return view, out.getvalue()


def test_every_beta_at_every_fixed_sigma_has_its_equivalent():
    view, words = plan(
        f"vae: {{likelihood: {FIXED}}}\nobjective: {{type: elbo, beta: {{grid: [4, 0, 0.25, 1]}}}}\nseeds: 2\n"
    )
    rows = view["equivalent_sigma"]
    assert [(e["beta"], e["sigma"]) for e in rows] == [(b, s) for b in (0.0, 0.25, 1.0, 4.0) for s in (0.5, 2.0)]
    assert all(e["equivalent_sigma"] == pytest.approx(e["sigma"] * math.sqrt(e["beta"])) for e in rows)
    lines = [line.split() for line in words.splitlines()]
    assert ["beta", "sigma_x", "sigma_x", "at", "beta", "=", "1"] in lines
    assert ["0.25", "2", "1"] in lines and ["4", "0.5", "1"] in lines and ["4", "2", "4"] in lines


def test_a_beta_input_model_has_one_for_each_beta_it_is_evaluated_at():
    view, _ = plan(
        "vae: {likelihood: {type: gaussian, sigma: 0.5}, conditioning: {type: film}}\n"
        "objective: {type: beta_input, betas: [0.04, 1, 9]}\n"
    )
    assert [e["equivalent_sigma"] for e in view["equivalent_sigma"]] == pytest.approx([0.1, 0.5, 1.5])


@pytest.mark.parametrize(
    "text",
    [
        "vae: {likelihood: {type: bernoulli}}",
        "vae: {likelihood: {type: gaussian, mode: learned}}",
        "vae: {likelihood: {type: gaussian, mode: optimal}}",
        "vae: {likelihood: {type: student_t}}",
        "vae: {likelihood: {type: gaussian}}\nobjective: {type: capacity, capacity: 1.0}",
    ],
)
def test_where_beta_and_sigma_do_not_trade_nothing_is_said(text):
    view, words = plan(text)
    assert "equivalent_sigma" not in view and "sigma_x at beta" not in words


def test_a_long_list_is_cut_in_words_and_whole_in_json():
    betas = [0.1 * i for i in range(1, SHOWN + 6)]
    view, words = plan(f"vae: {{likelihood: {{type: gaussian}}}}\nobjective: {{type: elbo, beta: {{grid: {betas}}}}}\n")
    assert len(view["equivalent_sigma"]) == SHOWN + 5
    assert f"... {SHOWN + 5} in all" in words


# --- time and memory ----------------------------------------------------------------------------------------------

SMALL = (
    "data: {type: digits}\nvae: {encoder: {type: mlp, hidden: [8]}, latent_dim: 2}\n"
    "train: {epochs: 6, batch_size: 10}\nevaluate: {every: 4}\nengine: torch\n"
)
ANSWER = {
    "stacked": False, "why": None, "members": 1, "data_s": 0.5, "open_s": 3.0, "step_s": 0.01, "evaluate_s": 0.2,
    "commit_s": 0.1, "steps": 30, "open_cpu_s": 3.0, "step_cpu_s": 0.01, "evaluate_cpu_s": 0.2, "timed_s": 0.5, "timed_cpu_s": 0.5, "idle_bytes": 700, "memory_bytes": 50, "gpu_bytes": 0, "first_s": 1.5,
}  # fmt: skip
OVERHEAD = overhead.Overhead(start_s=10.0, end_s=4.0, event_s=0.05, trials=24, unix_s=1e9)


@pytest.mark.parametrize(
    "seconds, slots, ends",
    [([5, 4, 3, 3], 2, 8), ([5, 4, 3, 3], 1, 15), ([5, 4], 8, 5), ([1, 1, 1, 9], 3, 10), ([9, 1, 1, 1], 3, 9)],
)
def test_groups_in_order_each_on_the_slot_that_is_free_first(seconds, slots, ends):
    assert makespan(seconds, slots) == ends


def test_the_time_of_a_group_is_of_its_steps_evaluations_and_commits():
    study = loads(SMALL + "seeds: 4\n")
    alone, stack = GroupPlan(study.trials[:1], False, "why"), GroupPlan(study.trials, True)
    # 95 examples in batches of 10 are 10 steps, 6 epochs of them; evaluated after epochs 4 and 6
    one = 3.0 + 60 * 0.01 + 2 * 0.2 + 0.1
    assert cost([ANSWER]).seconds(alone, study, 95) == pytest.approx(one)
    together = cost([{**ANSWER, "stacked": True, "members": 4}])
    assert together.seconds(stack, study, 95) == pytest.approx(3.0 + 60 * 0.01 + 2 * 0.2 + 4 * 0.1)
    in_turn = GroupPlan(study.trials, False, "why")
    assert cost([ANSWER]).seconds(in_turn, study, 95) == pytest.approx(4 * one)
    two = [ANSWER, {**ANSWER, "step_s": 0.03, "memory_bytes": 70, "timed_s": 2.5}]
    assert (cost(two).step_s, cost(two).memory_bytes) == (pytest.approx(0.02), 70)
    assert slowdown(two) == pytest.approx(3.0) and cost(two, 3.0).step_s == pytest.approx(3 * 0.01)


def test_what_halving_stops_early_is_not_counted():
    study = loads(
        SMALL + "search: {scheduler: {type: halving, eta: 3}}\nseeds: [0]\n"
        "objective: {type: elbo, beta: {grid: [1, 2, 3, 4, 5, 6, 7, 8, 9]}}\n"
    )
    (group,) = partition(study, study.trials, 1)
    free = replace(cost([ANSWER]), members=9, open_s=0.0, evaluate_s=0.0, commit_s=0.0)
    halved, all_of_it = free.seconds(group, study, 95), 60 * 0.01
    assert halved == pytest.approx(all_of_it * group.epochs(study) / (9 * 6)) and halved < 0.7 * all_of_it


def test_kinds_that_were_not_probed_are_scaled_from_the_nearest():
    study = loads(
        "data: {type: digits}\nengine: torch\nseeds: 40\nresources: {fuse: 16}\n"
        "vae: {encoder: {grid: [{type: mlp, hidden: [8]}, {type: conv}]}}\n"
    )
    found = kinds(partition(study, study.trials, 1), study)
    assert sorted((k.members, len(k.groups)) for k in found) == [(13, 2), (13, 2), (14, 1), (14, 1)]
    assert [sum(len(g.trials) for g in k.groups) for k in found] == [26, 26, 14, 14]
    probed = {i: cost([{**ANSWER, "stacked": True, "members": 13, "step_s": 13.0 + i}]) for i in (0, 1)}
    every = costs(found, probed)
    for kind, c in zip(found, every, strict=True):
        near = 0 if kind.group.trials[0].fusion_group == found[0].group.trials[0].fusion_group else 1
        assert c.members == kind.members and c.probed == (kind.members == 13)
        assert c.step_s == pytest.approx((13.0 + near) * kind.members / 13)
        assert c.commit_s == pytest.approx(0.1) and c.memory_bytes == pytest.approx(50 * kind.members / 13)
    with pytest.raises(ValueError, match="probed"):
        costs(found, {})


def test_the_largest_kind_is_probed_first_and_then_those_unlike_it():
    study = loads(
        "data: {type: digits}\nengine: torch\nresources: {fuse: off}\nseeds: 2\n"
        "blocks: [{vae: {latent_dim: {grid: [2, 3]}, likelihood: {type: bernoulli}}},"
        " {vae: {encoder: {grid: [{type: mlp}, {type: conv}]}, prior: {grid: [{type: normal}, {type: binarized}]},"
        " latent_dim: 4}}]\n"
    )
    order = kinds(partition(study, study.trials, 1), study)
    sizes = [sum(len(g.trials) for g in k.groups) for k in order]
    parts = [(k.group.trials[0].vae.encoder.type, k.group.trials[0].vae.prior.type) for k in order]
    assert sizes[0] == max(sizes) == 6 and parts[0] == ("mlp", "normal")
    assert parts[1] == ("conv", "binarized") and len(order) == 4


def test_memory_is_that_of_the_largest_groups_at_a_time():
    assert needed(100, [1, 9, 5, 7], 2, 1) == 2 * 100 + 9 + 7
    assert needed(100, [1], 4, 3) == 3 * (100 + 1)
    memory.reset_peak()
    before = memory.resident()
    held = b"x" * 80_000_000
    del held
    assert 70e6 < memory.peak() - before < 120e6 and memory.machine() > before


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTVAE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / overhead.FILE


def estimated(monkeypatch, text, found, **more):
    """The view and its words where the probe answers `found`, by the number of the kind."""
    monkeypatch.setattr(estimate, "started", lambda study, gangs: nullcontext([[]] * gangs))
    monkeypatch.setattr(
        estimate, "run_probe", lambda teams, groups, gangs: probing.Probes(found, engine="torch", **more)
    )
    view = overview(loads(text), None, probe=True)
    words = io.StringIO()
    render(view, Console(file=words, width=300))
    json.dumps(view)
    return view["estimate"], words.getvalue()


def test_the_whole_is_training_the_drivers_work_start_and_end(monkeypatch):
    monkeypatch.setattr(overhead, "measured", lambda engine, trials, say: OVERHEAD)
    monkeypatch.setattr(estimate, "cores", lambda: 2)
    text = SMALL + "seeds: 3\nresources: {fuse: off, concurrency: 2}\n"
    e, words = estimated(monkeypatch, text, {0: [ANSWER]})
    n = len(loads(text).trials)
    steps = 6 * math.ceil(1437 / 10)
    one = 3.0 + steps * 0.01 + 2 * 0.2 + 0.1
    assert n == 3 and e["training_s"] == pytest.approx(1.5 + 0.5 + 2 * one, rel=1e-2)
    assert e["driver_s"] == pytest.approx(3 * 4 * 0.05)
    assert e["seconds"] == pytest.approx(e["training_s"] + e["driver_s"] / 2 + 14.0)
    assert e["memory"]["needed_bytes"] == 2 * 750 and e["memory"]["fits"]
    assert "start 10s and end 4s" in words and "24 trials" in words and "not stacked: resources.fuse: off" in words
    assert "busy" not in words and "scaled" not in words
    monkeypatch.setattr(estimate, "cores", lambda: 8)  # the driver has cores of its own
    assert estimated(monkeypatch, text, {0: [ANSWER]})[0]["seconds"] == pytest.approx(e["training_s"] + 14.0)


def test_what_is_not_measured_is_said(monkeypatch):
    monkeypatch.setattr(overhead, "measured", lambda engine, trials, say: None)
    two = SMALL.replace("hidden: [8]", "hidden: {grid: [[8], [9]]}")
    e, words = estimated(monkeypatch, two, {0: [{**ANSWER, "timed_cpu_s": 0.2}]}, errors={1: "RuntimeError: no"})
    assert e["overhead"] is None and e["seconds"] == pytest.approx(e["training_s"])
    assert "start, end and the driver's work are not counted" in words
    assert "probed: 1 of 2 kinds" in words and "~" in words and "raised RuntimeError: no" in words
    assert "40% of their cores" in words
    e, words = estimated(monkeypatch, SMALL, {}, broken="ValueError: a worker of the probe died")
    assert "seconds" not in e and "no estimate: the probe failed (ValueError: a worker" in words


def test_what_does_not_fit_the_machine_is_said_with_the_remedy(monkeypatch):
    monkeypatch.setattr(overhead, "measured", lambda engine, trials, say: OVERHEAD)
    monkeypatch.setattr(memory, "machine", lambda: 1499)
    text = SMALL + "seeds: 2\nresources: {fuse: off, concurrency: 2}\n"
    e, words = estimated(monkeypatch, text, {0: [ANSWER]})
    assert not e["memory"]["fits"] and "lower resources.concurrency" in words


def test_a_sweep_leaves_what_it_took_beside_training(cache):
    study = loads(SMALL + "seeds: 20\n")
    trials = {t.key: t for t in study.trials}
    now = time.time()
    outcome = Outcome(Path("x"), 20, ran=list(trials), first=(now - 50, 8.0), last=(now - 6, 16.0))
    assert overhead.known("torch", 20) is None
    overhead.keep(replace(outcome, interrupted=True), now - 70, "torch", trials)
    overhead.keep(replace(outcome, ran=outcome.ran[:5]), now - 70, "torch", trials)
    assert not cache.exists()
    overhead.keep(outcome, now - 70, "torch", trials)
    found = overhead.known("torch", 20)
    assert found is not None and overhead.measured("torch", 20, pytest.fail) == found
    assert (found.start_s, found.end_s) == (pytest.approx(20, abs=0.5), pytest.approx(6, abs=0.5))
    assert found.event_s == pytest.approx(8.0 / (20 * 4)) and overhead.known("deepspeed", 20) is None
    cache.write_bytes(b"{")
    assert overhead.known("torch", 20) is None


def test_of_many_trials_only_a_sweep_of_many_says_what_they_take(cache):
    def swept(n, seconds):
        trials = {t.key: t for t in loads(SMALL + f"seeds: {n}\n").trials}
        now = time.time()
        outcome = Outcome(Path("x"), n, ran=list(trials), first=(now - seconds - 5, 8.0), last=(now - seconds, 16.0))
        overhead.keep(outcome, now - 70, "torch", trials)

    assert overhead.measured("torch", overhead.MANY, pytest.fail) is None  # no small sweep is run for them
    swept(20, 3)
    assert [overhead.known("torch", n).trials for n in (1, 20, 10_000)] == [20, 20, 20]
    swept(1200, 60)
    swept(24, 4)
    found = {n: overhead.known("torch", n) for n in (1, 31, 300, 1000, 50_000)}
    assert [o.trials for o in found.values()] == [24, 24, 1200, 1200, 1200]
    assert [round(o.end_s) for o in found.values()] == [4, 4, 60, 60, 60]


def test_a_worker_of_the_probe_measures_a_stack_and_a_trial(tmp_path):
    study = loads(SMALL + "seeds: 3\n")
    job = {"rank": 0, "size": 1, "port": 0, "threads": 1, "gpus": 0, "engine": "torch", "deepspeed": {}, "most": 2}
    job |= {"keep": "weights", "out": str(tmp_path)}
    texts = [json.dumps(t.config()) for t in study.trials]
    tasks = [
        {"trials": texts, "stacked": True},
        {"trials": texts[:1], "stacked": False},
        {"trials": [json.dumps({"data": {"type": "npz", "name": "x", "path": "/none.npz"}})], "stacked": False},
    ]
    lines = [json.dumps(job), *(json.dumps({**t, "steps_s": 0.0}) for t in tasks)]
    answers = io.StringIO()
    try:
        probe.serve(io.StringIO("\n".join(lines) + "\n"), answers)
    finally:
        part_ways()
        gc.unfreeze()
    ready, stack, alone, bad = map(json.loads, answers.getvalue().splitlines())
    assert ready["engine"] == "torch" and ready["memory_bytes"] > 5e7
    assert (stack["stacked"], stack["members"]) == (True, 2) and (alone["stacked"], alone["members"]) == (False, 1)
    for a in (stack, alone):
        assert a["why"] is None and a["steps"] >= probe.LEAST and a["idle_bytes"] > 5e7
        assert all(
            0 < a[name] < 60
            for name in ("open_s", "open_cpu_s", "step_s", "step_cpu_s", "evaluate_s", "commit_s", "timed_s")
        )
    assert list(bad) == ["error"] and "none.npz" in bad["error"]


def test_plan_probes_in_processes_of_its_own(cache, capfd):
    cache.parent.mkdir()
    here = f"{overhead.platform.node()}, {overhead.cores()} cores, torch, 10"
    cache.write_text(json.dumps({here: vars(OVERHEAD)}))
    started = time.monotonic()
    text = SMALL + "seeds: 2\nresources: {fuse: off, concurrency: 1}\n"
    e = overview(loads(text), None, probe=True)["estimate"]
    assert e["kinds_probed"] == 1 and not e["errors"] and e["broken"] is None and e["engine"] == "torch"
    assert 0 < e["training_s"] < e["seconds"] and e["memory"]["worker_bytes"] > 5e7
    assert 14 < e["seconds"] < 14 + 60 * (time.monotonic() - started)
    assert capfd.readouterr().out == ""


@pytest.mark.slow
@pytest.mark.sweep
@pytest.mark.timeout(3600)
def test_the_estimate_of_the_quickstart_is_within_30_percent(tmp_path):
    """Wall time on a machine that others may use: plan and sweep are taken in turns, up to three times."""
    config = Path(__file__).parents[2] / "tune_configs" / "quickstart.yaml"
    environment = {**os.environ, "DISTVAE_CACHE": str(tmp_path / "cache")}

    def run(*args):
        command = [sys.executable, "-m", "distvae.cli", *map(str, args)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    ratios = []
    for i in range(3):
        foreseen = json.loads(run("plan", config, "--json"))["estimate"]["seconds"]
        began = time.monotonic()
        run("sweep", config, "--out", tmp_path / f"out{i}")
        ratios.append(foreseen / (time.monotonic() - began))
        if 1 / 1.3 <= ratios[-1] <= 1.3:
            return
    pytest.fail(f"estimate / taken: {ratios}")
