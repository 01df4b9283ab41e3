"""KL(q(z|x) || N(0, I)) of Gaussian posteriors, beside the rate of every row, whatever the prior: the third of the three
numbers that tell a binarized model's KLs apart (methods S1.4):

    rate_surrogate_nats        what training weighed, to the nearest mode: a KL to no fixed prior
    kl_standard_normal_nats    to N(0, I): comparable over r, and the rate of a model whose prior that is
    rate_nats                  to the normalised prior: the rate"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from distvae.metrics.latent import mean
from distvae.metrics.metric import Column, MetricPart
from distvae.priors.normal import kl_standard_normal

if TYPE_CHECKING:
    from distvae.metrics.subject import Subject
    from distvae.trial import Trial


@dataclass(frozen=True, kw_only=True)
class Rate(MetricPart):
    """KL to N(0, I), whatever the prior."""

    type: Literal["rate"] = "rate"

    def columns(self, trial: Trial) -> tuple[Column, ...]:
        return (
            Column("kl_standard_normal_nats", "nats/example", "KL(q(z|x) || N(0, I)): the rate if p(z) were N(0, I)"),
            Column("kl_standard_normal_se", "nats/example", "standard error of kl_standard_normal_nats over examples"),
        )

    def why_not(self, subject: Subject) -> str | None:
        posterior = subject.vae.model.posterior
        return None if posterior.gaussian else f"it is of Gaussian posteriors, and this one is {posterior.type}"

    def measure(self, subject: Subject, split: str) -> dict[str, float]:
        value, se = mean(kl_standard_normal(*subject.posterior(split)).sum(-1))
        return {"kl_standard_normal_nats": value, "kl_standard_normal_se": se}
