"""Optuna itself: its suggestions are of the YAML's ranges, depend on the seed and on what was told, and an interrupted
search goes on as an uninterrupted one; and one real search for the frontier, one for the bound."""

import json
import math

import pyarrow.parquet as pq
import pytest
from ray.tune.search import Searcher

from distvae.config import loads
from distvae.results import ledger
from distvae.sweeps.run import sweep
from distvae.sweeps.searching import Configurations
from distvae.sweeps.suggest import Suggestions, optuna_search

pytest.importorskip("optuna")
TEXT = """
name: optuna
data: {type: digits}
vae:
  encoder: {type: mlp, hidden: [8]}
  latent_dim: {integer: [1, 6]}
  prior: {grid: [{type: normal}, {type: binarized, r: {uniform: [0.0, 2.0]}}]}
objective: {type: elbo, beta: {loguniform: [0.1, 10.0]}}
train: {epochs: 2, batch_size: 512, lr: {choice: [0.001, 0.01]}}
seeds: 2
engine: torch
search: {seed: %(seed)d, algorithm: {type: optuna, trials: %(trials)d, objective: %(objective)s, startup: 3, sampler: %(sampler)s}}
resources: {concurrency: 1}
"""


class Search:
    """A search without training: a configuration's rate and distortion are what beta and latent_dim make of them."""

    def __init__(self, seed=0, objective="rate_distortion", known=(), trials=20, sampler="tpe"):
        self.study = loads(TEXT % {"seed": seed, "objective": objective, "trials": trials, "sampler": sampler})
        space, self.ended, self.asked = Configurations(self.study.source), {}, list(known)
        for _, values, _ in known:
            self.end(space.trials(values))
        algorithm = self.study.search.algorithm
        inner, sampler = optuna_search(algorithm, self.study.search.seed, space, [v for _, v, _ in known])
        self.tune = Suggestions(
            algorithm,
            space,
            inner=inner,
            at=sampler.at,
            history=lambda t: self.ended.get(t.key),
            planned=lambda *suggestion: self.asked.append(suggestion),
            task=lambda trials: {"trials": trials},
            known=known,
        )

    def end(self, trials):
        for t in trials:
            rate = t.vae.latent_dim / t.objective.beta + t.seed
            distortion = 50 - 3 * t.vae.latent_dim + 2 * t.objective.beta
            row = {"split": "valid", "epoch": 2, "rate_nats": rate, "distortion_nats": distortion}
            self.ended[t.key] = ledger.History("finished", [{**row, "elbo_nats": -rate - distortion}])

    def run(self, n):
        """The values of n suggestions, one at a time."""
        for i in range(n):
            answer = self.tune.suggest(f"tune{i}")
            if answer == Searcher.FINISHED:
                break
            self.end(answer["task"]["trials"])
            self.tune.on_trial_complete(f"tune{i}")
        return [values for _, values, _ in self.asked]


@pytest.mark.parametrize("objective", ["rate_distortion", "elbo"])
def test_the_same_seed_suggests_the_same_also_after_an_interruption(objective):
    whole = Search(objective=objective)
    suggested = whole.run(12)
    assert Search(objective=objective).run(12) == suggested
    assert Search(objective=objective, seed=1).run(12) != suggested
    first = Search(objective=objective)
    first.run(7)
    assert Search(objective=objective, known=first.asked).run(12 - len(first.asked)) == suggested


def test_suggestions_are_values_of_the_ranges_and_conditional_ones_come_where_they_count():
    for values in Search().run(20):
        assert values["vae.latent_dim"] in range(1, 7) and 0.1 <= values["objective.beta"] <= 10
        assert values["train.lr"] in (0, 1)
        assert ("vae.prior[1].r" in values) == (values["vae.prior"] == 1)


def test_what_is_told_moves_the_suggestions():
    """The bound is best at beta between 0.7 and 1.7, by latent_dim: TPE's last suggestions are nearer than random ones."""

    def far(sampler):
        search = Search(objective="elbo", trials=60, sampler=sampler)
        return [abs(math.log(v["objective.beta"])) for v in search.run(60)]

    assert sum(far("tpe")[-20:]) / 20 < 0.7 * sum(far("random")) / 60


@pytest.mark.slow
@pytest.mark.sweep
@pytest.mark.parametrize("objective", ["rate_distortion", "elbo"])
def test_a_real_search_plans_what_it_trains_and_is_reproducible(tmp_path, objective):
    plans = []
    for name in ("one", "two"):
        text = TEXT % {"seed": 3, "objective": objective, "trials": 5, "sampler": "tpe"}
        outcome = sweep(loads(text), tmp_path / name, display=False)
        plan = pq.read_table(tmp_path / name / "plan.parquet").to_pylist()
        asked = {n: v for r in plan for n, v in json.loads(r["suggested"]).items()}
        assert outcome.count("finished") == len(plan) and len(asked) == 5
        plans.append([(r["trial_key"], r["suggested"]) for r in plan])
    assert plans[0] == plans[1]
