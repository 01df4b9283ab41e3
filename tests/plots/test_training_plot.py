"""Training curves: which lines, where they end, and what is in colour."""

import pytest
from ledgers import commit, finished, measured, trial
from matplotlib.colors import to_rgba

from distvae.plots import canvas, sweep, training
from distvae.plots.kind import NothingToPlotError, OptionError, Options


def drawn(out, **options):
    fig = training.figure(sweep.read(out), Options(**options))
    return fig, fig.axes[0]


def at(ax, gid):
    return [line for line in ax.lines if line.get_gid() == gid]


@pytest.fixture
def out(tmp_path):
    """20 configurations of 2 seeds; the bound at epoch e is -(beta + 10 + 2 (3 - e) + seed)."""
    for seed in range(2):
        for i in range(20):
            finished(tmp_path, trial(seed, 1.0 + i, epochs=3), 1.0 + i, 10.0 + seed)
    return tmp_path


def test_lines_are_means_over_seeds_by_epoch_and_splits_have_their_styles(out):
    _, ax = drawn(out)
    test, valid = at(ax, "test"), at(ax, "valid")
    assert len(test) == len(valid) == 6 and len(at(ax, "other")) == 14  # 12 lines in colour
    assert {line.get_linestyle() for line in test} == {"-"} and {line.get_linestyle() for line in valid} == {"--"}
    assert [line.get_xdata().tolist() for line in test] == [[1, 2, 3]] * 6
    finals = {line.get_color(): line.get_ydata()[-1] for line in test}
    assert finals == pytest.approx(
        {canvas.OKABE_ITO[i]: -(1.0 + i + 10.5) for i in range(6)}
    )  # the best by valid bound
    first = next(line for line in test if line.get_color() == canvas.OKABE_ITO[0])
    assert first.get_ydata().tolist() == pytest.approx([-15.5, -13.5, -11.5]) and first.get_label() == "β=1"
    band = next(c for c in ax.collections if tuple(c.get_facecolor()[0][:3]) == to_rgba(canvas.OKABE_ITO[0])[:3])
    ys = band.get_paths()[0].vertices[:, 1]
    assert (ys.min(), ys.max()) == pytest.approx((-16.0, -11.0))  # two seeds: the range
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "elbo_nats, nats/example")
    assert "the best 6 by valid bound, with the range" in ax.get_title()


def test_a_metric_by_name(out):
    _, ax = drawn(out, value="rate_nats")
    assert min(line.get_ydata()[-1] for line in at(ax, "test")) == 1.0
    assert ax.get_ylabel() == "rate_nats, nats/example"


def test_stopped_ones_end_where_they_ended_with_a_mark_and_diverged_ones_are_counted(out):
    passes = [measured(e, s, 1.0, 5.0) for e in (1, 2) for s in ("valid", "test")]
    commit(out, trial(0, 99.0, epochs=3), passes, "stopped")
    commit(out, trial(0, 98.0, epochs=3), passes, "diverged")
    fig, ax = drawn(out)
    (mark,) = at(ax, "stopped")
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (2, -6.0) and mark.get_marker() == "x"
    assert sum(line.get_xdata().tolist() == [1, 2] for line in at(ax, "other")) == 1  # never "best", however good
    assert "21 configurations" in ax.get_title() and "1 stopped (×)" in ax.get_title()
    assert fig.get_suptitle() == "not drawn: 1 diverged (trials)"


def test_without_a_valid_split_and_with_one_configuration(tmp_path):
    commit(tmp_path, trial(0), [measured(e, "test", 1.0, 9.0 - e) for e in (1, 2)])
    _, ax = drawn(tmp_path)
    (line,) = at(ax, "test")
    assert line.get_ydata().tolist() == [-9.0, -8.0] and "no valid split" in ax.get_title()


def test_nothing_to_show(tmp_path):
    commit(tmp_path, trial(0), [measured(1, s, 1.0, 9.0) for s in ("valid", "test")])
    with pytest.raises(NothingToPlotError, match="no trial has elbo_nats at two epochs or more"):
        drawn(tmp_path)
    with pytest.raises(OptionError, match=r"--value: 'elbo_nat' is not one of .* did you mean 'elbo_nats'"):
        drawn(tmp_path, value="elbo_nat")
