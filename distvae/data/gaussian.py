"""Synthetic Gaussian data with a known rate-distortion curve: x ~ N(0, Q diag(eigenvalues) Q'), Q a random rotation.

The linear VAE's optimum is reverse water-filling over the eigenvalues (Cover and Thomas 2006, Theorem 10.3.3):
distortion min(lambda, beta sigma^2) and rate 1/2 ln(lambda / (beta sigma^2))+ per component. A sampled covariance would
miss that curve by a percent, so every split is re-coloured to have *exactly* zero mean and this covariance (divisor n,
which is what a mean over the split sees): whitened by its own covariance, then coloured, in float64, and rounded to
float32 at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from distvae.data.dataset import DataPart, Dataset, Split
from distvae.kernels import philox
from distvae.kernels.philox import Stream
from distvae.part import Hyper


@dataclass(frozen=True, kw_only=True)
class Gaussian(DataPart):
    """Gaussian vectors whose covariance is exact in every split."""

    type: Literal["gaussian"] = "gaussian"
    eigenvalues: Annotated[
        tuple[float, ...], Hyper(above=0.0, symbol="lambda", doc="variances of the principal components")
    ]
    n: Annotated[int, Hyper(low=2, high=10**7, doc="training examples")] = 4096
    n_held: Annotated[int, Hyper(low=2, high=10**7, doc="validation examples, and as many test examples")] = 4096
    rotate: Annotated[bool, Hyper(doc="random principal axes instead of the coordinate axes")] = True
    seed: Annotated[int, Hyper(low=0, high=2**63 - 1, doc="the draw, and the order of the training examples")] = 0

    draws: ClassVar[bool] = True
    unit: ClassVar[bool] = False
    stored_levels: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        d = len(self.eigenvalues)
        if d == 0:
            raise ValueError("eigenvalues: at least one is needed, one per dimension of x")
        for name in ("n", "n_held"):
            if getattr(self, name) <= d:
                raise ValueError(
                    f"{name}: {getattr(self, name)} examples cannot have an exact covariance in {d} dimensions; "
                    f"at least {d + 1} can"
                )

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.eigenvalues),)

    def load(self) -> Dataset:
        d = len(self.eigenvalues)
        root = np.diag(np.sqrt(np.array(self.eigenvalues)))
        colour = root @ self._axes().T if self.rotate else root  # [D, D]: row x = white @ colour
        ids = np.arange(self.n + 2 * self.n_held)
        train, valid, test = np.split(ids, [self.n, self.n + self.n_held])

        def split(index: NDArray[np.int64]) -> Split:
            z = philox.normal(self.seed, Stream.SYNTHETIC, index=index, dim=d)[:, 0]
            return Split((_whiten(z) @ colour).astype(np.float32), None, index)

        return Dataset(self.label, split(train), split(valid), split(test))

    def _axes(self) -> NDArray[np.float64]:
        """Random orthonormal axes, in columns: Q of a Gaussian matrix, signs by R's diagonal (Mezzadri 2007)."""
        d = len(self.eigenvalues)
        q, r = np.linalg.qr(philox.normal(self.seed, Stream.SYNTHETIC, index=np.arange(d), step=1, dim=d)[:, 0])
        return q * np.sign(np.diag(r))


def _whiten(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """`[N, D]` with mean 0 and covariance I: z L^-T for the Cholesky factor L of its own covariance."""
    z = z - z.mean(0)
    return np.linalg.solve(np.linalg.cholesky(z.T @ z / len(z)), z.T).T.astype(np.float64, copy=False)
