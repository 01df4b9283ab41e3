"""Dynamic binarisation: Bernoulli(x), by address: a shard is rows of the whole, and only the step moves it."""

import numpy as np
import pytest
import torch

from distvae.data.binarize import binarize

SHAPE = (1, 5, 7)


def grey(n, dtype=torch.float32):
    """`[n, 1, 5, 7]` bytes / 255, every level about as often."""
    byte = torch.arange(n * 35).remainder(256).reshape(n, *SHAPE)
    return byte.to(dtype) / 255


def test_zeros_and_ones_in_the_dtype_of_x_and_the_ends_are_certain():
    x = grey(300)
    for dtype in (torch.float32, torch.float64):
        b = binarize(x.to(dtype), seed=1, index=np.arange(300), step=0)
        assert b.dtype == dtype and b.shape == x.shape and set(b.unique().tolist()) == {0.0, 1.0}
        assert (b[x == 0] == 0).all() and (b[x == 1] == 1).all()


def test_each_level_is_one_as_often_as_it_says():
    x = grey(4096)
    b = binarize(x, seed=0, index=np.arange(4096), step=3)
    level = (x * 255).round().long().flatten()
    n = torch.bincount(level, minlength=256).double()
    ones = torch.bincount(level, weights=b.flatten().double(), minlength=256)
    p = torch.arange(256, dtype=torch.float64) / 255
    z = (ones - n * p)[1:-1] / (n * p * (1 - p))[1:-1].sqrt()
    assert z.abs().max() < 4.5 and 0.8 < float((z**2).mean()) < 1.2  # 254 binomials; the mean of z^2 has sd 0.09


def test_a_shard_is_the_rows_of_the_whole_in_any_order():
    x, index = grey(64), np.arange(1000, 1064)
    whole = binarize(x, seed=5, index=index, step=2)
    rows = np.array([9, 3, 60, 3])
    assert torch.equal(binarize(x[rows], seed=5, index=index[rows], step=2), whole[rows])
    assert binarize(x[:0], seed=5, index=index[:0], step=2).shape == (0, *SHAPE)


@pytest.mark.parametrize("other", [{"step": 1}, {"seed": 1}, {"index": np.arange(64) + 64}])
def test_step_seed_and_id_each_draw_anew(other):
    x = torch.full((64, *SHAPE), 0.5)
    at = {"seed": 0, "index": np.arange(64), "step": 0}
    a, b = binarize(x, **at), binarize(x, **{**at, **other})
    agree = float((a == b).double().mean())
    assert abs(agree - 0.5) < 4 * 0.5 / np.sqrt(a.numel())
    assert torch.equal(a, binarize(x, **at))


def test_a_lighter_pixel_is_never_darker():
    """One uniform per address: the draw is monotone in x, so it is the same decision in float32 and float64."""
    x = grey(32)
    at = {"seed": 0, "index": np.arange(32), "step": 0}
    assert (binarize(x, **at) <= binarize((x + 0.2).clamp(max=1), **at)).all()
    assert torch.equal(binarize(x, **at).double(), binarize(x.double(), **at))
