"""Heat maps: the cells' values, intervals, axes and colours."""

import math
from dataclasses import replace

import numpy as np
import pytest
from ledgers import commit, finished, measured, trial
from matplotlib.colors import to_rgb
from scipy.stats import t

from distvae.plots import canvas, heat, sweep
from distvae.plots.kind import NothingToPlotError, OptionError, Options
from distvae.posteriors import Delta, Du


@pytest.fixture
def out(tmp_path):
    """Bounds -(8 / beta + 0.1 seed + 20 + 3 beta - r - d)."""
    for seed in range(3):
        for beta in (0.5, 1.0, 4.0):
            for r in (0.0, 0.5):
                for d in (2, 4):
                    finished(tmp_path, trial(seed, beta, r, d), 8 / beta + 0.1 * seed, 20 + 3 * beta - r - d)
    return tmp_path


def drawn(out, **options):
    fig = heat.figure(sweep.read(out), Options(**options))
    return fig.axes[0], fig.axes[-1]


def texts(ax):
    return [text.get_text().replace("\n", " ") for text in ax.texts]


def test_a_cell_is_the_mean_over_seeds_of_its_best_configuration_with_its_interval(out):
    ax, bar = drawn(out)
    half = t.ppf(0.975, 2) * 0.1 / math.sqrt(3)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("β", "r (prior std)")  # most values; then the first of two with two
    assert [s.get_text() for s in ax.get_xticklabels()] == ["0.5", "1", "4"]
    wanted = [-(8 / b + 0.1 + 20 + 3 * b - r - 4) for r in (0.0, 0.5) for b in (0.5, 1.0, 4.0)]  # the best has d = 4
    assert texts(ax) == [f"{v:.1f} ±{half:.1f}" for v in wanted]
    assert np.ravel(ax.images[0].get_array()).tolist() == pytest.approx(wanted)
    assert bar.get_ylabel() == "elbo_nats, nats/example"
    title = ax.get_title()
    assert "digits (binary), test split" in title and "best configuration by valid bound" in title and "95% CI" in title


def test_the_valid_bound_chooses_and_any_metric_of_any_split_is_shown(out):
    best = trial(0, 1.0, 0.0, 8)
    finished(out, best, 7.0, 90.0, valid=-1.0)
    ax, bar = drawn(out, x="latent_dim", y="beta", value="rate_nats")
    assert np.array(ax.images[0].get_array())[1].tolist() == pytest.approx([8.1, 8.1, 7.0])
    assert bar.get_ylabel() == "rate_nats, nats/example" and (ax.get_ylabel(), ax.get_xlabel()) == (
        "β",
        "latent dimensions",
    )
    assert texts(ax)[4] == "7.0"  # one seed has no interval
    ax, _ = drawn(out, x="latent_dim", y="beta", value="distortion_nats", split="valid")
    assert np.array(ax.images[0].get_array())[1, 2] == pytest.approx(1.0 - 7.0) and "valid split" in ax.get_title()


def test_a_cell_without_a_trial_is_empty(out):
    finished(out, trial(0, 1.0, 2.0, 2), 1.0, 1.0)
    ax, _ = drawn(out, x="beta", y="r")
    grid = np.ma.filled(ax.images[0].get_array(), np.nan)
    assert np.isnan(grid[2]).tolist() == [True, False, True] and len(ax.texts) == 7


def test_dotted_names_and_parts_without_the_knob(out):
    du = trial(0, 1.0, 0.5)
    finished(out, replace(du, vae=replace(du.vae, posterior=Du(gamma=0.5))), 1.0, 2.0)
    ax, _ = drawn(out, x="vae.posterior.type", y="gamma")
    assert [s.get_text() for s in ax.get_xticklabels()] == ["du", "gaussian"]
    assert [s.get_text() for s in ax.get_yticklabels()] == ["0.5", "none"] and len(ax.texts) == 2


