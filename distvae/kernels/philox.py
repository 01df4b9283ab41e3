"""Addressed random numbers: Philox-4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3",
SC 2011), so that a number depends on where it is used and on nothing else: not on the worker, the batch or the order.

    key     = (seed mod 2^32, seed div 2^32)
    counter = (index, step, sample, stream * 2^24 + d div 4),   word d mod 4

`index` is the example's id (or a row), `d` the dimension (or a column): one call serves four dimensions. The integer
arithmetic is exact, so the words are the same everywhere; normals are Box-Muller of them in float64, then rounded to
the dtype asked for."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Stream(IntEnum):
    """Who draws: two uses never share a stream."""

    LATENT = 0  # reparameterisation noise in training
    DROPOUT = 1  # variance dropout of DU-VAE
    INIT = 2  # initial weights
    ORDER = 3  # order of the training examples
    BINARIZE = 4  # dynamic binarisation
    EVALUATE = 5  # latent noise of evaluation passes
    SPLIT = 6  # splits made by us
    SYNTHETIC = 7  # synthetic data
    SAMPLE = 8  # draws from the prior
    SEARCH = 9  # random search
    RESAMPLE = 10  # subsets and batches of a split, bootstrap
    PROPOSAL = 11  # proposals of a fixed number of rejection steps
    CHOICE = 12  # a mixture's component, a prior's mode
    BETA = 13  # the beta of each example of a beta-input model


_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


def philox(seed: int, c0: ArrayLike, c1: ArrayLike, c2: ArrayLike, c3: ArrayLike) -> NDArray[np.uint32]:
    """Philox-4x32-10 of broadcastable counters (each reduced mod 2^32). Returns `[..., 4]` uint32 words."""
    a, b, c, d = np.broadcast_arrays(*(np.asarray(c).astype(np.uint64) & _LOW for c in (c0, c1, c2, c3)))
    k0, k1 = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    for _ in range(10):
        p0, p1 = _M0 * a, _M1 * c
        a, b, c, d = (p1 >> _HALF) ^ b ^ np.uint64(k0), p1 & _LOW, (p0 >> _HALF) ^ d ^ np.uint64(k1), p0 & _LOW
        k0, k1 = (k0 + _W0) & 0xFFFFFFFF, (k1 + _W1) & 0xFFFFFFFF
    return np.stack([a, b, c, d], axis=-1).astype(np.uint32)


def words(
    seed: int, stream: Stream, *, index: ArrayLike, step: int = 0, samples: int = 1, dim: int = 1
) -> NDArray[np.uint32]:
    """Words `[len(index), samples, dim]` for ids `index` `[B]`."""
    blocks = -(-dim // 4)
    c0 = np.asarray(index).astype(np.uint64)[:, None, None]
    c2 = np.arange(samples, dtype=np.uint64)[None, :, None]
    c3 = (int(stream) << 24) + np.arange(blocks, dtype=np.uint64)[None, None, :]
    out = philox(seed, c0, step, c2, c3)
    return out.reshape(*out.shape[:2], 4 * blocks)[..., :dim]


def uniform(
    seed: int, stream: Stream, *, index: ArrayLike, step: int = 0, samples: int = 1, dim: int = 1
) -> NDArray[np.float64]:
    """Uniforms in (0, 1), `[len(index), samples, dim]`: (word + 1/2) / 2^32, never 0 or 1."""
    w = words(seed, stream, index=index, step=step, samples=samples, dim=dim)
    return (w.astype(np.float64) + 0.5) * 2.0**-32


def normal(
    seed: int, stream: Stream, *, index: ArrayLike, step: int = 0, samples: int = 1, dim: int = 1
) -> NDArray[np.float64]:
    """Standard normals `[len(index), samples, dim]`, Box-Muller on the word pairs (0, 1) and (2, 3) of each block."""
    u = uniform(seed, stream, index=index, step=step, samples=samples, dim=-(-dim // 4) * 4)
    radius, angle = np.sqrt(-2.0 * np.log(u[..., 0::2])), 2.0 * np.pi * u[..., 1::2]
    z = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return z.reshape(u.shape)[..., :dim]


def permutation(seed: int, n: int, *, stream: Stream = Stream.ORDER, step: int = 0) -> NDArray[np.int64]:
    """A permutation of 0..n-1 by sorting addressed 64-bit keys."""
    w = words(seed, stream, index=np.arange(n), step=step, dim=2)[:, 0, :].astype(np.uint64)
    return np.argsort((w[:, 0] << _HALF) | w[:, 1], kind="stable")
