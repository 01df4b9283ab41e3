from dataclasses import dataclass
from typing import Annotated, Literal

from distvae.metrics.metric import Column, MetricPart
from distvae.part import Hyper


@dataclass(frozen=True, kw_only=True)
class Moments(MetricPart):
    type: Literal["moments"] = "moments"
    power: Annotated[int, Hyper(low=1, doc="p")] = 2

    def columns(self, trial):
        return (Column("mu_moment", "", "x"),)

    def measure(self, subject, split):
        return {"mu_moment": float(subject.means(split).pow(self.power).mean())}


@dataclass(frozen=True, kw_only=True)
class Sizes(MetricPart):
    type: Literal["sizes"] = "sizes"

    def columns(self, trial):
        return (Column("n_rows", "examples", "x", whole=True), Column("mi_nats", "nats", "x"))

    def why_not(self, subject):
        return "no factors" if subject.trial.vae.latent_dim == 2 else None

    def measure(self, subject, split):
        if subject.trial.vae.latent_dim == 3:
            raise ValueError("boo")
        return {"n_rows": len(subject.split(split)), "mi_nats": 1.0}