def test_a_metric_is_shown_of_what_has_no_valid_bound(out):
    """An autoencoder has a distortion and no bound: it is in maps of the one, not of the other."""
    for r, distortion in ((0.0, 3.0), (0.5, 9.0)):
        auto = trial(0, 1.0, r)
        auto = replace(auto, vae=replace(auto.vae, posterior=Delta()))
        commit(out, auto, [measured(2, "test", 0.0, distortion, rate_nats=None, elbo_nats=None)])
    ax, _ = drawn(out, x="vae.posterior.type", y="beta", value="distortion_nats")
    assert [s.get_text() for s in ax.get_xticklabels()] == ["delta", "gaussian"]
    assert np.ma.filled(ax.images[0].get_array(), np.nan)[1].tolist() == pytest.approx([3.0, 18.5])
    assert "by valid bound, where there is none by distortion" in ax.get_title()
    ax, _ = drawn(out, x="vae.posterior.type", y="beta")
    assert [s.get_text() for s in ax.get_xticklabels()] == ["gaussian"]


def test_many_numbers_go_into_bins(tmp_path):
    for i in range(40):
        finished(tmp_path, trial(0, 0.01 * 1.3**i, 0.5 * (i % 2)), 1.0 + i, 2.0)
    ax, _ = drawn(tmp_path)
    labels = [s.get_text() for s in ax.get_xticklabels()]
    assert len(labels) == heat.BINS and labels[0].startswith("0.01 to ")
    edges = np.geomspace(0.01, 0.01 * 1.3**39, 9)  # log: it spans decades
    best = [min(1.0 + i for i in range(0, 40, 2) if (0.01 * 1.3**i >= low * 0.999)) for low in edges[:-1]]
    assert np.array(ax.images[0].get_array())[0].tolist() == pytest.approx([-(b + 2.0) for b in best])


@pytest.mark.parametrize("value", np.linspace(0, 1, 21))
def test_text_can_be_read_on_every_colour(value):
    """Contrast of at least 4.5 to 1 (WCAG 2.1 AA)."""
    from matplotlib import colormaps

    def luminance(rgb):
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
        return np.dot([0.2126, 0.7152, 0.0722], linear)

    rgba = colormaps["viridis"](value)
    back, front = luminance(rgba[:3]), luminance(to_rgb(canvas.ink(rgba)))
    assert (max(back, front) + 0.05) / (min(back, front) + 0.05) >= 4.5


def test_without_a_valid_split_the_title_says_what_chose(tmp_path):
    for beta in (1.0, 2.0):
        for r in (0.0, 0.5):
            commit(tmp_path, trial(0, beta, r), [measured(1, "test", beta, 2.0)])
    assert drawn(tmp_path)[0].get_title().endswith("elbo_nats: 1 seed")  # one configuration a cell: nothing chose
    commit(tmp_path, trial(0, 2.0, 0.5, d=8), [measured(1, "test", 3.0, 2.0)])
    ax, _ = drawn(tmp_path, x="beta", y="r")
    assert "best configuration by bound on the split drawn (no valid split),\n1 seed" in ax.get_title()


def test_bad_names_and_nothing_to_show(out, tmp_path):
    with pytest.raises(OptionError, match="--x: 'z' has no value here; it is one of r, beta"):
        drawn(out, x="z")
    with pytest.raises(OptionError, match="--y: 'gamma' has no value here"):
        drawn(out, y="gamma")
    with pytest.raises(OptionError, match="--value: 'loss' is not one of rate_nats"):
        drawn(out, value="loss")
    with pytest.raises(NothingToPlotError, match="iw_nll_nats was not measured on the test split"):
        drawn(out, value="iw_nll_nats")
    for beta in (1.0, 2.0):
        finished(tmp_path / "one", trial(0, beta), 1.0, beta)
    with pytest.raises(NothingToPlotError, match="over two knobs, and only beta has more than one value"):
        drawn(tmp_path / "one")
    ax, _ = drawn(tmp_path / "one", x="beta", y="r")
    assert len(ax.texts) == 2
