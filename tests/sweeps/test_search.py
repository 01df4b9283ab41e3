"""A search that suggests, through Tune, on digits: every suggestion is planned before it is launched, trained with all its
seeds and told their mean; a resumed one replays its plan. What suggests here is a list, so that it is known."""

import json
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from ray.tune.search import Searcher

from distvae.config import loads
from distvae.results import ledger
from distvae.sweeps.run import sweep

pytestmark = [pytest.mark.sweep, pytest.mark.timeout(420)]
CONFIG = """
name: search
data: {type: digits}
vae: {encoder: {type: mlp, hidden: [8]}, latent_dim: {integer: [1, 4]}}
objective: {type: elbo, beta: {loguniform: [0.1, 10.0]}}
train: {epochs: 2, batch_size: 512, lr: {grid: [0.001, 0.01]}}
seeds: 2
engine: torch
search: {algorithm: {type: optuna, trials: %d}, scheduler: %s}
resources: {concurrency: 1}
"""


class Asked:
    """What define-by-run sees of a suggestion: the next values of a list."""

    def __init__(self, values):
        self.values, self.got = iter(values), {}

    def take(self, name):
        self.got[name] = next(self.values)
        return self.got[name]

    def suggest_categorical(self, name, choices):
        assert choices == [0, 1] and name == "train.lr"
        return self.take(name)

    def suggest_int(self, name, low, high):
        assert (name, low, high) == ("vae.latent_dim", 1, 4)
        return self.take(name)

    def suggest_float(self, name, low, high, log):
        assert (name, low, high, log) == ("objective.beta", 0.1, 10.0, True)
        return self.take(name)


class Listed(Searcher):
    """Suggests what a list says, and notes when, and what it is told."""

    def __init__(self, space, values, known, out):
        super().__init__()
        self.space, self.values, self.known, self.out = space, values, list(known), out
        self.told, self.events = {}, []

    def at(self, number):
        self.number = number

    def suggest(self, trial_id):
        assert trial_id == str(self.number)
        self.events.append(("ask", trial_id, planned(self.out), time.time()))
        if self.known:
            return self.known.pop(0)
        asked = Asked(self.values[int(trial_id)])
        self.space.values(asked)
        return asked.got

    def on_trial_complete(self, trial_id, result=None, error=False):
        self.told[trial_id] = "failed" if error else result


def planned(out):
    """number -> values of what is in the plan."""
    table = pq.read_table(out / "plan.parquet")["suggested"].to_pylist()
    return {int(n): v for text in dict.fromkeys(table) if text for n, v in json.loads(text).items()}


@pytest.fixture
def run(monkeypatch):
    """Run a search of so many suggestions; (outcome, the searcher)."""

    def go(out, n, values, scheduler="null"):
        made = []

        def fake(algorithm, seed, space, known):
            made.append(Listed(space, values, known, out))
            return made[0], made[0]

        monkeypatch.setattr("distvae.sweeps.suggest.optuna_search", fake)
        return sweep(loads(CONFIG % (n, scheduler)), out, display=False), made[0] if made else None

    return go


NAMES = ("vae.latent_dim", "objective.beta", "train.lr")
VALUES = [(2, 1.0, 1), (4, 0.2, 0), (2, 1.0, 1), (3, 5.0, 1)]  # latent_dim, beta, lr; the third is the first again


def means(out, trials):
    """(rate, distortion) on the valid split at the last epoch, mean over seeds."""
    last = []
    for key in trials:
        record = ledger.history(out, key)
        assert record is not None and {r["epoch"] for r in record.rows} == {1, 2}
        last += [
            (r["rate_nats"], r["distortion_nats"]) for r in record.rows if r["split"] == "valid" and r["epoch"] == 2
        ]
    assert len(last) == len(trials) == 2
    return dict(zip(("rate_nats", "distortion_nats"), np.mean(last, axis=0).tolist(), strict=True))


