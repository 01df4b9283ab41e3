"""A study: the trials of one YAML file and how they are run. What is here cannot change a trial's numbers, so none of
it is in the key."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from distvae.metrics.menu import Metric
from distvae.part import Hyper, Part
from distvae.sweeps.algorithms import Optuna
from distvae.sweeps.schedulers import Asha, HyperBand, Median
from distvae.training.halving import Halving
from distvae.trial import Trial

if TYPE_CHECKING:
    from distvae.config import Loader

Engine = Literal["deepspeed", "torch"]
Algorithm = Optuna  # who chooses configurations one by one
Scheduler = Halving | Asha | Median | HyperBand  # what ends trials before their last epoch


@dataclass(frozen=True, kw_only=True)
class Resources(Part):
    """What a trial gets."""

    workers: Annotated[int, Hyper(low=1, high=4096, doc="data-parallel ranks per trial")] = 1
    gpus: Annotated[float, Hyper(low=0.0, high=1.0, doc="GPUs per rank; a fraction shares one")] = 0.0
    threads: Annotated[int, Hyper(low=1, high=256, doc="CPU threads per rank, pinned")] = 1
    concurrency: Annotated[
        int | None, Hyper(low=1, high=10_000, doc="trials at a time; default: as many as the cores allow")
    ] = None
    checkpoint_s: Annotated[float, Hyper(above=0.0, high=1e6, doc="seconds between a running trial's checkpoints")] = (
        30.0
    )
    keep: Annotated[
        Literal["weights", "all", "none"],
        Hyper(doc="what stays of an ended trial's checkpoint: its weights, all, none"),
    ] = "weights"
    fuse: Annotated[
        Literal["auto", "off"] | int,
        Hyper(low=1, high=4096, doc="trials trained as one stacked model: where it pays, never, or at most so many"),
    ] = "auto"


@dataclass(frozen=True, kw_only=True)
class Search(Part):
    """How ranges that are drawn rather than crossed are sampled, and which trials go on."""

    samples: Annotated[int, Hyper(low=1, high=100_000, doc="draws per grid cell")] = 1
    seed: Annotated[int, Hyper(low=0, high=2**63 - 1, doc="seed of the draws: the same plan on every re-run")] = 0
    nonsense: Annotated[
        Literal["error", "skip"],
        Hyper(doc="combinations of parts that make no sense: an error, or left out and counted"),
    ] = "error"
    scheduler: Annotated[
        Scheduler | None, Hyper(doc="what ends trials before their last epoch; default: nothing does")
    ] = None

    algorithm: Annotated[
        Algorithm | None, Hyper(doc="what chooses configurations one by one; default: the space is expanded")
    ] = None

    @property
    def tuned(self) -> str | None:
        """What of Ray Tune's own decides, if anything does: then it schedules one configuration at a time."""
        if self.scheduler is not None and not isinstance(self.scheduler, Halving):
            return f"search.scheduler: {self.scheduler.type}"
        return None if self.algorithm is None else f"search.algorithm: {self.algorithm.type}"


@dataclass(frozen=True, kw_only=True)
class Tracking(Part):
    """Where MLflow lives."""

    uri: Annotated[str | None, Hyper(doc="MLflow tracking URI; default: SQLite in OUT/mlflow.db")] = None


@dataclass(frozen=True, kw_only=True)
class Measured(Part):
    """One metric of `metrics:`."""

    metrics: Annotated[Metric, Hyper(doc="what is measured of trials that have ended")]


@dataclass(frozen=True)
class Study:
    """The trials of one YAML file, in order, duplicates removed."""

    name: str
    trials: tuple[Trial, ...]
    duplicates: int = 0  # planned twice by the space, kept once
    skipped: int = 0  # configurations left out because their parts do not go together (search.nonsense: skip)
    engine: Engine = "deepspeed"
    deepspeed: dict[str, Any] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)
    search: Search = field(default_factory=Search)
    tracking: Tracking = field(default_factory=Tracking)
    metrics: tuple[Metric, ...] = ()  # what is measured of trials that have ended
    source: Loader | None = None  # what a search algorithm chooses from; then `trials` are those chosen so far
    resolved: str = ""  # the YAML as it was understood, `--set` included: OUT/sweep.yaml
