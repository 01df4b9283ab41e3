"""Parallel coordinates: one line a configuration, through the right places of the right axes."""

from dataclasses import replace

import numpy as np
import pytest
from ledgers import commit, finished, measured, trial
from matplotlib.colors import to_rgba

from distvae.plots import parallel, sweep
from distvae.plots.kind import NothingToPlotError, Options
from distvae.posteriors import Du
from distvae.trial import Train


def drawn(out, **options):
    fig = parallel.figure(sweep.read(out), Options(**options))
    ax = fig.axes[0]
    (lines,) = ax.collections
    (best,) = [a for a in ax.lines if a.get_gid() == "best"]
    return ax, lines, best


def labels(ax):
    return [s.get_text().split("\n")[0] for s in ax.get_xticklabels()]


def test_a_line_for_each_configuration_through_knobs_rate_distortion_and_bound(tmp_path):
    for seed in range(2):
        for beta, rate in ((0.5, 6.0), (1.0, 4.0), (4.0, 0.0)):
            finished(tmp_path, trial(seed, beta), rate, 10.0 + beta)
    commit(tmp_path, trial(0, 9.0), [measured(1, "test", 1.0, 1.0)], "diverged")
    commit(tmp_path, trial(1, 9.0), [measured(1, s, 1.0, 1.0) for s in ("valid", "test")], "stopped")
    ax, lines, best = drawn(tmp_path)
    assert labels(ax) == ["β", "rate", "distortion", "ELBO"]
    ends = np.array([s[:, 1] for s in lines.get_segments()])
    assert ends.shape == (3, 4)
    rates = dict(zip(lines.get_array().tolist(), ends[:, 1], strict=True))  # by bound
    assert rates == pytest.approx({-16.5: 1.0, -15.0: 2 / 3, -14.0: 0.0})
    assert ends[:, 3].tolist() == pytest.approx([0.0, 1.5 / 2.5, 1.0])  # the best is drawn last, on top
    assert best.get_ydata() == pytest.approx(ends[-1]) and to_rgba(best.get_color()) == (0, 0, 0, 1)
    assert "3 configurations, 2 seeds each" in ax.get_title() and "1 diverged, 1 stopped" in ax.get_title()


def test_logs_where_a_knob_spans_decades_and_levels_for_parts(tmp_path):
    for i in range(11):
        base = trial(0, 10.0 ** (i / 5 - 1))
        finished(tmp_path, replace(base, train=Train(epochs=2, lr=0.01 + 0.001 * i)), 1.0 + i, 10.0)
    du = trial(0, 1.0)
    finished(tmp_path, replace(du, vae=replace(du.vae, posterior=Du())), 5.5, 10.0)
    curve = sweep.read(tmp_path)
    (configs,) = curve.panels("test").values()
    ranked, _ = sweep.rank(configs)
    scale = parallel._scale("β", [c.knobs["beta"] for c in ranked])
    assert sorted(scale.at) == pytest.approx(sorted([*np.linspace(0, 1, 11), 0.5])) and not scale.levels
    scale = parallel._scale("lr", [0.01 + 0.001 * i for i in range(11)])
    assert scale.at == pytest.approx(np.linspace(0, 1, 11))
    ax, _, _ = drawn(tmp_path)
    assert "vae.posterior.type" in labels(ax)
    assert {"du", "gaussian"} <= {text.get_text() for text in ax.texts}


def test_levels_are_equally_far_apart_and_none_is_lowest():
    scale = parallel._scale("d", [None, 2, 16, 4])
    assert scale.at.tolist() == pytest.approx([0, 1 / 3, 1, 2 / 3])
    assert [text for _, text in scale.ticks] == ["none", "2", "4", "16"]


def test_what_lies_very_far_off_lies_at_the_end_of_its_axis():
    scale = parallel._numbers("rate", [*np.linspace(0, 1, 20), 1000.0])
    assert scale.at[-1] > 1 and scale.at[:-1] == pytest.approx(np.linspace(0, 1, 20))
    assert scale.ticks[-1] == (scale.at[-1], "beyond")


def test_one_configuration_compares_with_nothing(tmp_path):
    finished(tmp_path, trial(0), 1.0, 2.0)
    with pytest.raises(NothingToPlotError, match="there is only one"):
        drawn(tmp_path)
