"""Mutual information gap (Chen, Li, Grosse, Duvenaud 2018, Section 4): of each generating factor, by how much the latent
dimension that knows most about it is ahead of the next,

    MIG = mean_k  (I(z_a; v_k) - I(z_b; v_k)) / H(v_k)         a, b: the two dimensions with the largest I(z_j; v_k)

in [0, 1]: 1 if each factor is in one dimension whole. Factors are the data's whole numbers, never binned (binned, or
with H in other units than I, MIG comes out near 1e-3: a bug others had). A factor that does not vary in the split is
left out. I and H are of the examples there are, in nats; the ratio has no unit. Two estimators of I:

    histogram   of posterior means in `bins` equal bins between a dimension's least and largest value (Locatello et al.
                2019; plug-in, so too large by about bins |v_k| / (2 N) nats, which mostly cancels in the gap). Bins and
                not the posterior's noise decide what is told apart: a dimension of tiny variance counts in full, and a
                factor of more values than bins cannot reach H (ln 20 of ln 40: at most 0.81).
    density     the paper's, for Gaussian posteriors: z ~ q(z|x), and log densities under the mean of
                the posteriors of all examples, and of those with the same v_k. Time O(N^2 Z), memory O(N Z)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distvae.kernels import log_marginals
from distvae.metrics.codes import Codes, Whole, codes, no_factors, varying
from distvae.metrics.metric import Column, MetricPart
from distvae.part import Hyper

if TYPE_CHECKING:
    from distvae.metrics.subject import Subject
    from distvae.trial import Trial

BINS = 20


def mig(means: Codes, factors: Whole, *, bins: int = BINS) -> float:
    """MIG of posterior means `[N, Z]` by histograms, factors `[N, F]`. Raises ValueError if Z < 2 or no factor
    varies."""
    return gap(histogram_information(means, factors, bins=bins), factors)


def gap(information: NDArray[np.float64], factors: Whole) -> float:
    """MIG of the mutual information `[Z, F]`, nats, between dimensions and factors `[N, F]`."""
    live = varying(factors)
    if len(information) < 2 or not live.any():
        raise ValueError(f"information: {len(information)} dimensions, {live.sum()} factors that vary: 2 and 1 needed")
    second, first = np.sort(information[:, live], axis=0)[-2:]
    return float(((first - second) / entropies(factors[:, live])).mean())


def entropies(factors: Whole) -> NDArray[np.float64]:
    """H(v_k) `[F]`, nats."""
    from scipy.stats import entropy

    return np.array([entropy(np.unique(v, return_counts=True)[1]) for v in factors.T])


def histogram_information(means: Codes, factors: Whole, *, bins: int = BINS) -> NDArray[np.float64]:
    """I(bin of z_j; v_k) `[Z, F]`, nats."""
    from sklearn.metrics import mutual_info_score

    return np.array([[mutual_info_score(z, v) for v in factors.T] for z in binned(means, bins).T])


def binned(means: Codes, bins: int) -> Whole:
    """The bin `[N, Z]`, 0..bins-1, of each value, of equal bins over its dimension's range."""
    low, width = means.min(0), np.ptp(means, axis=0)
    at = (means - low) / np.where(width > 0, width, 1.0) * bins
    return np.minimum(at.astype(np.int64), bins - 1)


def density_information(z: Tensor, mu: Tensor, logvar: Tensor, factors: Whole) -> NDArray[np.float64]:
    """I(z_j; v_k) `[Z, F]`, nats: mean of log q(z_j | v_k) - log q(z_j), at one draw z of each N(mu, e^logvar),
    `[N, Z]`. Log densities in float32 (compiled kernels), means in float64."""
    z, mu, logvar = z.float(), mu.float(), logvar.float()
    joint, out = log_marginals(z, mu, logvar), []
    for v in factors.T:
        given = torch.empty_like(joint)
        for value in np.unique(v):
            rows = torch.from_numpy(np.flatnonzero(v == value))
            given[rows] = log_marginals(z[rows], mu[rows], logvar[rows])
        out.append((given - joint).double().mean(0))
    return torch.stack(out, 1).numpy()


@dataclass(frozen=True, kw_only=True)
class Mig(MetricPart):
    """Mutual information gap."""

    type: Literal["mig"] = "mig"
    estimator: Annotated[
        Literal["histogram", "density"],
        Hyper(doc="of mutual information: bins of posterior means, or the paper's, of sampled z and the posteriors"),
    ] = "histogram"
    bins: Annotated[int, Hyper(low=2, high=100_000, doc="equal bins of a dimension (estimator histogram)")] = BINS

    def columns(self, trial: Trial) -> tuple[Column, ...]:
        if self.estimator == "density":
            return (Column("mig_density", "", "mutual information gap, of sampled z by the posteriors' densities"),)
        return (Column("mig", "", f"mutual information gap, by histograms of posterior means, {self.bins} bins"),)

    def why_not(self, subject: Subject) -> str | None:
        if self.estimator == "density" and not subject.trial.vae.posterior.gaussian:
            return f"estimator: density is of Gaussian posteriors, not {subject.trial.vae.posterior.type}"
        return no_factors(subject, self.splits, dimensions=2)

    def measure(self, subject: Subject, split: str) -> Mapping[str, float | int | None]:
        factors = subject.factors(split)
        assert factors is not None, "why_not"
        if self.estimator == "histogram":
            return {"mig": mig(codes(subject, split), factors, bins=self.bins)}
        q, z = subject.posterior(split), subject.latents(split)
        return {"mig_density": gap(density_information(z, q.mu, q.var.log(), factors), factors)}
