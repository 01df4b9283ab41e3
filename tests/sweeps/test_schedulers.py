"""ASHA, median stopping and HyperBand for real, on digits: what they decided is what their rules say of the committed
rows. (ASHA's quick test is in test_search.py, on the same sweep as a search's.)"""

import json
import signal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from driver import Sweep
from ray.tune.schedulers import TrialScheduler

from distvae.config import ConfigError, loads
from distvae.results import ledger
from distvae.sweeps.outcome import Outcome
from distvae.sweeps.run import sweep
from distvae.sweeps.schedulers import Asha, Median, recall

pytestmark = pytest.mark.timeout(420)
CONFIG = """
name: early
data: {type: digits}
vae: {encoder: {type: mlp, hidden: [8]}, latent_dim: 2}
train: {epochs: %(epochs)d, batch_size: 512, lr: {grid: [%(lrs)s]}}
seeds: 2
engine: torch
search: {scheduler: %(scheduler)s}
resources: {concurrency: %(concurrency)d}
"""


def run(out: Path, scheduler: str, lrs, *, epochs=4, concurrency=1) -> tuple[Outcome, list[dict]]:
    """(outcome, configurations in order of the plan: status, last epoch, mean valid bound over seeds at every epoch)."""
    lrs = ", ".join(map(str, lrs))
    study = loads(CONFIG % {"scheduler": scheduler, "lrs": lrs, "epochs": epochs, "concurrency": concurrency})
    outcome = sweep(study, out, display=False)
    assert outcome.exit_code == 0 and set(outcome.status) == {t.key for t in study.trials}
    found: dict[str, dict] = {}
    for t in study.trials:
        record = ledger.history(out, t.key)
        assert record is not None
        bounds = {r["epoch"]: r["elbo_nats"] for r in record.rows if r["split"] == "valid"}
        assert sorted(bounds) == list(range(1, max(bounds) + 1)), "every evaluation up to the end is committed"
        c = found.setdefault(t.config_key, {"status": record.status, "epoch": max(bounds), "bounds": []})
        assert (record.status, max(bounds)) == (c["status"], c["epoch"]), "the seeds share a fate"
        c["bounds"].append(bounds)
    for c in found.values():
        c["mean"] = {e: float(np.mean([b[e] for b in c["bounds"]])) for e in c["bounds"][0]}
        assert (c["status"] == "finished") == (c["epoch"] == epochs) or c["status"] == "stopped"
    return outcome, list(found.values())


def left_behind(out: Path, n: int) -> None:
    """Of every ended trial its weights, and no checkpoint."""
    folders = sorted((out / "checkpoints").iterdir())
    assert len(folders) == n and all([p.name for p in f.iterdir()] == ["model.safetensors"] for f in folders)


def asha(configs, grace, eta, epochs):
    """Epoch at which each is stopped (None: never), one after the other: a rung lets pass what is not below the
    (1 - 1 / eta) quantile of those recorded there before."""
    rungs, recorded = [grace * eta**k for k in range(20) if grace * eta**k < epochs], {}
    out = []
    for c in configs:
        stop = None
        for rung in rungs:
            seen = recorded.setdefault(rung, [])
            score = c["mean"][rung]
            below = bool(seen) and score < np.quantile(seen, 1 - 1 / eta)
            seen.append(score)
            if below:
                stop = rung
                break
        out.append(stop)
    return out


@pytest.mark.slow
@pytest.mark.sweep
def test_asha_stops_whom_its_rungs_say_and_nothing_is_run_again(tmp_path):
    out = tmp_path / "asha"
    lrs = (1e-3, 1e-5, 1e-2, 3e-3, 2e-2, 1e-4)
    outcome, configs = run(out, "{type: asha, grace: 1, eta: 2}", lrs)
    stops = asha(configs, 1, 2, 4)
    assert [c["epoch"] if c["status"] == "stopped" else None for c in configs] == stops
    assert None in stops and {1, 2} & set(stops), "some stopped, some not"
    left_behind(out, 12)
    before = {p.name: p.stat().st_mtime_ns for p in (out / "points").iterdir()}
    again, _ = run(out, "{type: asha, grace: 1, eta: 2}", lrs)
    assert again.status == outcome.status and outcome.count("stopped") == 2 * sum(s is not None for s in stops)
    assert before == {p.name: p.stat().st_mtime_ns for p in (out / "points").iterdir()}
    assert set(pq.read_table(out / "plan.parquet")["trial_key"].to_pylist()) == set(outcome.status)


