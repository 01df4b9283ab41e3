"""How many latent dimensions carry anything about x, beside the `active_units` of every row (Burda et al. 2016: those
whose posterior mean has a variance above 0.01 over the examples; `latent.active_units`).

Active units at other thresholds. 0.01 is a convention; where the count is much the same a decade to either side, it
does not hang on it.

Collapsed dimensions (Gaussian posteriors). With m_d, v_d the mean and variance of the aggregated posterior of dimension d,
v_d = Var_x[mu_d] + E_x[var_d],

    E_x KL(q(z_d|x) || N(m_d, v_d)) = 1/2 (ln v_d - E_x[ln var_d])

is the least mean KL that dimension has to any one Gaussian, hence never above that to N(0, 1), and never below I(x; z_d):
under a threshold, x is as good as absent from it. Not the KL to the model's own prior: a dimension that ignores x has a
KL of its own to a prior that no Gaussian fits (`binarized`: 0.011 nats at r = 1, 0.23 at r = 2), and none would count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from torch import Tensor

from distvae.metrics.latent import active_units
from distvae.metrics.metric import Column, MetricPart
from distvae.part import Hyper

if TYPE_CHECKING:
    from distvae.metrics.subject import Subject
    from distvae.trial import Trial


def least_gaussian_kl(mu: Tensor, var: Tensor) -> Tensor:
    """min over m, v of mean_x KL(N(mu_d, var_d) || N(m, v)) `[D]`, float64 nats, of `[N, D]` means and variances."""
    mu, var = mu.double(), var.double()
    aggregate = mu.var(0, correction=0) + var.mean(0)
    return 0.5 * (aggregate.log() - var.log().mean(0))


@dataclass(frozen=True, kw_only=True)
class ActiveUnits(MetricPart):
    """Active units at other thresholds than 0.01, and collapsed dimensions."""

    type: Literal["active_units"] = "active_units"
    thresholds: Annotated[
        tuple[float, ...], Hyper(above=0.0, doc="variances of the posterior mean above which a dimension is active")
    ] = (0.001, 0.1)
    kl_threshold: Annotated[
        float, Hyper(above=0.0, doc="mean KL to its own aggregate below which a dimension is collapsed, nats")
    ] = 0.01

    def __post_init__(self) -> None:
        names = [f"{t:g}" for t in self.thresholds]
        if twice := {n for n in names if names.count(n) > 1}:
            raise ValueError(f"thresholds: {', '.join(sorted(twice))} twice: each has a column of its own")

    def columns(self, trial: Trial) -> tuple[Column, ...]:
        each = (
            Column(
                f"active_units_{t:g}",
                "dimensions",
                f"dimensions whose posterior mean varies by more than {t:g} over examples",
                whole=True,
            )
            for t in self.thresholds
        )
        doc = f"dimensions whose mean KL to the Gaussian nearest to all of them is below {self.kl_threshold:g} nats"
        return (*each, Column("collapsed_dims", "dimensions", doc, whole=True))

    def measure(self, subject: Subject, split: str) -> dict[str, int | None]:
        mu = subject.means(split)
        counts: dict[str, int | None] = {
            f"active_units_{t:g}": active_units(mu, t) if len(mu) > 1 else None for t in self.thresholds
        }
        counts["collapsed_dims"] = None
        if subject.vae.model.posterior.gaussian:
            q = subject.posterior(split)
            counts["collapsed_dims"] = int((least_gaussian_kl(q.mu, q.var) < self.kl_threshold).sum())
        return counts
