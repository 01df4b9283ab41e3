"""A trial that ends by itself in a later phase of its bracket does not leave the paused ones waiting for ever."""

import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import HyperBandScheduler, TrialScheduler

from distvae.sweeps.hyperband import Brackets


class Fake:
    """A trial as the scheduler sees it."""

    is_saving = False

    def __init__(self, name):
        self.name, self.status = name, Trial.RUNNING


class Controller:
    def __init__(self, scheduler):
        self.scheduler, self.stopped = scheduler, []

    def stop_trial(self, trial):
        self.stopped.append(trial.name)
        self.scheduler.on_trial_remove(self, trial)
        trial.status = Trial.TERMINATED


@pytest.mark.parametrize(("kind", "waits"), [(Brackets, False), (HyperBandScheduler, True)])
def test_a_bracket_is_looked_at_again_when_a_trial_diverges(kind, waits):
    """Brackets of max_t = 9, eta = 3 hold 3, 5 and 9 trials; the last one halves at epochs 1 and 3. Ray's own scheduler
    is here to say when ours is no longer needed."""
    scheduler = kind(time_attr="epoch", metric="score", mode="max", max_t=9, reduction_factor=3)
    controller, trials = Controller(scheduler), [Fake(i) for i in range(17)]

    def report(trial, epoch):
        trial.status = Trial.RUNNING
        decision = scheduler.on_trial_result(controller, trial, {"epoch": epoch, "score": float(trial.name)})
        if decision == TrialScheduler.PAUSE:
            trial.status = Trial.PAUSED
        elif decision == TrialScheduler.STOP:
            scheduler.on_trial_complete(controller, trial, {})
            trial.status = Trial.TERMINATED
        return decision

    for t in trials:
        scheduler.on_trial_add(controller, t)
    last = trials[8:]
    for t in last:
        report(t, 1)
    assert sorted(controller.stopped) == [8, 9, 10, 11, 12, 13], "the best third goes on"
    a, b, c = last[-3:]
    assert report(a, 3) == report(b, 3) == TrialScheduler.PAUSE
    assert report(c, 2) == TrialScheduler.CONTINUE
    c.status = Trial.TERMINATED
    scheduler.on_trial_complete(controller, c, {})  # it diverged
    assert (controller.stopped[6:] == []) is waits
    for t in trials[:8]:
        t.status = Trial.TERMINATED
    assert scheduler.choose_trial_to_run(controller) is (None if waits else b)
