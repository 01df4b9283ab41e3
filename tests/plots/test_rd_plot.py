"""The rate-distortion plane: what is drawn, asked of matplotlib's own objects. (How it looks is looked at by people.)"""

import math
from dataclasses import replace

import numpy as np
import pytest
from ledgers import commit, finished, measured, trial
from matplotlib.colors import to_rgba
from scipy.stats import t

from distvae.objectives import BetaInput
from distvae.plots import canvas, rd, sweep
from distvae.plots.kind import NothingToPlotError, OptionError, Options
from distvae.posteriors import Du
from distvae.results import curves, ledger
from distvae.trial import Train
from distvae.vae import Model


def point(seed, beta, r):
    """Rate and distortion of the trials below."""
    return 8 / beta + 0.1 * seed**2, 20 + 3 * beta - r


@pytest.fixture
def out(tmp_path):
    for seed in range(3):
        for beta in (0.5, 1.0, 4.0):
            for r in (0.0, 0.5):
                finished(tmp_path, trial(seed, beta, r), *point(seed, beta, r))
    return tmp_path


def drawn(out, **options):
    """(figure, its panels)."""
    fig = rd.figure(sweep.read(out), Options(**options))
    return fig, [ax for ax in fig.axes if ax.get_xlabel().startswith("rate")]


def at(ax, gid):
    return [a for a in [*ax.lines, *ax.collections] if a.get_gid() == gid]


def means(ax):
    return sorted(tuple(p) for a in at(ax, "means") for p in a.get_offsets().tolist())


def test_points_are_means_over_seeds_and_the_line_is_their_lower_hull(out):
    _, (ax,) = drawn(out)
    expected = {b: 8 / b + 0.1 * (0 + 1 + 4) / 3 for b in (0.5, 1.0, 4.0)}
    wanted = sorted((expected[b], 20 + 3 * b - r) for b in expected for r in (0.0, 0.5))
    assert np.array(means(ax)) == pytest.approx(np.array(wanted))
    (hull,) = at(ax, "hull")
    under = [(expected[b], 20 + 3 * b - 0.5) for b in (4.0, 1.0, 0.5)]
    assert hull.get_xydata() == pytest.approx(np.array(under))
    assert ax.get_xlabel().endswith("nats per example") and ax.get_ylabel().endswith("nats per example")
    assert ax.get_title() == "digits (binary), test split\n6 configurations, 3 seeds each, 2 epochs"


def test_bars_are_students_t_intervals(out):
    _, (ax,) = drawn(out)
    half = t.ppf(0.975, 2) * np.std([0.0, 0.1, 0.4], ddof=1) / math.sqrt(3)
    bars = [s for a in ax.collections if type(a).__name__ == "LineCollection" for s in a.get_segments()]
    across = [s for s in bars if s[0, 0] < s[1, 0]]
    assert len(bars) == 12 and len(across) == 6
    assert [np.ptp(s[:, 0]) / 2 for s in across] == pytest.approx([half] * 6)
    assert "95% CI over 3 seeds" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_the_ring_is_around_the_best_by_valid_bound(out):
    best = trial(0, beta=9.0)
    finished(out, best, 3.0, 60.0, valid=-1.0)  # on test the worst of all
    _, (ax,) = drawn(out)
    (ring,) = at(ax, "best")
    assert ring.get_offsets().tolist() == [[3.0, 60.0]]
    assert "ELBO = -63.00 nats, of the best by valid bound" in ax.get_legend_handles_labels()[1]


def test_colours_are_of_the_liveliest_knob_or_the_one_asked_for(out):
    fig, (ax,) = drawn(out)
    bar = next(a for a in fig.axes if a is not ax)
    assert bar.get_ylabel() == "β" and [s.get_text() for s in bar.get_yticklabels()] == ["0.5", "1", "4"]
    (dots,) = at(ax, "means")
    shades = {tuple(p): tuple(c) for p, c in zip(dots.get_offsets().tolist(), dots.get_facecolors(), strict=True)}
    assert len(set(shades.values())) == 3 == len({(p[0], c) for p, c in shades.items()})  # rate tells beta
    fig, (ax,) = drawn(out, color="vae.prior.r")
    assert next(a for a in fig.axes if a is not ax).get_ylabel() == "r (prior std)"
    (dots,) = at(ax, "means")
    of = {round(p[1], 6): tuple(c) for p, c in zip(dots.get_offsets(), dots.get_facecolors(), strict=True)}
    assert of[21.5] == of[23.0] == of[32.0] != of[21.0] == of[22.5] == of[31.5]


def test_a_dotted_name_colours_and_choices_have_colours_and_marks_of_their_own(out):
    for lr in (1e-2, 1e-1):
        base = trial(0, beta=2.0)
        finished(out, replace(base, train=Train(epochs=2, lr=lr)), 4.0, 26.0)
    du = trial(0, beta=2.0)
    finished(out, replace(du, vae=replace(du.vae, posterior=Du(gamma=0.5))), 5.0, 27.0)
    fig, (ax,) = drawn(out, color="train.lr")
    assert next(a for a in fig.axes if a is not ax).get_ylabel() == "train.lr"
    marks = {a.get_label(): a.get_paths()[0].vertices.shape for a in at(ax, "means")}
    assert set(marks) == {"du", "gaussian"} and marks["du"] != marks["gaussian"]  # by family
    _, (ax,) = drawn(out, color="vae.posterior.type")
    hues = {a.get_label(): tuple(a.get_facecolors()[0]) for a in at(ax, "means")}
    assert hues == {"gaussian": to_rgba(canvas.OKABE_ITO[0]), "du": to_rgba(canvas.OKABE_ITO[1])}
    _, (ax,) = drawn(out, color="gamma")  # one has it: the others are not given its colour
    assert len(means(ax)) == 9


