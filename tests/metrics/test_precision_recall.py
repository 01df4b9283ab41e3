"""Precision and recall against loops and sets whose answer is known."""

import pytest
import torch

from distvae.metrics.precision_recall import precision_recall, radii

F = torch.float64


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=F, generator=torch.Generator().manual_seed(seed))


def by_loops(drawn, real, k):
    def reach(points):
        return [
            sorted(float((p - q).norm()) for j, q in enumerate(points) if j != i)[k - 1] for i, p in enumerate(points)
        ]

    def covered(points, others):
        balls = reach(others)
        inside = [any(float((p - q).norm()) <= b for q, b in zip(others, balls, strict=True)) for p in points]
        return sum(inside) / len(inside)

    return covered(drawn, real), covered(real, drawn)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_it_is_what_loops_say_whatever_the_blocks(k):
    drawn, real = 0.8 * randn(40, 3) + 1.5, randn(50, 3, seed=1)
    wanted = by_loops(drawn, real, k)
    assert 0 < wanted[0] < 1 and 0 < wanted[1] < 1 and wanted[0] != wanted[1]
    for rows in (1, 7, 1000):
        assert precision_recall(drawn, real, k, rows=rows) == pytest.approx(wanted)
    assert precision_recall(drawn.float() + 100, real.float() + 100, k) == pytest.approx(wanted)


def test_radii_are_to_the_kth_other_point():
    x = torch.tensor([[0.0], [1.0], [3.0], [7.0]], dtype=F)
    assert radii(x, 2, rows=3).sqrt().tolist() == pytest.approx([3, 2, 3, 6])


def test_the_same_set_and_sets_apart():
    x = randn(100, 8)
    assert precision_recall(x, x) == (1, 1)
    assert precision_recall(x, x + 50) == (0, 0)


def test_half_the_modes():
    modes = torch.tensor([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0], [100.0, 100.0]], dtype=F)
    real = torch.cat([m + randn(50, 2, seed=i) for i, m in enumerate(modes)])
    drawn = torch.cat([m + 0.1 * randn(100, 2, seed=9 + i) for i, m in enumerate(modes[:2])])
    half = precision_recall(torch.cat([real[:100], drawn[:10]]), real)
    assert half.recall == 0.5 and half.precision == 1
    collapsed = precision_recall(real[:1].expand(200, 2), real)
    assert collapsed.precision == 1 and collapsed.recall <= 1 / 200  # at most the ball's own centre


def test_too_few_images():
    x = randn(4, 2)
    assert precision_recall(x, x, 3) == (1, 1)
    for k in (0, 4):
        with pytest.raises(ValueError, match="expected 1 <= k"):
            precision_recall(x, x, k)
