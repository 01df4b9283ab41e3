"""Squared maximum mean discrepancy between two samples (Gretton et al. 2012, Eq. 3: the unbiased U-statistic),

    MMD^2 = 1/(n (n-1)) sum_{i != j} k(x_i, x_j) + 1/(m (m-1)) sum_{i != j} k(y_i, y_j) - 2/(n m) sum_ij k(x_i, y_j)

which is 0 in expectation, so below 0 about half the time, where the laws are equal. Kernels, with C = 2 D h^2 and h the
`bandwidth` (the std of the law compared to, 1 for the usual prior: C is then the mean |y - y'|^2):

    imq    sum_s s C / (s C + |x - y|^2),  s in SCALES     inverse multiquadratics (Tolstikhin et al. 2018, their code's sum)
    rbf    exp(-|x - y|^2 / C)                             Gaussian of std sqrt(D) h; the released InfoVAE code has C = D^2

Distances are differences squared, not expanded ones. Without gradients memory is O(n + m): `BLOCK` pairs at a time.

As a metric it is between one z ~ q(z|x) an example (the aggregated posterior; for `delta` its points) and as many draws
of the normalised prior: what a sampler that trusts the prior gets wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from torch import Tensor

from distvae.metrics.metric import Column, MetricPart
from distvae.part import Hyper

if TYPE_CHECKING:
    from distvae.metrics.subject import Subject
    from distvae.trial import Trial

Kernel = Literal["imq", "rbf"]
SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # of C
BLOCK = 2**17  # pairs: few enough for the cache


def mmd(x: Tensor, y: Tensor, *, kernel: Kernel = "imq", bandwidth: float | Tensor = 1.0) -> Tensor:
    """MMD^2 (0-d, no unit) of samples x `[n, D]` and y `[m, D]`; 0 where one has fewer than 2 rows."""
    n, m = len(x), len(y)
    if min(n, m) < 2:
        return (x.sum() + y.sum()) * 0.0
    c = 2.0 * x.shape[-1] * bandwidth**2
    between = torch.stack([_sum(some, y, kernel, c) for some in x.split(_rows(m))]).sum()
    return _among(x, kernel, c) + _among(y, kernel, c) - 2.0 * between / (n * m)


def _among(x: Tensor, kernel: Kernel, c: float | Tensor) -> Tensor:
    """1/(n (n-1)) sum_{i != j} k(x_i, x_j), each pair of blocks seen once."""
    n, rows = len(x), _rows(len(x))
    own, pairs = (len(SCALES) if kernel == "imq" else 1), []  # k(x, x)
    for start in range(0, n, rows):
        some, later = x[start : start + rows], x[start + rows :]
        pairs += [_sum(some, some, kernel, c) - len(some) * own, 2.0 * _sum(some, later, kernel, c)]
    return torch.stack(pairs).sum() / (n * (n - 1))


def _rows(m: int) -> int:
    return max(1, BLOCK // m)


def _sum(x: Tensor, y: Tensor, kernel: Kernel, c: float | Tensor) -> Tensor:
    """sum_ij k(x_i, y_j), 0-d."""
    square = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square()
    if kernel == "rbf":
        return torch.exp(-square / c).sum()
    return torch.stack([s * c * (square + s * c).reciprocal().sum() for s in SCALES]).sum()


@dataclass(frozen=True, kw_only=True)
class Mmd(MetricPart):
    """Squared MMD of the aggregated posterior to the prior (Gretton et al. 2012)."""

    type: Literal["mmd"] = "mmd"
    kernel: Annotated[Kernel, Hyper(doc="inverse multiquadratics at 7 scales, or one Gaussian")] = "imq"
    bandwidth: Annotated[
        float, Hyper(above=0.0, symbol="h", doc="kernels have C = 2 d h^2 (1: the std of N(0, I))")
    ] = 1.0

    @property
    def _name(self) -> str:
        return f"mmd_squared_{self.kernel}"

    def columns(self, trial: Trial) -> tuple[Column, ...]:
        doc = "MMD^2 of z ~ q(z|x) to as many draws of the prior, unbiased: about 0, of either sign, where they agree"
        return (Column(self._name, "", f"{doc} (kernel {self.kernel}, h = {self.bandwidth:g})"),)

    @torch.no_grad()
    def measure(self, subject: Subject, split: str) -> dict[str, float | None]:
        z = subject.latents(split).to(subject.device)
        if len(z) < 2:
            return {self._name: None}
        prior = subject.vae.latents(len(z), seed=subject.trial.seed).to(z)
        return {self._name: float(mmd(z, prior, kernel=self.kernel, bandwidth=self.bandwidth))}
