"""Squared maximum mean discrepancy between two samples (Gretton et al. 2012, Eq. 3: the unbiased U-statistic),

    MMD^2 = 1/(n (n-1)) sum_{i != j} k(x_i, x_j) + 1/(m (m-1)) sum_{i != j} k(y_i, y_j) - 2/(n m) sum_ij k(x_i, y_j)

which is 0 in expectation, so below 0 about half the time, where the laws are equal. Kernels, with C = 2 D h^2 and h the
`bandwidth` (the std of the law compared to, 1 for the usual prior: C is then the mean |y - y'|^2):

    imq    sum_s s C / (s C + |x - y|^2),  s in SCALES     inverse multiquadratics (Tolstikhin et al. 2018, their code's sum)
    rbf    exp(-|x - y|^2 / C)                             Gaussian of std sqrt(D) h; the released InfoVAE code has C = D^2

Distances are differences squared, not expanded ones. Without gradients memory is O(n + m): `BLOCK` pairs at a time."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

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
