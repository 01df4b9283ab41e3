"""How Tune gets its groups: one when it asks, and nothing is kept of it once it is over."""

import pytest

pytest.importorskip("ray")

from ray import tune
from ray.tune.experiment import Experiment
from ray.tune.search import ConcurrencyLimiter, SearchGenerator

from distvae.sweeps.handing import Groups, forget


class Counted(dict):
    """A task that counts how often it is copied."""

    copies = 0

    def __deepcopy__(self, memo):
        Counted.copies += 1
        return Counted(self)


class Nothing(tune.Trainable):
    pass


@pytest.fixture
def search(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AIR_LOCAL_CACHE_DIR", str(tmp_path))
    Counted.copies = 0
    tasks = (Counted(id=str(i), members=[{"key": f"{i:016x}", "config_json": "x" * 1000}]) for i in range(300))
    found = SearchGenerator(ConcurrencyLimiter(Groups(tasks), max_concurrent=2))
    found.set_search_properties(None, None, {})
    found.add_configurations(
        [Experiment("x", Nothing, config={"job": {}}, num_samples=10**6, storage_path=str(tmp_path))]
    )
    return found


def test_a_group_is_handed_in_its_turn_and_no_other_is_copied(search):
    first, second = search.next_trial(), search.next_trial()
    assert [t.config["task"]["id"] for t in (first, second)] == ["0", "1"]
    assert search.next_trial() is None and not search.is_finished()  # two at a time
    assert Counted.copies <= 4
    seen = [first, second]
    while not search.is_finished():
        search.on_trial_complete(seen[-2].trial_id, {})
        seen += [t for t in (search.next_trial(),) if t is not None]
    assert [t.config["task"]["id"] for t in seen] == [str(i) for i in range(300)]
    assert Counted.copies <= 2 * 300


def test_nothing_of_its_task_stays_with_a_group_that_is_over(search):
    trial = search.next_trial()
    assert "x" * 1000 in trial.experiment_tag and "x" * 1000 in str(trial.evaluated_params)
    trial.update_last_result({"score": 1.0, "done": True})
    trial.get_json_state()
    forget(trial)
    assert "x" * 1000 not in str(vars(trial)) + str(trial.get_json_state())
    assert trial.last_result["done"] and not trial.run_metadata.metric_analysis
