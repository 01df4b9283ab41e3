"""A sampler of Optuna whose suggestion n draws from (search seed, n) and what has been told by then: one that goes on
after an interruption suggests what an uninterrupted one would have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from optuna.samplers import BaseSampler


class Addressed(BaseSampler):
    """`make` builds the sampler of one suggestion from its seed; it must keep no state but its generator's."""

    def __init__(self, make: Callable[[int], BaseSampler], seed: int):
        self.make, self.seed = make, seed
        self.inner = make(0)

    def at(self, number: int) -> None:
        """The next suggestion is this one."""
        self.inner = self.make(int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0]))

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        return self.inner.infer_relative_search_space(study, trial)

    def sample_relative(self, study: Any, trial: Any, search_space: dict[str, Any]) -> dict[str, Any]:
        return self.inner.sample_relative(study, trial, search_space)

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        return self.inner.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Any, trial: Any) -> None:
        self.inner.before_trial(study, trial)

    def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
        self.inner.after_trial(study, trial, state, values)
