"""The dimensions of a model's latent code on a split: their order, what each costs, and the z that stands for an
example."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distvae.batch import Noise
from distvae.kernels.philox import Stream
from distvae.plots.kind import NothingToPlotError
from distvae.plots.model import Shown

ACTIVE = 0.01  # variance of the means up to which a dimension is inactive (Burda et al. 2016)
MIDDLE = {"real": "mean", "sphere": "mode", "bits": "mode", "onehot": "mode"}  # of q(z|x), by where z lives


class Dimensions(NamedTuple):
    """Dimensions of z, in order of decreasing variance of the posterior means over the split."""

    number: NDArray[np.int64]  # [Z]
    variance: NDArray[np.float64]  # [Z] of the means, N - 1
    kl: NDArray[np.float64] | None  # [Z] mean KL(q || p) nats; None where the rate is not a sum over dimensions

    def words(self, k: int) -> str:
        """Of the k-th in order: `z3  var 0.93  KL 1.72 nats`."""
        kl = "" if self.kl is None else f"  KL {_short(self.kl[k])} nats"
        return f"z{subscript(self.number[k])}  var {_short(self.variance[k])}{kl}"


def dimensions(shown: Shown) -> Dimensions:
    """Raises NothingToPlotError if the model's codes are not finite, or there is one example."""
    means = codes(shown)[0]
    if len(means) < 2:
        raise NothingToPlotError(
            f"--split: {shown.split!r} has {len(means)} example: dimensions have no variance there"
        )
    variance = means.var(0, ddof=1)
    order = np.argsort(-variance, kind="stable")
    kl = _kl(shown)
    return Dimensions(order, variance[order], None if kl is None else kl[order])


def codes(shown: Shown) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(posterior means, one z ~ q an example), each `[N, Z]`. Raises NothingToPlotError if they are not finite."""
    subject, split = shown.subject, shown.split
    means, z = subject.means(split).numpy(), subject.latents(split).numpy()
    if not (np.isfinite(means).all() and np.isfinite(z).all()):
        raise NothingToPlotError(f"trial {shown.trial.key}: q(z|x) is not finite: it has diverged")
    return means, z


def middle(q: Any, space: str) -> Tensor:
    """The z that stands for q(z|x), `[B, Z]`: its mean; its mode where the mean is no z."""
    if space in ("bits", "onehot"):
        return q.harden(q.mu)
    return q.direction if space == "sphere" else q.mu


def prior(shown: Shown) -> Any:
    """p(z), of no batch."""
    return shown.subject.vae.prior_for(Noise(0, 0, np.arange(0), Stream.EVALUATE))


@torch.no_grad()
def _kl(shown: Shown) -> NDArray[np.float64] | None:
    part = shown.trial.vae
    if not (part.posterior.density and part.prior.closed_form and part.prior.factorised):
        return None
    q, z = shown.subject.posterior(shown.split), shown.subject.latents(shown.split)
    return prior(shown).rate(q, z[:, None]).double().mean(0).numpy()


def _short(v: float) -> str:
    return f"{v:.2f}" if v >= 0.095 else f"{v:.1g}"


def subscript(n: int) -> str:
    return str(n).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
