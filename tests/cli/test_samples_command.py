"""`distvae plot --kind samples` on a small sweep: the images of the trial asked for, drawn as asked for."""

import shutil

import matplotlib.image
import numpy as np
import pytest
import torch
from commands import command

import distvae
from distvae.config import loads
from distvae.data import load as load_data
from distvae.plots import samples, sheet
from distvae.plots.canvas import save

BINARIZED = """\
vae: {encoder: {type: mlp, hidden: [16]}, latent_dim: 3, prior: {type: binarized, r: 1.0}}
train: {epochs: 2, batch_size: 256}
"""
BETA_INPUT = """\
vae: {encoder: {type: mlp, hidden: [16]}, latent_dim: 3, conditioning: {type: film}}
objective: {type: beta_input, betas: [0.1, 1.0]}
train: {epochs: 1, batch_size: 256}
"""
VECTORS = """\
data: {type: gaussian, eigenvalues: [2.0, 1.0]}
vae: {encoder: {type: mlp, hidden: []}, latent_dim: 1, likelihood: {type: gaussian}}
train: {epochs: 1, batch_size: 1024}
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """OUT of the two models of digits, and their trials."""
    out = tmp_path_factory.mktemp("samples")
    trials = [loads(text).trials[0] for text in (BINARIZED, BETA_INPUT)]
    for trial in trials:
        distvae.train(trial, out)
    return out, *trials


@pytest.fixture
def drawn(monkeypatch):
    """(words, images) of each panel, and the title."""
    seen = []
    real = samples.picture
    monkeypatch.setattr(
        samples, "picture", lambda panels, title: (seen.append((panels, title)), real(panels, title))[1]
    )
    return seen


def test_samples_of_the_best_trial(capsys, swept, drawn):
    out = swept[0]
    done = command(capsys, "plot", out, "--kind", "samples", "--sampler", "prior", "-n", 7)
    best = distvae.load_best(out)
    (([(words, images)], title),) = drawn
    assert torch.equal(torch.from_numpy(images), distvae.samplers.draw(best, 7).clamp(0, 1).double())
    key = {False: swept[1].key, True: swept[2].key}[best.model.conditioning is not None]
    path = out / "plots" / f"samples_prior_{key}.png"
    assert done.code == 0 and done.out == f"{path}\n" and words.startswith("prior") and "7 samples" in title
    pixels = matplotlib.image.imread(path)[..., :3]
    assert pixels.std() > 0.1 and np.allclose(pixels[..., 0], pixels[..., 1]), "grey"


def test_a_trial_and_a_sampler_by_name(capsys, swept, drawn):
    out, trial, _ = swept
    args = ["--trial", trial.key[:6], "--sampler", "{type: aggregated, components: 2}", "-n", 4, "--seed", 3]
    done = command(capsys, "plot", out, "--kind", "samples", *args)
    assert done.out == f"{out / 'plots' / f'samples_aggregated_{trial.key}.png'}\n", done.err
    (([(words, images)], title),) = drawn
    assert words == "aggregated: components=2 covariance=full of=draws" and "digits: r=1 beta=1 d=3 seed=0" in title
    x = torch.from_numpy(load_data(trial.data).train.pixels(slice(None)))
    vae = distvae.train(trial, out).model
    want = distvae.samplers.draw(vae, 4, {"type": "aggregated", "components": 2}, x, seed=3)
    assert torch.equal(torch.from_numpy(images), want.clamp(0, 1).double())


def test_a_beta_input_trial_goes_down_the_betas_it_was_evaluated_at(capsys, swept, drawn):
    out, _, trial = swept
    done = command(capsys, "plot", out, "--kind", "samples", "--trial", trial.key, "--sampler", "recursive", "-n", 4)
    assert done.code == 0, done.err
    model = distvae.train(trial, out).model
    assert model.betas == (0.1, 1.0)
    want = distvae.samplers.draw(model, 4, {"type": "recursive", "betas": [1.0, 0.1]}).clamp(0, 1)
    (([(words, images)], title),) = drawn
    assert torch.equal(torch.from_numpy(images), want.double()) and words.endswith(", at beta=0.1")
    assert f"seed=0 at beta={distvae.load_best(out).beta:g}," in title, "the model's own"


@pytest.mark.slow
def test_every_sampler_that_fits_has_a_panel(capsys, swept, drawn):
    out, binarized, beta_input = swept
    for trial, fit in (
        (binarized, "unbinarized biased aggregated second_stage"),
        (beta_input, "aggregated second_stage recursive"),
    ):
        done = command(capsys, "plot", out, "--kind", "samples", "--trial", trial.key, "-n", 4)
        assert done.out == f"{out / 'plots' / f'samples_{trial.key}.png'}\n", done.err
        panels, _ = drawn.pop()
        assert [words.split(":")[0].split(",")[0] for words, _ in panels] == ["prior", *fit.split()]
        assert all(images.shape == (4, 1, 8, 8) for _, images in panels)
        assert len({images.tobytes() for _, images in panels}) == len(panels)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--sampler", "agregated"], "--sampler: sampler.type: 'agregated' is not one of prior, unbinarized, biased"),
        (["--sampler", "{type: aggregated, covariance: ful}"], "covariance: 'ful' is not one of full, diag"),
        (["--sampler", "recursive", "--trial", "{binarized}"], "sampler: recursive goes from one beta to another"),
        (["--sampler", "biased", "--trial", "{beta_input}"], "sampler: biased is about the modes of a binarized prior"),
        (["--sampler", "{type: aggregated, components: 5000}"], "5000 is too many for 1437 examples"),
        (["--trial", "nothing"], "--trial: 'nothing' is no trial's key (ended: "),
        (["--trial", ""], "begins several trials' keys"),
        (["-n", "0"], "-n"),
    ],
)
def test_what_cannot_be_drawn_exits_2(capsys, swept, args, said):
    out, binarized, beta_input = swept
    args = [a.replace("{binarized}", binarized.key).replace("{beta_input}", beta_input.key) for a in args]
    done = command(capsys, "plot", out, "--kind", "samples", *args)
    assert done.code == 2 and said in done.err.replace("\n", ""), done.err


def test_weights_that_were_not_kept_and_an_empty_sweep(capsys, swept, tmp_path):
    shutil.copytree(swept[0] / "points", tmp_path / "points")
    done = command(capsys, "plot", tmp_path, "--kind", "samples")
    assert done.code == 2 and "were not kept (resources.keep)" in done.err.replace("\n", "")
    (tmp_path / "none" / "points").mkdir(parents=True)
    done = command(capsys, "plot", tmp_path / "none", "--kind", "samples")
    assert done.code == 2 and "no trial has a valid bound" in done.err.replace("\n", "")


def test_vectors_are_not_pictures(capsys, tmp_path):
    distvae.train(loads(VECTORS).trials[0], tmp_path)
    done = command(capsys, "plot", tmp_path, "--kind", "samples")
    assert done.code == 2 and "the gaussian data are not pictures: one x is of shape (2,)" in done.err.replace("\n", "")


def test_images_lie_by_rows_with_white_between():
    images = np.random.default_rng(0).random((5, 3, 2, 4))
    drawn = sheet.sheet(images)
    assert drawn.shape == (2 * 3 - 1, 3 * 5 - 1, 3)
    for i in range(5):
        row, column = divmod(i, 3)
        tile = drawn[row * 3 : row * 3 + 2, column * 5 : column * 5 + 4]
        assert np.array_equal(tile.transpose(2, 0, 1), images[i])
    assert (drawn[2] == 1).all() and (drawn[:, 4] == 1).all() and (drawn[3:, 10:] == 1).all()


def test_a_colour_picture(tmp_path):
    red = np.zeros((4, 3, 8, 8))
    red[:, 0] = 1.0
    save(samples.picture([("red", red)], "red"), tmp_path / "red.png")
    pixels = matplotlib.image.imread(tmp_path / "red.png")
    assert ((pixels[..., :3] == [1, 0, 0]).all(-1)).mean() > 0.5
