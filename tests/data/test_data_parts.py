"""What every data part promises before loading, and that the promise is kept on synthetic files of its format."""

import json
from dataclasses import fields
from typing import get_args

import numpy as np
import pytest

from distvae.config import ConfigError, loads, trial_from_data
from distvae.data import (
    BinarizedMnist,
    Celeba,
    Cifar10,
    Data,
    DataError,
    DataPart,
    Digits,
    Dsprites,
    FashionMnist,
    Gaussian,
    Images,
    Mnist,
    Npz,
    Omniglot,
    Svhn,
)
from distvae.data.dataset import TEST, TRAIN, VALID, addressed, divided, official
from distvae.trial import Trial

PARTS = [
    Digits(),
    Mnist(binarize="dynamic"),
    FashionMnist(),
    Gaussian(eigenvalues=(2.0, 1.0)),
    BinarizedMnist(),
    Omniglot(binarize="dynamic"),
    Dsprites(subset="random"),
    Cifar10(subset=True),
    Svhn(valid=0),
    Celeba(size=32, crop=140),
    Images(name="cats", size=16),
    Npz(name="dogs", levels=None),
]


def test_every_part_is_here_and_is_a_data_part():
    assert {type(p) for p in PARTS} == set(get_args(Data))
    for p in PARTS:
        assert isinstance(p, DataPart) and p.type == type(p).type and "seed" in {f.name for f in fields(p)}
    assert [p.type for p in PARTS if p.draws] == ["gaussian"]


@pytest.mark.parametrize("part", PARTS, ids=lambda p: p.type)
def test_it_survives_the_config_and_back(part):
    trial = Trial(data=part)
    assert trial_from_data(json.loads(json.dumps(trial.config()))) == trial


def test_labels_name_the_crop_the_binarisation_and_the_subset():
    assert [p.label for p in PARTS] == [
        "digits",
        "mnist_dynamic",
        "fashion_mnist",
        "gaussian",
        "binarized_mnist",
        "omniglot28_dynamic",
        "dsprites_random",
        "cifar10_subset",
        "svhn",
        "celeba32_crop140",
        "cats",
        "dogs",
    ]
    assert Mnist().label == "mnist" and Cifar10().label == "cifar10" and Dsprites(subset="full").label == "dsprites"
    s1 = Celeba(split="first", n_train=60_000, n_valid=0, n_test=5_000)
    assert s1.label == "celeba64_crop148_first_60000_0_5000"
    assert Celeba(n_train=100).label == "celeba64_crop148_official_100_all_all"


def test_levels_shape_and_classes_are_known_without_the_data(monkeypatch, tmp_path):
    monkeypatch.setenv("DISTVAE_DATA", str(tmp_path))
    assert [(p.levels, p.shape, p.classes, p.unit) for p in PARTS] == [
        (17, (1, 8, 8), 10, True),
        (2, (1, 28, 28), 10, True),
        (256, (1, 28, 28), 10, True),
        (None, (2,), None, False),
        (2, (1, 28, 28), None, True),
        (2, (1, 28, 28), 50, True),
        (2, (1, 64, 64), 3, True),
        (256, (3, 32, 32), 10, True),
        (256, (3, 32, 32), 10, True),
        (256, (3, 32, 32), None, True),
        (256, (3, 16, 16), None, True),
        (None, None, None, True),
    ]
    assert Mnist().levels == Omniglot().levels == 256 and Npz(name="a", levels=2).levels == 2


def test_the_new_knobs_left_the_keys_of_before_as_they_were():
    """Computed before there was `binarize`."""
    assert Trial().key == "a84af0857dfa62fe"
    assert Trial(data=Mnist()).key == "a47747121a594f5f"
    assert Trial(data=FashionMnist(seed=3, valid=0)).key == "3b922c56c5a01c54"
    assert Trial(data=Gaussian(eigenvalues=(1.0, 2.0), seed=2)).key == "8f2ad0038101bf4d"


