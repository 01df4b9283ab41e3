"""Ray Tune's own schedulers as parts of the YAML: ASHA, median stopping, HyperBand. Each ends configurations before
their last epoch, at evaluations, by their mean score over the seeds on the valid split.

What Tune schedules is one configuration, with all its seeds: they train in lockstep and share its fate. A seed that
diverged, or a bound that does not exist, ranks last. `Halving` (training/halving.py) is our own rule, inside groups."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from distvae.part import Hyper
from distvae.sweeps.evaluations import Evaluations
from distvae.training.halving import Ranking

if TYPE_CHECKING:
    from distvae.results.ledger import History

TIME, SCORE = "epoch", "score"  # keys of a report to Tune (see `gang.py`)


@dataclass(frozen=True, kw_only=True)
class Asha(Ranking):
    """ASHA: at epochs grace * eta^k a configuration goes on if it is among the best 1 / eta of those that have come so
    far (Li et al. 2020, arXiv 1810.05934). Who comes first is judged mildly: decisions depend on the order of arrival."""

    type: Literal["asha"] = "asha"
    grace: Annotated[int, Hyper(low=1, high=10**6, doc="epochs of the first rung")] = 1
    eta: Annotated[float, Hyper(above=1.0, high=100.0, doc="about 1 / eta of the configurations pass a rung")] = 3.0

    def build(self, epochs: int) -> Any:
        from ray.tune.schedulers import ASHAScheduler

        return ASHAScheduler(
            time_attr=TIME,
            metric=SCORE,
            mode="max",
            max_t=epochs,
            grace_period=min(self.grace, epochs),
            reduction_factor=self.eta,
        )


@dataclass(frozen=True, kw_only=True)
class Median(Ranking):
    """Median stopping: a configuration ends when its best score so far is below the median of the others' running
    means up to the same epoch (Golovin et al. 2017, Vizier)."""

    type: Literal["median"] = "median"
    grace: Annotated[int, Hyper(low=1, high=10**6, doc="epochs before which nothing ends or is averaged")] = 1
    least: Annotated[int, Hyper(low=1, high=10**6, doc="configurations that a median needs")] = 3

    def build(self, epochs: int) -> Any:
        from ray.tune.schedulers import MedianStoppingRule

        return MedianStoppingRule(
            time_attr=TIME,
            metric=SCORE,
            mode="max",
            grace_period=self.grace,
            min_samples_required=self.least,
            min_time_slice=math.inf,  # type: ignore[arg-type]  # else it pauses trials until there is a median
        )


@dataclass(frozen=True, kw_only=True)
class HyperBand(Ranking):
    """HyperBand: brackets of successive halving, from many configurations ended early to few never ended (Li et al.
    2018, JMLR 18). Trials pause at a rung until their bracket has met there. A resumed sweep forms new brackets."""

    type: Literal["hyperband"] = "hyperband"
    eta: Annotated[float, Hyper(above=1.0, high=100.0, doc="1 / eta of a bracket's configurations pass a rung")] = 3.0

    def build(self, epochs: int) -> Any:
        from distvae.sweeps.hyperband import Brackets

        return Brackets(time_attr=TIME, metric=SCORE, mode="max", max_t=epochs, reduction_factor=self.eta)


def recall(scheduler: Any, metric: str, past: Iterable[Mapping[str, History]]) -> None:
    """Tell ASHA or median stopping of configurations that ended in an earlier run (key -> what each seed measured): their
    rungs and medians are those of the whole sweep."""
    for seeds in past:
        told = Evaluations(metric, list(seeds))
        for key, history in seeds.items():
            told.add(key, history.rows, max((r["epoch"] for r in history.rows), default=0), history.status)
        trial = _Past(",".join(seeds))
        scheduler.on_trial_add(None, trial)
        while (due := told.next()) is not None:
            scheduler.on_trial_result(None, trial, {TIME: due[0], SCORE: due[1]})


@dataclass(frozen=True, eq=False)
class _Past:
    """All of a Tune trial that these schedulers look at."""

    trial_id: str


TuneScheduler = Asha | Median | HyperBand
