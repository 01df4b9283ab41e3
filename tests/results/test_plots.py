"""The pictures exist, show what they should, and refuse what makes no picture. (How they look is looked at by
people.)"""

import numpy as np
import pytest
from ledgers import commit, finished, measured, trial
from matplotlib.image import imread

from distvae.results import curves, finish, ledger, plots


@pytest.fixture
def table(tmp_path):
    for seed in range(3):
        for beta in (0.5, 1.0, 4.0):
            for r in (0.0, 0.5):
                finished(tmp_path, trial(seed, beta, r), 8 / beta + 0.1 * seed, 20 + 3 * beta - r)
    return ledger.load(tmp_path)


def colours(path):
    """Distinct colours of a picture: a blank one has one."""
    return len(np.unique((imread(path)[..., :3] * 255).astype(np.uint8).reshape(-1, 3), axis=0))


def test_the_rate_distortion_plane(table, tmp_path):
    plots.rd_plane(table, tmp_path / "rd.png")
    assert imread(tmp_path / "rd.png").shape == (720, 1080, 4) and colours(tmp_path / "rd.png") > 100
    plots.rd_plane(table, tmp_path / "r.png", color="r", split="valid")
    assert (tmp_path / "r.png").read_bytes() != (tmp_path / "rd.png").read_bytes()


def test_the_heat_map_shows_the_best_by_valid_bound(table, tmp_path, monkeypatch):
    shown = {}
    original = plots._heat

    def watch(ax, *args, **kwargs):
        original(ax, *args, **kwargs)
        shown["text"] = [t.get_text() for t in ax.texts]

    monkeypatch.setattr(plots, "_heat", watch)
    plots.heat_map(table, tmp_path / "heat.png")
    # d = 2 alone; at either r, the bound -(8 / beta + 0.1 seed + 20 + 3 beta - r) is best at beta = 1, mean seed 1
    assert shown["text"] == ["-31.1", "-30.6"]
    plots.heat_map(table, tmp_path / "heat.png", x="beta", y="r", value="rate_nats")
    assert shown["text"] == ["16.1", "8.1", "2.1"] * 2
    assert colours(tmp_path / "heat.png") > 20


def test_one_panel_for_each_measure(table, tmp_path):
    commit(tmp_path, trial(9, 9.0), [measured(1, s, 2.0, 2.0, measure="density") for s in ("valid", "test")])
    plots.rd_plane(ledger.load(tmp_path), tmp_path / "rd.png")
    assert imread(tmp_path / "rd.png").shape == (720, 2160, 4)


def test_bad_names_and_empty_tables_are_refused(table, tmp_path):
    with pytest.raises(ValueError, match="'lr' is not one of r, beta"):
        plots.rd_plane(table, tmp_path / "x.png", color="lr")
    with pytest.raises(ValueError, match="'z' is not one of r, beta"):
        plots.heat_map(table, tmp_path / "x.png", x="z")
    with pytest.raises(ValueError, match="value: 'loss' is not one of rate_nats"):
        plots.heat_map(table, tmp_path / "x.png", value="loss")
    with pytest.raises(ValueError, match="no finished trial has a valid bound on the train split"):
        plots.rd_plane(table, tmp_path / "x.png", split="train")
    with pytest.raises(ValueError, match="both knobs gamma and r"):
        plots.heat_map(table, tmp_path / "x.png", x="gamma", y="r")
    with pytest.raises(finish.NothingToPlotError, match="p_keep"):
        finish.draw(tmp_path, kind="heat", x="p_keep")
    assert finish.draw(tmp_path, x="p_keep") == [tmp_path / "plots" / "rd.png"]
    assert not (tmp_path / "x.png").exists()


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


def test_the_exact_curve_is_drawn_where_it_is_known_and_only_there(table):
    assert plots.linear_setting(LINEAR) == ((4.0, 1.0, 0.25), 0.5, 3)
    for path, value in (
        ("vae.encoder", {"type": "mlp", "hidden": [5]}),
        ("vae.prior", {"type": "binarized", "r": 0.5}),
        ("vae.likelihood", {**LINEAR["vae"]["likelihood"], "mode": "learned"}),
        ("data", {"type": "digits"}),
    ):
        *folders, name = path.split(".")
        other = {**LINEAR, "vae": dict(LINEAR["vae"])}
        (other[folders[0]] if folders else other)[name] = value
        assert plots.linear_setting(other) is None, path
    assert plots.linear_setting(curves.config_of(curves.final_points(table)[0])) is None
