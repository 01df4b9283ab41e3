"""Points, intervals, hulls, frontiers and the best, on ledgers made by hand."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledgers import commit, finished, measured, trial
from scipy.spatial import ConvexHull, QhullError

from distvae.results import curves, ledger


def test_a_students_t_interval_over_seeds():
    i = curves.interval([1.0, 2.0, 4.0])
    half = 4.302652729749464 * math.sqrt(7 / 3) / math.sqrt(3)  # t at 0.975 with 2 degrees of freedom, s^2 = 7/3
    assert i.mean == pytest.approx(7 / 3) and i.kind == "95% CI"
    assert (i.low, i.high) == pytest.approx((7 / 3 - half, 7 / 3 + half), rel=1e-12)


def test_two_seeds_have_a_range_and_one_has_none():
    two, one = curves.interval([3.0, 1.0]), curves.interval([5.0])
    assert (two.mean, two.low, two.high, two.kind) == (2.0, 1.0, 3.0, "range")
    assert (one.low, one.high) == (5.0, 5.0)


def test_intervals_cover_as_often_as_they_say():
    rng = np.random.default_rng(0)
    hits = [(i := curves.interval(v)).low <= 0.0 <= i.high for v in rng.normal(size=(4000, 4))]
    assert np.mean(hits) == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 4000))


def test_a_point_is_the_last_epoch_and_seeds_make_a_configuration(tmp_path):
    for seed, rate in enumerate((1.0, 2.0, 3.0)):
        finished(tmp_path, trial(seed, epochs=3), rate, 10.0, valid=-20.0 - seed)
    (c,) = curves.configs(ledger.load(tmp_path))
    assert [p.row["epoch"] for p in c.points] == [3, 3, 3] and [p.seed for p in c.points] == [0, 1, 2]
    assert (c.seeds, c.rate.mean, c.distortion.mean, c.elbo.mean, c.valid_elbo.mean) == (3, 2.0, 10.0, -12.0, -21.0)
    assert c.knobs == {"r": 0.0, "beta": 1.0, "gamma": None, "p_keep": None, "latent_dim": 2}


@pytest.mark.parametrize("status", ["diverged", "failed", "stopped"])
def test_what_did_not_finish_is_on_no_frontier(tmp_path, status):
    finished(tmp_path, trial(0), 5.0, 5.0)
    commit(tmp_path, trial(1, beta=0.5), [measured(1, "test", 1.0, 1.0), measured(1, "valid", 1.0, 1.0)], status)
    assert [c.rate.mean for c in curves.frontier(ledger.load(tmp_path))] == [5.0]
    assert curves.best(ledger.load(tmp_path))[0].rate.mean == 5.0


def test_a_surrogate_has_no_point(tmp_path):
    commit(tmp_path, trial(), [measured(1, s, 1.0, 1.0, measure=None) for s in ("valid", "test")])
    assert curves.configs(ledger.load(tmp_path)) == [] == curves.frontier(ledger.load(tmp_path))


def test_measures_do_not_mix(tmp_path):
    finished(tmp_path, trial(0), 1.0, 1.0)
    commit(tmp_path, trial(1, beta=3.0), [measured(1, s, 2.0, 2.0, measure="density") for s in ("valid", "test")])
    found = curves.frontier(ledger.load(tmp_path))
    assert [(c.measure, c.rate.mean) for c in found] == [("binary", 1.0), ("density", 2.0)]
    assert len(curves.best(ledger.load(tmp_path))) == 2
    with pytest.raises(LookupError, match="do not compare"):
        curves.best_trial(ledger.load(tmp_path))


def test_valid_selects_and_test_is_reported(tmp_path):
    finished(tmp_path, trial(0, beta=1.0), 1.0, 1.0, valid=-9.0)  # best on test
    finished(tmp_path, trial(0, beta=2.0), 2.0, 2.0, valid=-3.0)  # best on valid
    (best,) = curves.best(ledger.load(tmp_path))
    assert best.knobs["beta"] == 2.0 and best.elbo.mean == -4.0
    assert curves.best_trial(ledger.load(tmp_path)).trial_key == trial(0, beta=2.0).key


def test_without_a_valid_split_nothing_is_selected(tmp_path):
    commit(tmp_path, trial(), [measured(1, "test", 1.0, 1.0)])
    assert curves.best(ledger.load(tmp_path)) == []
    with pytest.raises(LookupError, match="no trial has a valid bound"):
        curves.best_trial(ledger.load(tmp_path))


def test_the_best_at_a_rate(tmp_path):
    for beta, rate, distortion in ((4.0, 1.0, 9.0), (1.0, 3.0, 4.0), (0.5, 6.0, 3.5)):
        finished(tmp_path, trial(0, beta=beta), rate, distortion)
    table = ledger.load(tmp_path)
    assert curves.best_trial(table).trial_key == trial(0, beta=1.0).key
    assert curves.best_trial(table, at_rate=2.0).trial_key == trial(0, beta=4.0).key
    assert curves.best_trial(table, by="distortion_nats").trial_key == trial(0, beta=0.5).key
    assert curves.best_trial(table, by="distortion_nats", at_rate=3.0).trial_key == trial(0, beta=1.0).key
    with pytest.raises(LookupError, match=r"at most 0\.5 nats; the lowest is 1 nats"):
        curves.best_trial(table, at_rate=0.5)


@pytest.mark.parametrize(
    "by, says",
    [
        ("objective", "'objective' is a surrogate"),
        ("distortion_surrogate_nats", "is a surrogate"),
        ("rate_nats", "neither good nor bad by itself (at_rate limits it)"),
        ("active_units", "neither good nor bad"),
        ("elbo_se", "a standard error"),
        ("fid_classifier_mnist_se", "a standard error"),
        ("latent_dim", "is not one of elbo_nats, "),
        ("elbo", "did you mean 'elbo_nats'?"),
        ("probe_acuracy_100", "did you mean 'probe_accuracy_*'?"),
    ],
)
def test_what_ranks_nothing(tmp_path, by, says):
    finished(tmp_path, trial(0), 1.0, 9.0)
    with pytest.raises(ValueError) as e:
        curves.best_trial(ledger.load(tmp_path), by=by)
    assert says in str(e.value) and "\n" not in str(e.value)


def with_column(table, name, values):
    """The curve with a metric's column joined, as evaluations later than training are: trial key, split -> value."""
    at = zip(table["trial_key"].to_pylist(), table["split"].to_pylist(), strict=True)
    return table.append_column(pa.field(name, pa.float64()), pa.array([values.get(a) for a in at], pa.float64()))


