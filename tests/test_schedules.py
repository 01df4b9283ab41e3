"""Schedules against hand values, edges included."""

import math
from typing import get_args

import pytest

from distvae.schedules import Constant, Cosine, Cyclic, LearningRate, Linear, WarmUp


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (Constant(), {0: 1.0, 10**9: 1.0}),
        (Linear(steps=4), {0: 0.0, 1: 0.25, 2: 0.5, 4: 1.0, 5: 1.0, 10**9: 1.0}),
        (Linear(steps=4, start=0.2), {0: 0.2, 1: 0.4, 3: 0.8, 4: 1.0, 5: 1.0}),
        (Linear(steps=4, start=1.0), {0: 1.0, 2: 1.0}),
        (Linear(steps=1), {0: 0.0, 1: 1.0}),
        (Cyclic(period=10), {0: 0.0, 1: 0.2, 4: 0.8, 5: 1.0, 9: 1.0, 10: 0.0, 11: 0.2, 15: 1.0}),
        (Cosine(steps=10), {0: 1.0, 5: 0.5, 10: 0.0, 11: 0.0}),
        (Cosine(steps=10, final=0.2), {0: 1.0, 5: 0.6, 10: 0.2, 99: 0.2}),
        (Cosine(steps=3), {1: 0.75, 2: 0.25}),
    ],
)
def test_hand_values(schedule, values):
    for step, value in values.items():
        assert schedule(step) == pytest.approx(value, abs=1e-15), step


def test_every_schedule_stays_within_0_and_1_and_the_ramps_end_exactly_at_1():
    parts = [Constant(), *(Linear(steps=n, start=s) for n in (1, 3, 7) for s in (0.0, 0.1, 1.0))]
    cyclic = [Cyclic(period=n, ramp=r) for n in (2, 3, 7) for r in (0.1, 0.5, 0.9)]
    cosine = [Cosine(steps=n, final=f) for n in (1, 3, 7) for f in (0.0, 0.3, 1.0)]
    assert {type(p) for p in (*parts, *cyclic, *cosine)} == {*get_args(WarmUp), *get_args(LearningRate)}
    for p in (*parts, *cyclic, *cosine):
        assert all(0.0 <= p(step) <= 1.0 for step in range(30)), p
    assert all(p(7) == 1.0 for p in parts)  # `warm` tests for >= 1: 0.9999999 would never let dropout start
    assert all(math.isclose(p(7), p.final, abs_tol=1e-15) for p in cosine)
