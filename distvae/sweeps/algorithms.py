"""Search algorithms as parts of the YAML: who chooses the configurations that are tried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from distvae.part import Hyper, Part


@dataclass(frozen=True, kw_only=True)
class Optuna(Part):
    """Optuna, through Ray Tune: each configuration is suggested by what the earlier ones reached. Ranges and grids alike
    are dimensions of its space; it is told the mean over the seeds at the last epoch, on the valid split."""

    type: Literal["optuna"] = "optuna"
    trials: Annotated[int, Hyper(low=1, high=100_000, doc="configurations to suggest, each run with all seeds")] = 50
    objective: Annotated[
        Literal["rate_distortion", "elbo"],
        Hyper(doc="what is searched for: the front of least rate_nats and distortion_nats, or the highest elbo_nats"),
    ] = "rate_distortion"
    sampler: Annotated[Literal["tpe", "random"], Hyper(doc="Optuna's sampler (TPE: Bergstra et al. 2011)")] = "tpe"
    startup: Annotated[int, Hyper(low=1, high=100_000, doc="tpe: random suggestions before the first informed one")] = (
        10
    )

    @property
    def metrics(self) -> list[str]:
        """Columns of the curve."""
        return ["rate_nats", "distortion_nats"] if self.objective == "rate_distortion" else ["elbo_nats"]

    @property
    def modes(self) -> list[str]:
        return ["min", "min"] if self.objective == "rate_distortion" else ["max"]
