"""The latent code of a whole split: where its rate goes, and how many dimensions carry it.

With x uniform over N examples, z ~ q(z|x) and the aggregated posterior q(z) = 1/N sum_j q(z | x_j), the rate splits
(Hoffman and Johnson 2016; Chen et al. 2018, Eq. 2; methods S4.7), in nats per example:

    E[log q(z|x) - log p(z)] = MI + KL(q(z) || p(z))                     I(x; z) and the prior's misfit
                             = MI + TC + DWKL                            p(z) = prod_d p(z_d)
    MI   = E[log q(z|x)  - log q(z)]
    TC   = E[log q(z)    - sum_d log q(z_d)]                             total correlation
    DWKL = E[sum_d log q(z_d) - sum_d log p(z_d)]                        dimension-wise KL

The expectations are means over one z per example, and q(z) is over all N, never a minibatch (S2.10). All terms use the
same draws, so both sums hold for every z, not just on average. Each term is a mean of logs of ratios at sampled z, so
it can come out slightly negative where its expectation is near 0.

Which mutual information. With q(z) over the N examples, x_i among them, the mean is unbiased for the information
between z and the *number* of the example; it cannot exceed ln N. As an estimate for the population the examples came
from, it is too low on average; with x_i left out of q(z_i) it is too high, and unbounded (Poole et al. 2019, "On
variational bounds of mutual information", the two bounds with a known conditional). The two bracket the population's.
What MI lacks, KL(q || p) has too much: their sum is unbiased.

Choices. Terms in float64 from log densities in z's dtype (distvae.kernels); standard errors are std / sqrt(N) over
examples, of the draw and the examples both, so somewhat too large for a fixed split. Slide typo (methods S4.7): the
expectation is under q and the first term is -log q(z)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from distvae.kernels import log_density, log_marginals, mpd
from distvae.kernels.arguments import like, tensor

LogPrior = Callable[[Tensor], Tensor]  # z [n, D] -> log p(z_d) [n, D], nats
ROWS = 8192  # examples of z at a time
ACTIVE = 0.01  # Burda et al. 2016
_LOG_2PI = math.log(2.0 * math.pi)


class Mean(NamedTuple):
    """A mean over examples and its standard error (nan for one example), nats."""

    value: float
    se: float


@dataclass(frozen=True)
class Terms:
    """log densities at one z per example, float64 `[N]`, nats."""

    given_x: Tensor  # log q(z|x)
    joint: Tensor  # log q(z)
    marginals: Tensor  # sum_d log q(z_d)
    prior: Tensor  # sum_d log p(z_d)
    others: Tensor | None = None  # log q(z) without the example's own component


@dataclass(frozen=True)
class Latent:
    """A split's decomposition. Nats per example unless it says otherwise."""

    examples: int
    rate: Mean  # E[log q(z|x) - log p(z)] by the same draws; the closed-form KL is its expectation
    mutual_information: Mean  # <= ln(examples)
    mutual_information_loo: Mean | None  # own component left out of q(z); None unless asked for
    aggregate_kl: Mean  # KL(q(z) || p(z))
    total_correlation: Mean
    dimensionwise_kl: Mean
    active_units: int  # dimensions
    conditional_entropy: float
    mpd: float  # over all pairs, i = j included (S2)


def decompose(
    z: Tensor,
    mu: Tensor,
    logvar: Tensor,
    *,
    log_prior: LogPrior | None = None,
    leave_one_out: bool = False,
    rows: int = ROWS,
) -> Latent:
    """Everything here, of posteriors N(mu, e^logvar) `[N, D]` and one draw `z` `[N, D]` of each, in the same order.

    `log_prior(z)` gives log p(z_d) per dimension (default: standard normal). `leave_one_out` adds the second mutual
    information for one more pass over the joint. Time O(N^2 D), memory O(N D). Raises TypeError, ValueError."""
    t = terms(z, mu, logvar, log_prior=log_prior, leave_one_out=leave_one_out, rows=rows)
    return Latent(
        examples=z.shape[0],
        rate=mean(t.given_x - t.prior),
        mutual_information=mean(t.given_x - t.joint),
        mutual_information_loo=None if t.others is None else mean(t.given_x - t.others),
        aggregate_kl=mean(t.joint - t.prior),
        total_correlation=mean(t.joint - t.marginals),
        dimensionwise_kl=mean(t.marginals - t.prior),
        active_units=active_units(mu),
        conditional_entropy=conditional_entropy(logvar),
        mpd=float(mpd(mu.double(), logvar.double())),
    )


@torch.no_grad()
def terms(
    z: Tensor,
    mu: Tensor,
    logvar: Tensor,
    *,
    log_prior: LogPrior | None = None,
    leave_one_out: bool = False,
    rows: int = ROWS,
) -> Terms:
    """The log densities that `decompose` averages, `rows` examples of z at a time against all N posteriors."""
    tensor("z", z, dims=(2,))
    like("mu", mu, "z", z)
    like("logvar", logvar, "mu", mu)
    n = z.shape[0]
    if n < (2 if leave_one_out else 1):
        raise ValueError(f"z: shape {list(z.shape)} has {n} examples; too few")
    if rows < 1:
        raise ValueError(f"rows: {rows} is not a number of examples >= 1")
    prior = standard_normal if log_prior is None else log_prior
    given_x, joint, marginals, at_prior, others = (z.new_empty(n, dtype=torch.float64) for _ in range(5))
    for start in range(0, n, rows):
        some = slice(start, min(start + rows, n))
        given_x[some] = log_posterior(z[some], mu[some], logvar[some])
        joint[some] = log_density(z[some], mu, logvar).double()
        marginals[some] = log_marginals(z[some], mu, logvar).double().sum(-1)
        at_prior[some] = like("log_prior(z)", prior(z[some]), "z", z[some]).double().sum(-1)
        if leave_one_out:
            others[some] = log_density(z[some], mu, logvar, exclude_self=True, offset=start).double()
    return Terms(given_x, joint, marginals, at_prior, others if leave_one_out else None)


def log_posterior(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """log q(z_i | x_i), float64 `[N]`, nats; all `[N, D]`."""
    z, mu, logvar = z.double(), mu.double(), logvar.double()
    return -0.5 * ((z - mu).square() * (-logvar).exp() + logvar + _LOG_2PI).sum(-1)


def standard_normal(z: Tensor) -> Tensor:
    """log N(z_d; 0, 1), shaped like `z`, nats."""
    return -0.5 * (z.square() + _LOG_2PI)


def mean(x: Tensor) -> Mean:
    """Mean and standard error of `[N]`."""
    return Mean(float(x.mean()), float(x.std() / math.sqrt(len(x))) if len(x) > 1 else math.nan)


def active_units(mu: Tensor, threshold: float = ACTIVE) -> int:
    """How many of the D dimensions have Var_x(mu_d) > threshold, the variance with N - 1; `mu` `[N, D]` (Burda et al.
    2016, section 5.2). One example has no variance: 0."""
    if mu.shape[0] < 2:
        return 0
    return int((mu.double().var(0) > threshold).sum())


def conditional_entropy(logvar: Tensor) -> float:
    """E_x H[q(z|x)] = D/2 ln(2 pi e) + 1/2 sum_d E[logvar_d], nats; `logvar` `[N, D]` (S2; methods S2.2)."""
    return float(0.5 * (logvar.double().mean(0) + _LOG_2PI + 1.0).sum())