def test_what_changes_the_numbers_is_in_the_key_and_where_the_files_are_is_not():
    def keys(*parts):
        return len({Trial(data=p).key for p in parts})

    assert keys(*PARTS, Mnist(), Omniglot(), Dsprites(), Cifar10()) == len(PARTS) + 4
    assert keys(*(Celeba(size=s, crop=c) for s in (32, 64) for c in (128, 140, 148)), Celeba(n_test=5)) == 7
    assert keys(Images(name="a", size=8, root="x"), Images(name="a", size=8, root="y")) == 1
    assert keys(Images(name="a", size=8), Images(name="b", size=8), Images(name="a", size=9)) == 3
    assert keys(Npz(name="a", path="x"), Npz(name="a", path="y")) == 1
    assert keys(Npz(name="a"), Npz(name="b"), Npz(name="a", x="z"), Npz(name="a", test=0.2)) == 4
    for part in (BinarizedMnist, Omniglot, Dsprites, Cifar10, Svhn, Celeba):
        assert keys(part(root="x"), part(root="y"), part()) == 1


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("{type: images, size: 8}", "data.name"),
        ("{type: images, size: 8, name: ../up}", "is not a name"),
        ("{type: images, size: 8, name: a, channels: 2}", "data.channels"),
        ("{type: npz, name: a, valid: 1.0}", "data.valid"),
        ("{type: npz, name: a, levels: 16}", "data.levels"),
        ("{type: npz, name: a, split: s, x_test: t}", "split: there are x_valid or x_test too"),
        ("{type: npz, name: a, y: y, x_test: t}", "y_test: is needed where y and x_test are given"),
        ("{type: npz, name: a, y_valid: y}", "y_valid: is needed"),
        ("{type: celeba, crop: 150}", "data.crop"),
        ("{type: celeba, split: first, n_train: 5}", "split: first needs n_train, n_valid and n_test"),
        ("{type: mnist, binarize: static}", "data.binarize"),
        ("{type: svhn, binarize: dynamic}", "binarize"),
    ],
)
def test_a_bad_knob_is_refused_by_the_config(yaml, message):
    with pytest.raises(ConfigError) as e:
        loads(f"data: {yaml}\n")
    assert message in str(e.value)


# --- splits -----------------------------------------------------------------------------------------------------------


def test_an_addressed_split_is_a_pinned_partition_of_exactly_these_sizes():
    which = addressed(100, valid=7, test=20)
    assert np.bincount(which).tolist() == [73, 7, 20]
    assert np.flatnonzero(which == VALID).tolist() == [2, 24, 36, 45, 69, 77, 79]
    more = addressed(100, valid=30, test=20)  # a larger valid split takes from train only
    assert ((which == TEST) == (more == TEST)).all() and (more[which == VALID] == VALID).all()


@pytest.mark.parametrize(("valid", "test"), [(5, 5), (10, 0), (0, 11)])
def test_a_split_that_leaves_nothing_to_train_on_is_refused(valid, test):
    with pytest.raises(DataError, match="of 10 examples held out leave none to train on: lower them"):
        addressed(10, valid=valid, test=test)
    with pytest.raises(DataError, match=r"data\.valid: 10 of 10"):
        official(np.zeros(10, dtype=np.int64), 3, valid=10)


def test_divided_keeps_ids_labels_and_factors_together_and_leaves_out_what_has_no_split():
    x = np.arange(10, dtype=np.uint8)[:, None]
    which = np.array([0, 0, 0, 0, 1, 2, 1, -1, 2, 2])
    factors = np.stack([np.arange(10), np.arange(10) % 2], 1)
    data = divided("n", x, np.arange(10) * 3, which, factors)
    for split, code in ((data.train, TRAIN), (data.valid, VALID), (data.test, TEST)):
        np.testing.assert_array_equal(split.index, np.flatnonzero(which == code))
        np.testing.assert_array_equal(split.x[:, 0], split.index)
        np.testing.assert_array_equal(split.y, split.index * 3)
        np.testing.assert_array_equal(split.factors, factors[split.index])
    assert np.shares_memory(data.train.x, x)  # consecutive rows are not copied


def test_an_empty_split_is_left_out():
    data = divided("n", np.zeros((3, 2), np.uint8), None, np.array([0, 0, 2]))
    assert list(data.splits()) == ["train", "test"] and data.valid.x.shape == (0, 2) and data.train.factors is None