@pytest.mark.slow
def test_a_search_plans_launches_tells_and_is_replayed(tmp_path, run):
    outcome, searcher = run(tmp_path, 3, VALUES)
    assert outcome.exit_code == 0 and outcome.planned == 4 == outcome.count("finished")
    asked = {n: dict(zip(NAMES, VALUES[n], strict=True)) for n in range(3)}
    assert planned(tmp_path) == asked
    rows = pq.read_table(tmp_path / "plan.parquet").to_pylist()
    assert [(r["vae.latent_dim"], r["objective.beta"], r["train.lr"], r["seed"]) for r in rows] == [
        (2, 1.0, 0.01, 0), (2, 1.0, 0.01, 1), (4, 0.2, 0.001, 0), (4, 0.2, 0.001, 1),
    ]  # fmt: skip
    # One at a time: each is asked for with all earlier ones in the plan, and before any of its own trials starts.
    assert [e[2] for e in searcher.events] == [{k: asked[k] for k in range(n)} for n in range(3)]
    starts = {p.stem: json.loads(p.read_text().splitlines()[0])["unix_s"] for p in (tmp_path / "logs").glob("*.jsonl")}
    for n, key in ((0, rows[0]["trial_key"]), (1, rows[2]["trial_key"])):
        assert searcher.events[n][3] < starts[key]
    first, second = (means(tmp_path, [r["trial_key"] for r in rows[i : i + 2]]) for i in (0, 2))
    assert searcher.told == {"0": pytest.approx(first), "1": pytest.approx(second), "2": pytest.approx(first)}

    again, nobody = run(tmp_path, 3, VALUES)
    assert nobody is None and again.status == outcome.status, "nothing is left, so nothing is started"

    # Lost: the first seed of the second suggestion. More is asked for. Only these are trained.
    (tmp_path / "points" / f"{rows[2]['trial_key']}.0.parquet").unlink()
    before = {p.name for p in (tmp_path / "points").iterdir()}
    outcome, searcher = run(tmp_path, 4, VALUES)
    assert outcome.planned == 6 == outcome.count("finished")
    assert searcher.told == {
        "0": pytest.approx(first), "1": pytest.approx(second), "2": pytest.approx(first), "3": searcher.told["3"],
    }  # fmt: skip
    order = [e[1] for e in searcher.events]
    assert order == ["0", "1", "2", "3"] and planned(tmp_path)[3] == dict(zip(NAMES, VALUES[3], strict=True))
    assert len(before) == 3 and len(list((tmp_path / "points").iterdir())) == 6


@pytest.mark.slow  # the parts: test_optuna.py, test_schedulers.py
def test_a_search_with_asha_plans_before_it_launches_and_is_told_what_a_stopped_trial_had_reached(tmp_path, run):
    """A rung at epoch 1: who is below the median of those before stops there."""
    values = [(2, 1.0, 1), (4, 1.0, 0), (3, 1.0, 0), (4, 0.9, 1)]
    outcome, searcher = run(tmp_path, 4, values, "{type: asha, grace: 1, eta: 2}")
    rows = pq.read_table(tmp_path / "plan.parquet").to_pylist()
    asked = {n: dict(zip(NAMES, values[n], strict=True)) for n in range(4)}
    assert [e[2] for e in searcher.events] == [{k: asked[k] for k in range(n)} for n in range(4)]
    rung, expected = [], []
    for n in range(4):
        records = [ledger.history(tmp_path, r["trial_key"]) for r in rows[2 * n : 2 * n + 2]]
        assert searcher.told[str(n)]["rate_nats"] == pytest.approx(np.mean([h.last("rate_nats") for h in records]))
        bound = np.mean([r["elbo_nats"] for h in records for r in h.rows if (r["epoch"], r["split"]) == (1, "valid")])
        expected += ["stopped" if rung and bound < np.median(rung) else "finished"] * 2
        rung.append(bound)
    assert [outcome.status[r["trial_key"]] for r in rows] == expected
    assert {"stopped", "finished"} == set(expected)
