"""Tune's hooks, passed on. Tune pickles callbacks and stoppers for a state file of its own that we never
read: theirs is empty."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ray import tune

from distvae.sweeps.handing import forget

if TYPE_CHECKING:
    from distvae.sweeps.book import Book


class Watch(tune.Callback):
    """Tells `book` of starts, results, ends and failures; `serve` is called ten times a second."""

    def __init__(self, book: Book, serve: Callable[[], None]):
        self.book, self.serve = book, serve

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_step_begin(self, iteration: int, trials: Any, **info: Any) -> None:
        self.serve()

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.book.started(trial.config["task"])

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
        self.book.reported(result)
        for name in ("trials", "config"):  # Tune keeps each group's last result: all rows and the task
            result.pop(name, None)

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        trial.config["task"]["stacked"] = False  # what one of a stack raises would end them all
        self.book.retried(trial.config["task"])

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.book.completed(trial.config["task"])
        forget(trial)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.book.failed(trial.config["task"])
        forget(trial)


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
