"""Where the rate of a trained model goes: mutual information, the aggregate's KL, and its split (metrics/latent.py has the
definitions and the two informations), as columns, for every posterior with a density:

    gaussian, du                   one z per example, log q(z) and log q(z_d) by the kernels (`of_gaussians`)
    bernoulli, von_mises_fisher    one z per example, log q(z) over blocks of `log_prob` (`of_draws`); bits also have
                                   log q(z_d), since the aggregate's bit d is 1 with the mean probability
    categorical                    exactly: the aggregate is the mean of the c probabilities (`of_classes`)

TC and the dimension-wise KL are two parts of KL(q(z) || p(z)) where p(z) is a product over dimensions; elsewhere that KL
does not split and both are null. A product is what a prior is whose KL has a closed form and is a sum over dimensions.

O(N^2) time over the split's N examples, O(N) memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from distvae.batch import Noise
from distvae.metrics.latent import mean, terms
from distvae.metrics.metric import Column, MetricPart
from distvae.posteriors.bernoulli import BernoulliQ

if TYPE_CHECKING:
    from distvae.metrics.subject import Subject
    from distvae.trial import Trial

BLOCK = 2**20  # entries of [components, N, Z] at a time


class Parts(NamedTuple):
    """The terms of each example, float64 `[N]`, nats: their means are the decomposition."""

    mi: Tensor  # log q(z|x) - log q(z)
    mi_loo: Tensor | None  # the same with the example's own component left out of q(z); None for one example
    aggregate_kl: Tensor  # log q(z) - log p(z)
    tc: Tensor | None = None  # log q(z) - sum_d log q(z_d)
    dimensionwise_kl: Tensor | None = None  # sum_d log q(z_d) - log p(z)


def of_gaussians(z: Tensor, mu: Tensor, logvar: Tensor, log_p: Tensor, *, product: bool) -> Parts:
    """Of posteriors N(mu, e^logvar) and one draw z of each, all `[N, D]`, and log p(z) `[N]`. `product`: is p(z) one,
    over dimensions?"""
    t = terms(z, mu, logvar, leave_one_out=len(z) > 1)
    return _parts(t.given_x, t.joint, t.others, log_p, t.marginals if product else None)


@torch.no_grad()
def of_draws(q: Any, z: Tensor, log_p: Tensor, *, log_marginals: Tensor | None = None) -> Parts:
    """Of any posteriors q with `log_prob` (N of them), one draw z `[N, Z]` of each and log p(z) `[N]`;
    `log_marginals` `[N]`: sum_d log q(z_d), where it exists and p(z) is a product."""
    given_x = q.log_prob(z[:, None])[:, 0]
    joint, others = _aggregate(q, z)
    return _parts(given_x, joint, others if len(z) > 1 else None, log_p, log_marginals)


def of_classes(log_q: Tensor, log_p: Tensor) -> Parts:
    """Of categorical posteriors log q(k|x) `[N, c]` and a prior log p(k) `[c]`: each example's expectation over its
    own classes, no draw."""
    n, q = len(log_q), log_q.exp()
    total = log_q.logsumexp(0)
    joint = total - math.log(n)
    mi_loo = (q * (log_q - _all_but_one(log_q) + math.log(n - 1))).sum(-1) if n > 1 else None
    return Parts((q * (log_q - joint)).sum(-1), mi_loo, (q * (joint - log_p)).sum(-1))


def log_marginals_of_bits(p: Tensor, z: Tensor) -> Tensor:
    """sum_d log q(z_d) `[N]` of codes z `[N, c]` in {0, 1} under the mean of the Bernoullis with p `[N, c]`."""
    p = p.double().mean(0).clamp(0.0, 1.0)  # a mean of ones may round above 1
    return torch.where(z > 0.5, p.log(), torch.log1p(-p)).sum(-1)


def _parts(given_x: Tensor, joint: Tensor, others: Tensor | None, log_p: Tensor, marginals: Tensor | None) -> Parts:
    return Parts(
        given_x - joint,
        None if others is None else given_x - others,
        joint - log_p,
        None if marginals is None else joint - marginals,
        None if marginals is None else marginals - log_p,
    )


def _aggregate(q: Any, z: Tensor) -> tuple[Tensor, Tensor]:
    """log 1/N sum_j q_j(z_i) `[N]`, and log 1/(N-1) sum_{j != i} q_j(z_i) `[N]`."""
    n = len(z)
    joint, others = (torch.full((n,), -math.inf, dtype=z.dtype, device=z.device) for _ in range(2))
    size = max(1, BLOCK // z.numel())
    for start in range(0, n, size):
        some = type(q)(*(t[start : start + size] for t in q))
        rows = torch.arange(len(some[0]), device=z.device)
        logs = _log_probs(some, z)
        joint = torch.logaddexp(joint, logs.logsumexp(0))
        logs[rows, rows + start] = -math.inf
        others = torch.logaddexp(others, logs.logsumexp(0))
    return joint - math.log(n), others - math.log(max(1, n - 1))


def _log_probs(q: Any, z: Tensor) -> Tensor:
    """log q_j(z_i) `[components, N]`."""
    if isinstance(q, BernoulliQ):  # eta.z - A(eta), S5 Eq. 4, is a matrix product
        return q.logits @ z.T - softplus(q.logits).sum(-1, keepdim=True)
    return q.log_prob(z.expand(len(q[0]), -1, -1))


def _all_but_one(log_q: Tensor) -> Tensor:
    """log sum_{j != i} q_jk `[N, c]` by sums from both ends: the difference to the whole sum would cancel."""
    nothing = torch.full_like(log_q[:1], -math.inf)
    before = torch.cat([nothing, log_q.logcumsumexp(0)[:-1]])
    after = torch.cat([nothing, log_q.flip(0).logcumsumexp(0)[:-1]]).flip(0)
    return torch.logaddexp(before, after)


@dataclass(frozen=True, kw_only=True)
class Decomposition(MetricPart):
    """Mutual information (two estimators), the aggregate's KL, total correlation, dimension-wise KL."""

    type: Literal["decomposition"] = "decomposition"

    def columns(self, trial: Trial) -> tuple[Column, ...]:
        q = "q(z) over the whole split"
        docs = {
            "mi": f"mutual information of x and z under q, {q}, own component included: at most ln N",
            "mi_loo": f"the same with the own component left out of {q}: too high on average where mi_nats is too low",
            "aggregate_kl": f"KL(q(z) || p(z)), {q}: rate - mi_nats",
            "tc": "total correlation of q(z), the part of aggregate_kl_nats between dimensions (null unless p(z) "
            "is a product over dimensions)",
            "dimensionwise_kl": "sum over d of KL(q(z_d) || p(z_d)), the other part (null with tc_nats)",
        }
        pairs = (
            (
                Column(f"{name}_nats", "nats", doc),
                Column(f"{name}_se", "nats", f"standard error of {name}_nats over examples"),
            )
            for name, doc in docs.items()
        )
        return tuple(column for pair in pairs for column in pair)

    def why_not(self, subject: Subject) -> str | None:
        posterior = subject.vae.model.posterior
        return None if posterior.density else f"the {posterior.type} posterior has no density: no information in nats"

    def measure(self, subject: Subject, split: str) -> dict[str, float | None]:
        found = {}
        for name, term in decomposed(subject, split)._asdict().items():
            value, se = (None, None) if term is None else mean(term)
            found |= {f"{name}_nats": value, f"{name}_se": se}
        return found


@torch.no_grad()
def decomposed(subject: Subject, split: str) -> Parts:
    """The terms of each example of a split, by the evaluation pass's z."""
    model, device = subject.vae.model, subject.device
    p = subject.vae.prior_for(Noise(0, 0, np.arange(1)))
    q = subject.posterior(split)
    q, z = type(q)(*(t.to(device) for t in q)), subject.latents(split).to(device)
    product = model.prior.closed_form and model.prior.factorised
    if model.posterior.space == "onehot":
        return of_classes(q.logits.log_softmax(-1), p.log_prob(q.support()).to(z))
    log_p = p.log_prob(z).to(z)
    if model.posterior.gaussian:
        z, mu, logvar = z.float(), q.mu.float(), q.var.log().float()  # float64 has no fast kernels
        return of_gaussians(z, mu, logvar, log_p, product=product)
    bits = model.posterior.space == "bits" and product
    return of_draws(q, z, log_p, log_marginals=log_marginals_of_bits(q.mu, z) if bits else None)
