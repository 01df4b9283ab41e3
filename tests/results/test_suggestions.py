"""What a search asks, tells, plans and launches, with a searcher that suggests from a list and remembers what it is
told."""

import pytest
from ledgers import commit, measured, trial
from ray.tune.search import Searcher

from distvae.results import ledger
from distvae.sweeps.algorithms import Optuna
from distvae.sweeps.searching import Refused
from distvae.sweeps.suggest import Suggestions

SEEDS = (0, 1)


class Listed(Searcher):
    """Suggests r = the next number of a list."""

    def __init__(self, values):
        super().__init__()
        self.values, self.told = list(values), {}

    def suggest(self, trial_id):
        return {"r": self.values[int(trial_id)]}

    def on_trial_complete(self, trial_id, result=None, error=False):
        assert trial_id not in self.told, "told twice"
        self.told[trial_id] = "failed" if error else result


class Line:
    """r >= 0."""

    def values(self, ask):
        raise NotImplementedError

    def trials(self, values):
        if values["r"] < 0:
            raise Refused(f"r={values['r']} makes no sense")
        return [trial(seed=s, r=values["r"]) for s in SEEDS]


class Search:
    """A search over `values`, of an OUT."""

    def __init__(self, out, values, *, known=(), n=100, skip=True, objective="rate_distortion"):
        self.inner, self.planned, self.numbers, self.launched = Listed(values), [], [], 0
        self.tune = Suggestions(
            Optuna(trials=n, objective=objective),
            Line(),
            inner=self.inner,
            at=self.numbers.append,
            history=lambda t: self.ended(out, t),
            planned=lambda number, values, trials: self.planned.append((number, values["r"], len(trials))),
            task=lambda trials: {"id": trials[0].config_key, "r": trials[0].vae.prior.r, "n": len(trials)},
            known=known,
            skip=skip,
        )

    def ended(self, out, t):
        found = ledger.history(out, t.key)
        return None if found is None or found.status == "failed" else found

    def launch(self):
        """The r that runs next, or what Tune is answered instead."""
        self.launched += 1
        answer = self.tune.suggest(f"tune{self.launched}")
        return answer["task"]["r"] if isinstance(answer, dict) else answer

    def end(self, launch, **more):
        self.tune.on_trial_complete(f"tune{launch}", **more)


def finish(out, r, rate, distortion, seeds=SEEDS, status="finished", **more):
    """Committed rows: an early epoch, and at the last one a spread of 2 between the seeds."""
    for s in seeds:
        rows = [measured(1, "valid", 50.0, 50.0), measured(2, "valid", rate + s, distortion - s, **more)]
        commit(out, trial(seed=s, r=r), [*rows, measured(2, "test", 0.0, 0.0)], status)


def test_a_suggestion_is_in_the_plan_before_it_is_launched_and_told_the_mean_over_seeds(tmp_path):
    search = Search(tmp_path, [0.1, 0.2, 0.3], n=2)
    assert search.launch() == 0.1 and search.planned == [(0, 0.1, 2)]
    assert search.launch() == 0.2 and search.planned == [(0, 0.1, 2), (1, 0.2, 2)]
    finish(tmp_path, 0.2, 4.0, 8.0)
    search.end(2)
    assert search.inner.told == {"1": {"rate_nats": 4.5, "distortion_nats": 7.5}}
    finish(tmp_path, 0.1, 1.0, 2.0, seeds=[0])  # the second seed is not there: interrupted
    search.end(1)
    assert search.inner.told["0"] == "failed"
    assert search.launch() == Searcher.FINISHED and search.numbers == [0, 1]


def test_resumed_it_tells_what_has_ended_runs_what_has_not_and_then_asks_for_more(tmp_path):
    finish(tmp_path, 0.1, 1.0, 2.0)
    finish(tmp_path, 0.3, 3.0, 1.0, seeds=[1])
    values = [0.1, 0.2, 0.3, 0.4, 0.5]
    known = [(n, {"r": values[n]}, Line().trials({"r": values[n]})) for n in (0, 1, 2)]
    search = Search(tmp_path, values, known=known, n=4)
    assert search.inner.told == {"0": {"rate_nats": 1.5, "distortion_nats": 1.5}}
    assert search.planned == [], "they are in the plan"
    assert [search.launch() for _ in range(4)] == [0.2, 0.3, 0.4, Searcher.FINISHED]
    assert search.numbers == [0, 1, 2, 3]


def test_a_configuration_suggested_again_is_not_run_again(tmp_path):
    search = Search(tmp_path, [0.1, 0.1, 0.2, 0.1, 0.2], n=5)
    assert search.launch() == 0.1
    assert search.launch() == 0.2, "0.1 runs already"
    finish(tmp_path, 0.1, 1.0, 2.0)
    search.end(1)
    both = {"rate_nats": 1.5, "distortion_nats": 1.5}
    assert search.inner.told == {"0": both, "1": both}
    assert search.launch() == Searcher.FINISHED
    assert search.inner.told == {"0": both, "1": both, "3": both}
    finish(tmp_path, 0.2, 3.0, 2.0)
    search.end(2)
    assert search.inner.told["2"] == search.inner.told["4"] == {"rate_nats": 3.5, "distortion_nats": 1.5}
    assert search.planned == [(0, 0.1, 2), (1, 0.1, 2), (2, 0.2, 2), (3, 0.1, 2), (4, 0.2, 2)]


def test_what_has_no_value_ranks_last_and_what_failed_says_nothing(tmp_path):
    search = Search(tmp_path, [0.1, 0.2, 0.3, 0.4], objective="elbo")
    assert [search.launch() for _ in range(4)] == [0.1, 0.2, 0.3, 0.4]
    finish(tmp_path, 0.1, 1.0, 2.0, seeds=[0])
    finish(tmp_path, 0.1, 1.0, 2.0, seeds=[1], status="diverged")
    finish(tmp_path, 0.2, 1.0, 2.0, measure=None)  # no bound
    finish(tmp_path, 0.3, 1.0, 2.0, status="stopped")
    finish(tmp_path, 0.4, 1.0, 2.0, seeds=[0])
    finish(tmp_path, 0.4, 1.0, 2.0, seeds=[1], status="failed")
    for launch in (1, 2, 3):
        search.end(launch)
    search.end(4, error=True)
    assert search.inner.told == {"0": None, "1": None, "2": {"elbo_nats": -3.0}, "3": "failed"}


def test_nonsense_is_passed_over_and_not_counted_or_ends_the_search(tmp_path):
    search = Search(tmp_path, [-1.0, 0.1, -2.0, 0.2, 0.3], n=2)
    assert [search.launch() for _ in range(3)] == [0.1, 0.2, Searcher.FINISHED]
    assert search.inner.told == {"0": "failed", "2": "failed"}
    assert search.planned == [(1, 0.1, 2), (3, 0.2, 2)]
    strict = Search(tmp_path, [0.1, -1.0, 0.2], skip=False)
    assert [strict.launch(), strict.launch(), strict.launch()] == [0.1, Searcher.FINISHED, Searcher.FINISHED]
    assert "r=-1.0 makes no sense" in strict.tune.refusal and "nonsense: skip" in strict.tune.refusal


@pytest.mark.parametrize("n", [1000])
def test_a_space_of_nonsense_ends(tmp_path, n):
    search = Search(tmp_path, [-1.0] * n)
    assert search.launch() == Searcher.FINISHED and f"{n} suggestions in a row" in search.tune.refusal
