"""Digits: the split is part of the data set's identity, so it is pinned; and what every data part promises."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from distvae.data import Digits, Gaussian, load
from distvae.data.dataset import stratified

PINNED = {
    "train": (1437, "d891e685ae43305c"),
    "valid": (180, "cbc0b0433b7f7729"),
    "test": (180, "fc5883663ae980dc"),
}


def test_the_split_never_moves():
    splits = Digits().load().splits()
    found = {k: (len(s), hashlib.sha256(s.index.astype("<i8").tobytes()).hexdigest()[:16]) for k, s in splits.items()}
    assert found == PINNED


def test_the_splits_partition_the_digits_with_every_class_in_proportion():
    data = Digits().load()
    assert data.x_shape == (1, 8, 8)
    index = np.concatenate([s.index for s in data.splits().values()])
    assert sorted(index) == list(range(1797))
    everyone = np.bincount(np.concatenate([s.y for s in data.splits().values()]))
    for s in data.splits().values():
        assert np.abs(np.bincount(s.y) - everyone * len(s) / 1797).max() < 2  # two roundings: held out, then halved


def test_pixels_are_the_grey_levels_over_16_and_carry_their_ids():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    for s in Digits().load().splits().values():
        assert s.x.dtype == np.float32 and s.x.min() == 0.0 and s.x.max() == 1.0
        np.testing.assert_array_equal(s.x.reshape(len(s), 64) * 16.0, images[s.index])
        np.testing.assert_array_equal(s.y, labels[s.index])


@pytest.mark.parametrize("n", [0, 1, 7, 50, 99, 100])
def test_stratified_takes_exactly_n_within_one_of_each_share(n):
    y = np.repeat(np.arange(4), [50, 30, 15, 5])
    mask = stratified(y, n, seed=3)
    assert mask.sum() == n
    assert np.abs(np.bincount(y[mask], minlength=4) - np.array([50, 30, 15, 5]) * n / 100).max() < 1


def test_loading_is_remembered_and_seeds_that_only_order_share_a_copy():
    assert load(Digits(seed=1)) is load(Digits(seed=2))
    g = Gaussian(eigenvalues=(1.0,), n=8, n_held=8)
    assert load(g) is load(replace(g)) and load(g) is not load(replace(g, seed=1))


def test_some_of_a_split_are_spread_over_it_and_the_first_of_them_are_not_its_first():
    """A split in order of class, as dSprites is stored: a subset has every class in about its share."""
    from distvae.data import Split

    n = 3000
    split = Split(np.arange(n)[:, None], np.repeat([0, 1, 2], n // 3), np.arange(n) + 7, np.arange(n)[:, None])
    some = split.some(300)
    assert len(some) == 300 and (np.diff(some.x[:, 0]) > 0).all()  # in the split's order, each once
    assert ((np.bincount(some.y) > 80) & (np.bincount(some.y) < 120)).all()
    for a in (some.index - 7, some.factors[:, 0], some.y * 0 + some.x[:, 0]):
        assert (a == some.x[:, 0]).all()
    assert (split.some(300).x == some.x).all()
    assert set(split.some(100).x[:, 0]) <= set(some.x[:, 0])  # fewer are among more
    assert split.some(n) is split and split.some(n + 1) is split