def test_no_value_of_a_knob_is_grey(out):
    for gamma in (0.5, 1.0):
        du = trial(0, beta=2.0)
        finished(out, replace(du, vae=replace(du.vae, posterior=Du(gamma=gamma))), 5.0, 27.0)
    _, (ax,) = drawn(out, color="gamma")
    hues = {a.get_label(): {tuple(c) for c in a.get_facecolors()} for a in at(ax, "means")}
    assert (
        hues["gaussian"] == {to_rgba(canvas.GREY)} and to_rgba(canvas.GREY) not in hues["du"] and len(hues["du"]) == 2
    )
    assert "no γ" in ax.get_legend_handles_labels()[1]


def test_many_choices_keep_the_most_frequent_apart():
    names = [n for i, n in enumerate("abcdefghij") for _ in range(10 - i)]
    kept = rd._most(names, 7)
    assert rd._order(kept) == [*"abcdefg", rd.OTHERS] and kept.count(rd.OTHERS) == 3 + 2 + 1


def test_the_points_of_one_network_told_beta_are_joined_by_beta(out):
    told = trial(0)
    told = replace(told, vae=Model(latent_dim=2), objective=BetaInput(betas=(0.1, 1.0, 10.0)))
    grid = [(10.0, 1.0, 35.0), (0.1, 9.0, 18.0), (1.0, 4.0, 21.0)]
    rows = [
        measured(2, s, rate, distortion, point=i, beta=beta, conditioning="film")
        for i, (beta, rate, distortion) in enumerate(grid)
        for s in ("valid", "test")
    ]
    commit(out, told, rows)
    _, (ax,) = drawn(out)
    (line,) = at(ax, "model")
    assert line.get_xydata().tolist() == [[9.0, 18.0], [4.0, 21.0], [1.0, 35.0]]


def test_one_panel_for_each_measure_and_what_is_not_drawn_is_counted(out):
    commit(out, trial(9, 9.0), [measured(1, s, 2.0, 2.0, measure="density") for s in ("valid", "test")])
    commit(out, trial(8, 9.0), [measured(1, "test", 2.0, 2.0)], "diverged")
    commit(out, trial(7, 9.0), [], "failed")
    fig, axes = drawn(out)
    assert [ax.get_title().split(",")[0] for ax in axes] == ["digits (binary)", "digits (density)"]
    assert fig.get_suptitle() == "not drawn: 1 diverged, 1 failed (trials)"
    assert len(means(axes[0])) == 6 and len(means(axes[1])) == 1


def test_what_lies_very_far_off_does_not_own_the_axes(out):
    finished(out, trial(0, 7.0), 3.0, 9000.0)
    _, (ax,) = drawn(out)
    assert ax.get_ylim()[1] < 40 and "1 beyond the axes" in ax.get_title()
    assert len(means(ax)) == 7


def test_many_points_are_smaller_and_their_bars_fainter(out, monkeypatch):
    def look(crowd):
        monkeypatch.setattr(rd, "CROWD", crowd)
        _, (ax,) = drawn(out)
        bars = [a.get_alpha() for a in ax.collections if type(a).__name__ == "LineCollection"]
        return *sorted(set(bars)), at(ax, "means")[0].get_sizes()[0]

    (faint, clear, large), (fainter, still, smaller) = look(6), look(2)  # three times as many as are few
    assert fainter == pytest.approx(faint / 3) and clear == still == 0.9 and smaller < 0.7 * large


LINEAR = {
    "data": {"type": "gaussian", "eigenvalues": [4.0, 1.0, 0.25]},
    "vae": {
        "encoder": {"type": "mlp", "hidden": []},
        "decoder": None,
        "latent_dim": 3,
        "posterior": {"type": "gaussian"},
        "prior": {"type": "normal"},
        "likelihood": {"type": "gaussian", "mode": "fixed", "sigma": 0.5, "output": "identity"},
    },
    "objective": {"type": "elbo"},
}


def test_the_exact_curve_is_drawn_where_it_is_known_and_only_there(out):
    assert rd.linear_setting(LINEAR) == ((4.0, 1.0, 0.25), 0.5, 3)
    for path, value in (
        ("vae.encoder", {"type": "mlp", "hidden": [5]}),
        ("vae.prior", {"type": "binarized", "r": 0.5}),
        ("vae.likelihood", {**LINEAR["vae"]["likelihood"], "mode": "learned"}),
        ("data", {"type": "digits"}),
    ):
        *folders, name = path.split(".")
        other = {**LINEAR, "vae": dict(LINEAR["vae"])}
        (other[folders[0]] if folders else other)[name] = value
        assert rd.linear_setting(other) is None, path
    assert rd.linear_setting(curves.config_of(curves.final_points(ledger.load(out))[0])) is None
    _, (ax,) = drawn(out)
    assert at(ax, "exact") == []


def test_bad_names_and_nothing_to_show(out, tmp_path):
    with pytest.raises(OptionError, match=r"--color: 'lr' has no value here.* did you mean 'train.lr'\?"):
        drawn(out, color="lr")
    with pytest.raises(
        OptionError, match=r"--split: 'vaild' is not one of train, valid, test - did you mean 'valid'\?"
    ):
        drawn(out, split="vaild")
    with pytest.raises(
        NothingToPlotError, match=r"no finished trial has a valid bound on the train split \(18 finished\)"
    ):
        drawn(out, split="train")
    with pytest.raises(NothingToPlotError, match=r"\(none ended\)"):
        drawn(tmp_path / "empty")
