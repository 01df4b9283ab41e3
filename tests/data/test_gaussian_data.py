"""Synthetic Gaussian: the covariance is exact in every split, so the exact curve is a target and not an average."""

import numpy as np
import pytest

from distvae.data import Gaussian

EIGENVALUES = (4.0, 2.0, 1.0, 0.5, 0.05)


def splits(**kw):
    return Gaussian(**{"eigenvalues": EIGENVALUES, "n": 512, "n_held": 300, **kw}).load().splits()


@pytest.mark.parametrize("rotate", [True, False])
def test_mean_and_covariance_are_exact_after_rounding(rotate):
    for s in splits(rotate=rotate).values():
        assert s.x.dtype == np.float32 and s.y is None
        x = s.x.astype(np.float64)
        assert np.abs(x.mean(0)).max() < 1e-6
        cov = x.T @ x / len(x)
        np.testing.assert_allclose(np.linalg.eigvalsh(cov)[::-1], EIGENVALUES, rtol=1e-6)
        if not rotate:
            assert np.abs(cov - np.diag(EIGENVALUES)).max() < 1e-6 * max(EIGENVALUES)


def test_rotated_splits_share_one_covariance_that_is_not_diagonal():
    train, valid, test = (np.cov(s.x.astype(np.float64), rowvar=False, bias=True) for s in splits().values())
    assert max(np.abs(train - valid).max(), np.abs(train - test).max()) < 1e-6 * max(EIGENVALUES)
    assert np.abs(train - np.diag(np.diag(train))).max() > 0.1


def test_ids_are_unique_and_in_order_and_the_splits_are_different_examples():
    s = splits()
    np.testing.assert_array_equal(np.concatenate([v.index for v in s.values()]), np.arange(512 + 600))
    assert [len(v) for v in s.values()] == [512, 300, 300]
    assert not np.isclose(s["valid"].x, s["test"].x).all(1).any()


def test_the_seed_draws_and_the_same_seed_draws_the_same():
    a, b, c = (splits(seed=n)["train"].x for n in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 0.1


def test_the_examples_are_gaussian():
    from scipy.stats import kstest

    x = splits(rotate=False, n=4096)["train"].x
    for d, eigenvalue in enumerate(EIGENVALUES):
        assert kstest(x[:, d] / np.sqrt(eigenvalue), "norm").pvalue > 1e-3


@pytest.mark.parametrize(
    ("kw", "field"), [({"n": 5}, "n: 5"), ({"n_held": 5}, "n_held: 5"), ({"eigenvalues": ()}, "eigenv")]
)
def test_too_few_examples_for_an_exact_covariance_are_refused(kw, field):
    with pytest.raises(ValueError, match=f"^{field}"):
        Gaussian(**{"eigenvalues": EIGENVALUES, **kw})


def test_one_more_example_than_dimensions_is_enough():
    x = splits(n=6, n_held=6)["train"].x.astype(np.float64)
    np.testing.assert_allclose(np.linalg.eigvalsh(x.T @ x / 6)[::-1], EIGENVALUES, rtol=1e-5)
