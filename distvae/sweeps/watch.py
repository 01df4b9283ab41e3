"""Tune's hooks, passed on to the driver. Tune pickles callbacks and stoppers for a state file of its own that we never
read: theirs is empty."""

from __future__ import annotations

import threading
from typing import Any

from ray import tune


class Watch(tune.Callback):
    """Tells `driver` of starts, results, ends and failures (see `run._Driver`)."""

    def __init__(self, driver: Any):
        self.driver = driver

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_step_begin(self, iteration: int, trials: Any, **info: Any) -> None:
        self.driver.serve()

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.driver.started(trial.config["task"])

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
        self.driver.reported(result)

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        trial.config["task"]["stacked"] = False  # what one of a stack raises would end them all
        self.driver.retried(trial.config["task"])

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.driver.completed(trial.config["task"])

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.driver.failed(trial.config["task"])


class Drain(tune.Stopper):
    """Stops every trial at its next report once `draining` is set."""

    def __init__(self, draining: threading.Event):
        self.draining = draining

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self.draining.is_set()

    def stop_all(self) -> bool:
        return self.draining.is_set()
