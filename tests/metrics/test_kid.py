"""The kernel distance against loops, unbiased, with the standard error that it has."""

from itertools import combinations

import numpy as np
import pytest
import torch

from distvae.metrics.kid import kid

F = torch.float64


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=F, generator=torch.Generator().manual_seed(seed))


def by_loops(x, y):
    def k(a, b):
        return (float(a @ b) / len(a) + 1) ** 3

    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


def test_it_is_the_u_statistic_whatever_the_blocks():
    x, y = 1.3 * randn(9, 4), randn(7, 4, seed=1) + 0.4
    wanted = by_loops(x, y)
    for rows in (1, 2, 5, 100):
        assert kid(x, y, rows=rows).value == pytest.approx(wanted, rel=1e-12)
    assert kid(x.float(), y.float()).value == pytest.approx(wanted, rel=1e-5)


def test_over_all_splits_of_one_set_its_mean_is_0():
    points = randn(7, 3) ** 2
    values = []
    for mine in combinations(range(7), 3):
        others = [i for i in range(7) if i not in mine]
        values.append(kid(points[list(mine)], points[others]).value)
    assert np.mean(values) == pytest.approx(0, abs=1e-12) and np.std(values) > 0.1 and min(values) < 0


def test_the_error_is_the_jackknifes():
    x, y = randn(6, 3), 0.5 + randn(5, 3, seed=1)
    variance = 0.0
    for a, of in ((x, lambda a: by_loops(a, y)), (y, lambda a: by_loops(x, a))):
        without = [of(torch.cat([a[:i], a[i + 1 :]])) for i in range(len(a))]
        variance += (len(a) - 1) * np.var(without)
    for rows in (2, 100):
        assert kid(x, y, rows=rows).se == pytest.approx(variance**0.5, rel=1e-10)


def test_the_error_is_the_spread_over_draws():
    draws = [kid(randn(80, 4, seed=2 * i), 0.6 + 1.2 * randn(60, 4, seed=2 * i + 1)) for i in range(300)]
    spread = np.std([d.value for d in draws])
    assert np.mean([d.se for d in draws]) == pytest.approx(spread, rel=0.15)


def test_few_images():
    x = randn(2, 3)
    assert np.isfinite(kid(x, x + 1).value) and np.isnan(kid(x, x + 1).se)
    with pytest.raises(ValueError, match="expected"):
        kid(x[:1], x)