@pytest.mark.slow
@pytest.mark.sweep
def test_an_interrupted_asha_stops_nobody_by_it_and_then_decides_as_if_it_had_not_been(tmp_path):
    lrs = (1e-3, 1e-5, 1e-2, 3e-3, 2e-2, 1e-4)
    scheduler, config, out = "{type: asha, grace: 1, eta: 2}", tmp_path / "early.yaml", tmp_path / "out"
    text = {"scheduler": scheduler, "lrs": ", ".join(map(str, lrs)), "epochs": 40, "concurrency": 1}
    config.write_text(CONFIG % text)
    with Sweep(config, out) as sweep:
        sweep.wait_for(lambda: len(sweep.points()) >= 4)
        assert sweep.end(signal.SIGINT) == 130
        interrupted = len(sweep.points())
        assert interrupted < 12 and interrupted % 2 == 0, "configurations that ended, and no other"
    _, configs = run(out, scheduler, lrs, epochs=40)
    assert [c["epoch"] if c["status"] == "stopped" else None for c in configs] == asha(configs, 1, 2, 40)


def median(configs, grace, least):
    """Epoch at which each is stopped, one after the other: its best score so far is below the median of the running means of
    those that got at least as far."""
    out, past = [], []
    for c in configs:
        stop = None
        for epoch in sorted(c["mean"]):
            means = [np.mean([p[e] for e in p if grace <= e <= epoch]) for p in past if max(p) >= epoch]
            best = max(c["mean"][e] for e in c["mean"] if e <= epoch)
            if epoch >= grace and len(means) >= least and best < np.median(means):
                stop = epoch
                break
        past.append({e: v for e, v in c["mean"].items() if stop is None or e <= stop})
        out.append(stop)
    return out


@pytest.mark.slow
@pytest.mark.sweep
def test_median_stopping_stops_whom_its_rule_says(tmp_path):
    _, configs = run(tmp_path, "{type: median, grace: 1, least: 2}", (1e-3, 1e-2, 1e-5, 3e-3, 1e-4, 2e-2))
    stops = median(configs, 1, 2)
    got = [c["epoch"] if c["status"] == "stopped" else None for c in configs]
    last = max(c["epoch"] for c in configs)
    assert got == [None if s == last else s for s in stops]
    assert None in got and len(set(got)) > 1
    left_behind(tmp_path, 12)


@pytest.mark.slow
@pytest.mark.sweep
def test_hyperband_pauses_its_brackets_and_keeps_their_best(tmp_path):
    """max_t = 4, eta = 2: brackets of 3, 3 and 4 trials; the second halves at epoch 2, the third at 1 and 2."""
    lrs = [1e-3, 2e-3, 3e-3, 1e-5, 1e-2, 1e-3 / 3, 1e-4, 2e-2, 3e-5, 5e-3]
    _, configs = run(tmp_path, "{type: hyperband, eta: 2}", lrs, concurrency=2)

    def best(members, epoch, n):
        return sorted(members, key=lambda c: -c["mean"][epoch])[:n]

    first, second, third = configs[:3], configs[3:6], configs[6:]
    expected = {id(c): 4 for c in first}
    expected |= {id(c): 2 for c in second} | {id(c): 4 for c in best(second, 2, 2)}
    on = best(third, 1, 2)
    expected |= {id(c): 1 for c in third} | {id(c): 2 for c in on} | {id(c): 4 for c in best(on, 2, 1)}
    assert [c["epoch"] for c in configs] == [expected[id(c)] for c in configs]
    assert [c["status"] for c in configs] == ["finished" if expected[id(c)] == 4 else "stopped" for c in configs]
    left_behind(tmp_path, 20)
    logs = [[json.loads(line) for line in f.read_text().splitlines()] for f in (tmp_path / "logs").glob("*.jsonl")]
    assert any(sum(e["event"] == "start" for e in log) > 1 for log in logs), "some were paused and gone on with"


def test_what_ended_in_an_earlier_run_is_recalled():
    """Rungs and medians are those of the whole sweep, also after it was interrupted."""

    def past(*bounds, status="finished"):
        rows = [{"epoch": e, "split": "valid", "elbo_nats": b} for e, b in enumerate(bounds, start=1)]
        return ledger.History(status, rows)

    ended = [
        {"a0": past(-10.0, -8.0, -7.0, -6.0), "a1": past(-12.0, -8.0, -7.0, -6.0)},  # -11 on average at epoch 1
        {"b0": past(-20.0, status="stopped"), "b1": past(-20.0, status="stopped")},
        {"c0": past(-14.0, -13.0, -12.0, -11.0)},
    ]
    for part, better in ((Asha(grace=1, eta=2), -13.9), (Median(grace=1, least=3), -13.9)):
        for score, decision in ((-14.1, TrialScheduler.STOP), (better, TrialScheduler.CONTINUE)):
            scheduler, fresh = part.build(4), Fresh()
            recall(scheduler, part.metric, ended)
            scheduler.on_trial_add(None, fresh)
            assert scheduler.on_trial_result(None, fresh, {"epoch": 1, "score": score}) == decision, (part, score)


class Fresh:
    trial_id = "fresh"


@pytest.mark.parametrize("kind", ["hyperband", "halving"])
def test_what_compares_those_that_are_all_there_is_not_for_a_search(kind):
    text = f"search: {{algorithm: {{type: optuna}}, scheduler: {{type: {kind}}}}}\n"
    with pytest.raises(ConfigError, match=rf"1:\d+: search.scheduler: {kind} compares .*use asha or median"):
        loads(text)
