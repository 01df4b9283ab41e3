"""The benchmark's measures, on areas known by hand, and (slow) the benchmark itself at a size that takes little time."""

import json
import sys

import pytest

from distvae.bench import load


@pytest.fixture(scope="module")
def run():
    return load("early_stopping")


def test_the_area_that_points_dominate_and_when_it_is_reached(run):
    bench = sys.modules[run.__module__]
    square, corner = [(1.0, 2.0), (2.0, 1.0)], (3.0, 3.0)
    assert bench.hypervolume(square, corner) == 3.0
    assert bench.hypervolume([*square, (2.5, 2.5), (2.0, 2.0), (9.0, 0.0)], corner) == 3.0, "dominated, or beyond"
    assert bench.hypervolume([], corner) == 0.0
    points = [(5.0, 2.0, 1.0), (3.0, 2.5, 2.5), (8.0, 1.0, 2.0)]
    assert bench.reached(points, corner, 0.2) == 3.0 and bench.reached(points, corner, 2.0) == 5.0
    assert bench.reached(points, corner, 3.0) == 8.0 and bench.reached(points, corner, 3.1) is None


@pytest.mark.slow
@pytest.mark.sweep
def test_the_benchmark_at_three_epochs(run):
    result = json.loads(json.dumps(run(repeats=1, epochs=3, ways=("grid", "asha"), grace=1, say=lambda line: None)))
    grid, asha = result["ways"]["grid"], result["ways"]["asha"]
    assert result["trials"] == 40 and grid["statuses"] == {"finished": 40} and grid["epochs"] == [120]
    assert grid["share_of_area_finished"] == [1.0] and grid["speedup_to_reach"] == 1.0
    assert asha["statuses"]["stopped"] + asha["statuses"]["finished"] == 40 and asha["epochs"][0] < 120
    assert asha["share_of_area_finished"][0] <= asha["share_of_area_any"][0] <= 1.0 + 1e-9