@pytest.mark.parametrize(
    "name, best", [("fid_classifier_mnist", 1), ("kid_x", 1), ("nmi", 2), ("probe_accuracy_100", 2), ("mig", 2)]
)
def test_a_joined_metric_ranks_in_its_direction(tmp_path, name, best):
    trials = [trial(0, beta=b) for b in (1.0, 2.0, 3.0)]
    for t in trials:
        finished(tmp_path, t, 1.0, 9.0)
    values = dict(zip([t.key for t in trials], (5.0, 1.0, 9.0), strict=True))
    table = with_column(ledger.load(tmp_path), name, {(k, "valid"): v for k, v in values.items()})
    assert curves.best_trial(table, by=name).trial_key == trials[best].key
    moved = with_column(ledger.load(tmp_path), name, {(k, "test"): v for k, v in values.items()})
    with pytest.raises(
        LookupError, match=f"no trial has {name} on the valid split; it was measured on test: split='test'"
    ):
        curves.best_trial(moved, by=name)
    assert curves.best_trial(moved, by=name, split="test").trial_key == trials[best].key
    assert curves.last_metrics(moved, trials[0].key)["test"][name] == 5.0


def test_a_metric_that_was_not_measured_says_how(tmp_path):
    finished(tmp_path, trial(0), 1.0, 9.0)
    table = ledger.load(tmp_path)
    with pytest.raises(
        LookupError,
        match=r"no trial has iw_nll_nats on the valid split: distvae eval OUT --metrics '\[\{type: iw_nll, splits: \[valid\]\}\]'",
    ):
        curves.best_trial(table, by="iw_nll_nats")
    with pytest.raises(LookupError, match="no trial was evaluated on a train split"):
        curves.best_trial(table, by="nmi", split="train")
    with pytest.raises(LookupError, match="no trial has finished"):
        curves.best_trial(table.slice(0, 0), by="nmi")


