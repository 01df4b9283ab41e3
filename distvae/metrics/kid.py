"""Kernel distance between features (Binkowski et al. 2018: KID, where the features are Inception's): the unbiased squared
MMD with the cubic polynomial kernel, over all images,

    k(x, y) = (x'y / F + 1)^3
    KID = 1/(n (n-1)) sum_{i != j} k(x_i, x_j) + 1/(m (m-1)) sum_{i != j} k(y_i, y_j) - 2/(n m) sum_ij k(x_i, y_j)

which is 0 in expectation, so below 0 about half the time, where the laws are equal, for any number of images. The paper
averages over subsets of 1,000 to save time and gives their spread; here nothing is left out, and the standard error is
the jackknife's (each image of either set left out in turn, by the sums of the kernel's rows; Efron and Stein 1981): over
draws of both sets. Where the laws are equal the statistic is degenerate and the jackknife's is too large.

Float64, `ROWS` rows of the kernel at a time: memory O(N)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from distvae.metrics.against_real import AgainstReal, Figure

ROWS = 128  # of the kernel at a time


class Kid(NamedTuple):
    value: float
    se: float  # nan with fewer than 3 images in a set


def kid(x: Tensor, y: Tensor, *, rows: int = ROWS) -> Kid:
    """Of features x `[n, F]` and y `[m, F]`, n, m >= 2. Raises ValueError."""
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(f"x, y: shapes {list(x.shape)} and {list(y.shape)}, expected [n >= 2, F] and [m >= 2, F]")
    x, y = x.double(), y.double()
    n, m = len(x), len(y)
    xx, yy = _among(x, rows), _among(y, rows)  # [n], [m]: sum over j != i
    xy, yx = _between(x, y, rows)  # [n], [m]
    a, b, c = xx.sum(), yy.sum(), xy.sum()
    value = a / (n * (n - 1)) + b / (m * (m - 1)) - 2.0 * c / (n * m)
    if min(n, m) < 3:
        return Kid(float(value), float("nan"))
    without_x = (a - 2.0 * xx) / ((n - 1) * (n - 2)) + b / (m * (m - 1)) - 2.0 * (c - xy) / ((n - 1) * m)
    without_y = a / (n * (n - 1)) + (b - 2.0 * yy) / ((m - 1) * (m - 2)) - 2.0 * (c - yx) / (n * (m - 1))
    variance = sum((len(w) - 1) * w.var(correction=0) for w in (without_x, without_y))
    return Kid(float(value), float(variance) ** 0.5)


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    t = torch.addmm(x.new_ones(()), x, y.T, alpha=1.0 / x.shape[1])
    return t * t * t  # a third of the time of t ** 3


def _among(x: Tensor, rows: int) -> Tensor:
    """sum_{j != i} k(x_i, x_j), `[n]`, each pair of blocks seen once."""
    sums = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    for start in range(0, len(x), rows):
        end = start + rows
        here, later = _kernel(x[start:end], x[start:end]), _kernel(x[start:end], x[end:])
        sums[start:end] += here.fill_diagonal_(0.0).sum(1) + later.sum(1)
        sums[end:] += later.sum(0)
    return sums


def _between(x: Tensor, y: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """(sum_j k(x_i, y_j) `[n]`, sum_i k(x_i, y_j) `[m]`)."""
    of_x, of_y = [], torch.zeros(len(y), dtype=y.dtype, device=y.device)
    for some in x.split(rows):
        k = _kernel(some, y)
        of_x.append(k.sum(1))
        of_y += k.sum(0)
    return torch.cat(of_x), of_y


@dataclass(frozen=True, kw_only=True)
class KernelDistance(AgainstReal):
    """Unbiased kernel distance between features of the model's images and real ones (Binkowski et al. 2018)."""

    type: Literal["kid"] = "kid"

    least: ClassVar[int] = 3

    def figures(self) -> tuple[Figure, ...]:
        doc = "unbiased squared MMD, cubic polynomial kernel (0 in expectation for the same law; lower is better)"
        return (
            Figure("kid", "", doc),
            Figure("kid", "", "jackknife standard error of kid over images", error=True),
        )

    def compare(self, drawn: Tensor, real: Tensor) -> tuple[float, ...]:
        return kid(drawn, real)
