"""A search that suggests configurations one by one: Tune asks, Optuna answers, and every suggestion is in the plan
before it is launched.

The plan is the memory. On resume its suggestions are asked of Optuna again, in their order, and those with committed
rows told at once, without running; those that have not ended run first; new ones follow. A suggestion is one
configuration with all its seeds, and what is told of it is the mean over them at the last epoch. One whose parts do not
go together, or that has a failed seed, is told as failed; one with a diverged seed, or without a bound, as pruned,
which ranks last."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ray.tune.search import Searcher

from distvae.results.ledger import History
from distvae.sweeps.algorithms import Optuna
from distvae.sweeps.searching import Known, Refused
from distvae.trial import Trial

NONSENSE_IN_A_ROW = 1000  # suggestions refused one after the other before the search gives up


class OptunaMissingError(Exception):
    """Optuna is not installed (exit code 4)."""


class Space(Protocol):
    """What may be suggested."""

    def values(self, ask: Any) -> None:
        """Ask an `optuna.Trial` for the value of one dimension after the other (define by run)."""
        ...

    def trials(self, values: Mapping[str, Any]) -> Sequence[Trial]:
        """All seeds of the configuration. Raises Refused if its parts do not go together."""
        ...


@dataclass
class Suggestion:
    """One configuration that was suggested, and every number it was suggested by."""

    trials: tuple[Trial, ...]
    numbers: list[int] = field(default_factory=list)

    @property
    def key(self) -> str:
        return self.trials[0].config_key


def optuna_search(algorithm: Optuna, seed: int, space: Space, known: Sequence[Mapping[str, Any]]) -> tuple[Any, Any]:
    """(Tune's searcher, its addressed sampler); the `known` values are what it suggests first."""
    try:
        import optuna
    except ImportError:
        raise OptunaMissingError("search.algorithm: optuna is not installed here (pip install optuna)") from None
    from ray.tune.search.optuna import OptunaSearch

    from distvae.sweeps.addressed import Addressed

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def make(seed: int) -> Any:
        if algorithm.sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=algorithm.startup)

    sampler = Addressed(make, seed)
    one = len(algorithm.metrics) == 1
    search = OptunaSearch(
        space=space.values,
        metric=algorithm.metrics[0] if one else algorithm.metrics,
        mode=algorithm.modes[0] if one else algorithm.modes,
        points_to_evaluate=[dict(v) for v in known] or None,
        sampler=sampler,
    )
    return search, sampler


class Suggestions(Searcher):
    """Tune's searcher. `inner` is asked and told by number ("0", "1", ...); `at` says which number comes next;
    `history` is the record of a trial that has ended for good; `planned` is called with a new suggestion before it is launched; `task` makes of a configuration's trials what a gang trains; `settle` is called when Tune is
    done with them, before their history is read."""

    def __init__(
        self,
        algorithm: Optuna,
        space: Space,
        *,
        inner: Searcher,
        at: Callable[[int], None],
        history: Callable[[Trial], History | None],
        planned: Callable[[int, Mapping[str, Any], Sequence[Trial]], None],
        task: Callable[[Sequence[Trial]], dict[str, Any]],
        settle: Callable[[Sequence[Trial]], None] = lambda trials: None,
        known: Sequence[Known] = (),
        skip: bool = False,
    ):
        super().__init__()
        self.algorithm, self.space, self.inner, self.at = algorithm, space, inner, at
        self.history, self.planned, self.task, self.settle, self.skip = history, planned, task, settle, skip
        self.suggestions: dict[str, Suggestion] = {}  # by config_key, in order
        self.waiting: list[Suggestion] = []  # planned earlier, not ended
        self.running: dict[str, Suggestion] = {}  # Tune's trial id -> suggestion
        self.open: dict[str, list[int]] = {}  # config_key -> numbers that have not been told
        self.number = self.nonsense = 0
        self.refusal: str | None = None  # why the search ended early
        for number, _, trials in known:
            self._ask(number)
            self._take(number, trials)

    def __getstate__(self) -> dict[str, Any]:  # Tune pickles it for a state file that we never read
        return {}

    def save(self, checkpoint_path: str) -> None:
        return None

    @property
    def asked(self) -> int:
        return sum(len(s.numbers) for s in self.suggestions.values())

    # --- what Tune calls --------------------------------------------------------------------------------------------

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        while not self.waiting:
            if self.refusal is not None or self.asked >= self.algorithm.trials:
                return Searcher.FINISHED
            self._propose()
        suggestion = self.waiting.pop(0)
        self.running[trial_id] = suggestion
        return {"task": self.task(suggestion.trials)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        suggestion = self.running.pop(trial_id, None)
        if suggestion is not None and not error:
            self.settle(suggestion.trials)
        if suggestion is not None and not self._tell(suggestion):
            for number in self.open.pop(suggestion.key):  # failed, or interrupted
                self.inner.on_trial_complete(str(number), error=True)

    # --- ask and tell -----------------------------------------------------------------------------------------------

    def _ask(self, number: int) -> dict[str, Any]:
        self.at(number)
        self.number = number + 1
        return self.inner.suggest(str(number))  # type: ignore[return-value]

    def _propose(self) -> None:
        number = self.number
        values = self._ask(number)
        try:
            trials = self.space.trials(values)
        except Refused as e:
            self.inner.on_trial_complete(str(number), error=True)
            self.nonsense += 1
            if not self.skip:
                self.refusal = f"{e} (search: {{nonsense: skip}} passes over what does not go together)"
            elif self.nonsense >= NONSENSE_IN_A_ROW:
                self.refusal = f"{self.nonsense} suggestions in a row do not go together; the last: {e}"
            return
        self.nonsense = 0
        self.planned(number, values, trials)
        self._take(number, trials)

    def _take(self, number: int, trials: Sequence[Trial]) -> None:
        """A suggestion joins the search: told if it has ended, else it runs, unless it runs already."""
        suggestion = Suggestion(tuple(trials))
        new = suggestion.key not in self.suggestions
        suggestion = self.suggestions.setdefault(suggestion.key, suggestion)
        suggestion.numbers.append(number)
        self.open.setdefault(suggestion.key, []).append(number)
        if not self._tell(suggestion) and new:
            self.waiting.append(suggestion)

    def _tell(self, suggestion: Suggestion) -> bool:
        """Tell what the configuration reached, if all its seeds have ended."""
        histories = [h for t in suggestion.trials if (h := self.history(t)) is not None]
        if len(histories) < len(suggestion.trials):
            return False
        means = [sum(h.last(m) for h in histories) / len(histories) for m in self.algorithm.metrics]
        bad = any(h.status == "diverged" for h in histories) or any(math.isnan(m) for m in means)
        result = None if bad else dict(zip(self.algorithm.metrics, means, strict=True))
        for number in self.open.pop(suggestion.key):
            self.inner.on_trial_complete(str(number), result)
        return True