def test_an_error_ranks_models_without_a_bound_and_over_measures(tmp_path):
    """An autoencoder has no rate and no bound, and a mean squared error like any other."""
    kinds = [("binary", 0.3, 1.0), ("density", 0.2, 2.0), (None, 0.1, 4.0)]
    for measure, mse, beta in kinds:
        passes = [measured(1, s, 1.0, 1.0, measure=measure, distortion_mse=mse) for s in ("valid", "test")]
        if measure is None:
            passes = [{**p, "rate_nats": None, "distortion_nats": None} for p in passes]
        commit(tmp_path, trial(0, beta=beta), passes)
    table = ledger.load(tmp_path)
    best = curves.best_trial(table, by="distortion_mse")
    assert best.trial_key == trial(0, beta=4.0).key and math.isnan(best.rate) and math.isnan(best.elbo)
    assert curves.best_trial(table, by="distortion_mse", at_rate=1.0).trial_key == trial(0, beta=2.0).key
    with pytest.raises(LookupError, match="do not compare"):
        curves.best_trial(table, by="distortion_nats")


def test_a_frontier_is_what_nothing_beats_in_both(tmp_path):
    pairs = [(1.0, 9.0), (2.0, 9.5), (3.0, 5.0), (4.0, 5.0), (5.0, 1.0), (0.5, 9.0)]
    for i, (rate, distortion) in enumerate(pairs):
        finished(tmp_path, trial(0, beta=1.0 + i), rate, distortion)
    found = [(c.rate.mean, c.distortion.mean) for c in curves.frontier(ledger.load(tmp_path))]
    assert found == [(0.5, 9.0), (3.0, 5.0), (5.0, 1.0)]


@given(st.lists(st.tuples(st.integers(-40, 40), st.integers(-40, 40)), min_size=1, max_size=40))
def test_the_lower_hull_against_qhull(points):
    points = [(x / 4, y / 4) for x, y in points]
    hull = curves.lower_hull(points)
    xs, ys = zip(*hull, strict=True)
    assert list(xs) == sorted(set(xs)) and list(ys) == sorted(set(ys), reverse=True)
    assert set(hull) <= set(points)
    left = min(points)
    assert hull[0] == left and hull[-1][1] == min(y for _, y in points)
    for x, y in points:  # nothing lies below it
        if xs[0] <= x <= xs[-1]:
            assert y >= np.interp(x, xs, ys) - 1e-9
    try:
        vertices = {points[i] for i in ConvexHull(np.array(points)).vertices}
    except (QhullError, ValueError):  # fewer than 3 points, or all on a line
        return
    assert set(hull) <= vertices


def test_status_is_that_of_the_latest_attempt(tmp_path):
    t = trial()
    commit(tmp_path, t, [measured(1, "test", 1.0, 1.0)], "failed", 0)
    commit(tmp_path, t, [measured(2, "test", 0.5, 1.0), measured(2, "valid", 0.5, 1.0)], "finished", 1)
    table = ledger.load(tmp_path)
    assert curves.trial_status(table) == {t.key: "finished"}
    assert [c.rate.mean for c in curves.configs(table)] == [0.5]
