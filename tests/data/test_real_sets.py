"""The packed sets where $DISTVAE_DATA has them: counts, classes, pinned splits, and what is known of their contents."""

import hashlib
import os

import numpy as np
import pytest

from distvae.data import BinarizedMnist, Cifar10, Dsprites, Mnist, Npz, Omniglot

FOLDER = os.environ.get("DISTVAE_DATA", "")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def needs(name):
    here = bool(FOLDER) and os.path.exists(os.path.join(FOLDER, name))
    return pytest.mark.skipif(not here, reason=f"set DISTVAE_DATA to a folder with {name}")


def check(part, sizes, total=None):
    """Sizes, ids that partition the set, uint8, and what the part says before loading."""
    data = part.load()
    splits = list(data.splits().values())
    assert [len(s) for s in splits] == sizes and data.name == part.label
    assert np.array_equal(np.sort(np.concatenate([s.index for s in splits])), np.arange(sum(sizes)))
    for s in splits:
        assert s.x.dtype == np.uint8 and s.x.shape[1:] == part.shape and s.x.flags.c_contiguous
        assert part.classes is None or set(np.unique(s.y)) == set(range(part.classes))
        assert part.levels == 256 or np.count_nonzero(s.x) == np.count_nonzero(s.x == 255) > 0
    return data


def digest(index):
    return hashlib.sha256(index.astype("<i8").tobytes()).hexdigest()[:16]


@needs("binarized_mnist/binarized_mnist.npz")
def test_binarized_mnist_is_possible_under_the_pixels_it_was_drawn_from():
    data = check(BinarizedMnist(), [50_000, 10_000, 10_000])
    mnist = Mnist(valid=0).load()
    order = np.argsort(mnist.test.y, kind="stable")  # its test images are MNIST's, by class
    grey, drawn = mnist.test.x[order], data.test.x
    assert not drawn[grey == 0].any() and drawn[grey == 255].all()
    counts = np.bincount(grey.ravel(), minlength=256)
    p = np.arange(256) / 255
    z = (np.count_nonzero(drawn) - counts @ p) / np.sqrt(counts @ (p * (1 - p)))
    assert abs(z) < 4
    assert abs(np.count_nonzero(data.train.x) / data.train.x.size - 0.1307) < 5e-4  # Bernoulli(x) has MNIST's mean


@needs("omniglot/omniglot28.npz")
def test_omniglot_has_every_alphabet_in_every_split():
    data = check(Omniglot(), [23_000, 1_345, 8_115])
    with np.load(f"{FOLDER}/omniglot/omniglot28.npz", allow_pickle=False) as f:
        np.testing.assert_array_equal(data.test.x[:, 0], f["images"][data.test.index])
        np.testing.assert_array_equal(data.test.y, f["alphabet"][data.test.index])


@needs("dsprites/dsprites_downsampled.npz")
def test_the_dsprites_grid_has_every_combination_once_and_its_factors_draw_the_images():
    data = check(Dsprites(), [39_080, 2_000, 5_000])
    assert digest(data.test.index) == "f7488858bdc62a57"
    factors = np.concatenate([s.factors for s in data.splits().values()])
    assert (factors.max(0) + 1).tolist() == [3, 6, 10, 16, 16] and len(np.unique(factors, axis=0)) == 46_080
    s = data.test
    np.testing.assert_array_equal(s.y, s.factors[:, 0])
    on = s.x[:, 0] > 0
    column, row = on.any(1), on.any(2)
    centre = [(m.argmax(1) + 63 - m[:, ::-1].argmax(1)) / 2 for m in (column, row)]
    assert np.corrcoef(centre[0], s.factors[:, 3])[0, 1] > 0.99  # x moves the sprite across,
    assert np.corrcoef(centre[1], s.factors[:, 4])[0, 1] > 0.99  # y down,
    squares = s.factors[:, 0] == 0
    assert np.corrcoef(on.sum((1, 2))[squares], (3 + s.factors[squares, 1]) ** 2)[0, 1] > 0.99  # scale its side


@needs("dsprites/dsprites_subset.npz")
def test_the_dsprites_drawn_at_random():
    data = check(Dsprites(subset="random"), [13_000, 2_000, 5_000])
    assert digest(data.valid.index) == "e158742de1bd7a04"
    factors = np.concatenate([s.factors for s in data.splits().values()])
    assert (factors.max(0) + 1).tolist() == [3, 6, 40, 32, 32]


@needs("cifar10/cifar10_subset.npz")
def test_the_cifar10_subset():
    data = check(Cifar10(subset=True, valid=1_000), [9_000, 1_000, 2_000])
    assert np.bincount(data.valid.y).tolist() == [100] * 10 and np.bincount(data.test.y).tolist() == [200] * 10
    assert digest(data.valid.index) == "1a72ca5eaec6b6df"
    mean = data.train.pixels(slice(None)).mean((0, 2, 3))
    np.testing.assert_allclose(mean, [0.4914, 0.4822, 0.4465], atol=5e-3)  # as everyone normalises by: red first
    with np.load(f"{FOLDER}/cifar10/cifar10_subset.npz", allow_pickle=False) as f:
        np.testing.assert_array_equal(data.valid.x[7, :, 20, 30], f["x_train"][data.valid.index[7], 20, 30])


@needs("cifar100/cifar100_subset.npz")
def test_the_npz_part_reads_a_set_that_has_no_part():
    kw = {"x": "x_train", "y": "y_train", "x_test": "x_test", "y_test": "y_test"}
    part = Npz(name="cifar100_subset", path=f"{FOLDER}/cifar100/cifar100_subset.npz", valid=0.0, **kw)
    data = check(part, [5_000, 1_000])
    assert part.shape == (3, 32, 32) and part.classes == 100
    assert np.bincount(data.train.y).tolist() == [50] * 100
