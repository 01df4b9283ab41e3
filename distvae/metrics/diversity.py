"""Diversity and smoothness of Gaussian posteriors (DU-VAE, S2 Section 3), nats.

    MPD = mean over pairs of KL(q(z|x_i) || q(z|x_j))                        Eqs. 2-3, `kernels.diversity`
    CE  = E_x H[q(z|x)] = D/2 ln(2 pi e) + 1/2 sum_d E[ln var_d]             Section 3.1, `latent.conditional_entropy`

Errata. Eq. 3 prints one -1 for all dimensions; it is one per dimension. S2 means over all pairs, i = j among them, which
are 0; MAE's code (Ma et al. 2019) leaves them out: N / (N - 1) times as much, the unbiased one. Both are columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from distvae.kernels import mpd
from distvae.metrics.latent import conditional_entropy
from distvae.metrics.metric import Column, MetricPart

if TYPE_CHECKING:
    from distvae.metrics.subject import Subject
    from distvae.trial import Trial


@dataclass(frozen=True, kw_only=True)
class Diversity(MetricPart):
    """Mean pairwise divergence and conditional entropy of Gaussian posteriors (DU-VAE)."""

    type: Literal["diversity"] = "diversity"

    def columns(self, trial: Trial) -> tuple[Column, ...]:
        return (
            Column("mpd_nats", "nats", "mean over all pairs of examples, i = j included, of KL(q_i || q_j) (S2)"),
            Column("mpd_distinct_nats", "nats", "the same over pairs of different examples (unbiased)"),
            Column("conditional_entropy_nats", "nats", "mean over examples of the entropy of q(z|x)"),
        )

    def why_not(self, subject: Subject) -> str | None:
        posterior = subject.vae.model.posterior
        return None if posterior.gaussian else f"it is of Gaussian posteriors, and this one is {posterior.type}"

    def measure(self, subject: Subject, split: str) -> dict[str, float | None]:
        mu, var = subject.posterior(split)
        logvar = var.log()
        return {
            "mpd_nats": float(mpd(mu, logvar)),
            "mpd_distinct_nats": float(mpd(mu, logvar, statistic="u")) if len(mu) > 1 else None,
            "conditional_entropy_nats": conditional_entropy(logvar),
        }
