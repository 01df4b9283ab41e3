"""The pictures of one trained model: what they draw, in which order, with which words, and what they refuse."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from matplotlib.image import imread

import distvae
from distvae.data.gaussian import Gaussian as GaussianData
from distvae.likelihoods import Gaussian as GaussianLikelihood
from distvae.nets import Mlp
from distvae.objectives import Elbo
from distvae.plots import aggregated, latents, model, pairs, reconstructions, samples, traversals, umap
from distvae.plots.classes import EIGHT, PETROFF, colour
from distvae.plots.kind import NothingToPlotError, Options
from distvae.plots.sheet import stacked
from distvae.posteriors import Gaussian, Posterior
from distvae.priors import Binarized, Prior
from distvae.results import ledger
from distvae.trial import Train, Trial
from distvae.vae import Model

KINDS = [k.KIND for k in (reconstructions, samples, traversals, pairs, umap, aggregated)]
R = 1.25


def a_trial(posterior, prior, d=5, **more):
    """On digits, an epoch."""
    vae = Model(encoder=Mlp(hidden=(16,)), latent_dim=d, posterior=posterior, prior=prior)
    beta = 1.0 if posterior.density else 0.0
    return Trial(**{"vae": vae, "objective": Elbo(beta=beta), "train": Train(epochs=1, lr=1e-2), **more})


def natural_prior(posterior):
    return next(kind() for kind in get_args(Prior) if kind().space == posterior.space)


TRIALS = {kind().type: a_trial(kind(), natural_prior(kind())) for kind in get_args(Posterior)}
TRIALS["binarized"] = a_trial(Gaussian(), Binarized(r=R), d=9)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """OUT with a trial of each posterior."""
    folder = tmp_path_factory.mktemp("pictures")
    for trial in TRIALS.values():
        distvae.train(trial, folder)
    return folder


@pytest.fixture
def placed(monkeypatch):
    """UMAP without UMAP, which compiles for half a minute: the first two columns."""
    monkeypatch.setattr(umap, "embed", lambda means, seed: means[:, :2])


def options(name, **more):
    return Options(trial=TRIALS[name].key, **more)


def shown(out, name, split="test"):
    return model.choose(out, options(name, split=split))


def texts(fig):
    return [t.get_text() for ax in fig.axes for t in ax.texts]


# --- every posterior through every kind -----------------------------------------------------------------------------


def cases(names):
    return pytest.mark.parametrize(
        ("name", "kind"), [(n, k) for n in names for k in KINDS], ids=lambda v: getattr(v, "name", v)
    )


@cases(TRIALS)
def test_a_picture_or_the_reason_why_there_is_none(out, name, kind, placed, tmp_path, monkeypatch):
    """Up to its rendering, which takes a second each."""
    figures = {}
    for module in (reconstructions, samples, traversals, pairs, umap, aggregated):
        monkeypatch.setattr(module, "save", lambda fig, path: figures.setdefault(path, fig))
    monkeypatch.setattr(samples, "get_args", lambda union: [k for k in get_args(union) if k().type != "second_stage"])
    if kind.name == "pairs" and name in ("bernoulli", "categorical"):
        with pytest.raises(NothingToPlotError, match=rf"\({name} posterior\): .*draw --kind aggregated"):
            kind.draw(out, tmp_path, options(name, n=9))
        assert not figures
        return
    paths = kind.draw(out, tmp_path, options(name, n=9))
    assert paths == [tmp_path / f"{kind.name}_{TRIALS[name].key}.png"] == list(figures)
    (fig,) = figures.values()
    assert any(ax.has_data() for ax in fig.axes) and f"\ndigits: {TRIALS[name].label}, " in fig.get_suptitle()


def rendered(out, name, kind, folder):
    (path,) = kind.draw(out, folder, options(name, n=9))
    pixels = (imread(path)[..., :3] * 255).astype(np.uint8).reshape(-1, 3)
    assert len(np.unique(pixels, axis=0)) > 20


@pytest.mark.slow
@pytest.mark.parametrize("kind", [reconstructions.KIND, pairs.KIND], ids=lambda k: k.name)
def test_it_is_rendered(out, kind, tmp_path):
    rendered(out, "gaussian", kind, tmp_path)


@pytest.mark.slow
@cases(n for n in TRIALS if n not in ("bernoulli", "categorical"))
def test_every_picture_is_rendered(out, name, kind, tmp_path):
    rendered(out, name, kind, tmp_path)


def test_vectors_are_no_images_but_have_latents(tmp_path, placed, monkeypatch):
    drawn = []
    data = GaussianData(eigenvalues=(2.0, 1.0, 0.5))
    vae = Model(encoder=Mlp(hidden=()), latent_dim=2, likelihood=GaussianLikelihood())
    trial = Trial(data=data, vae=vae, train=Train(epochs=1, batch_size=1024))
    distvae.train(trial, tmp_path)
    for kind in (reconstructions, samples, traversals):
        with pytest.raises(NothingToPlotError, match="the gaussian data are not pictures: one x is of shape"):
            kind.KIND.draw(tmp_path, tmp_path / "plots", Options())
    for kind in (pairs, umap, aggregated):
        monkeypatch.setattr(kind, "save", lambda fig, path: drawn.append(fig))
        kind.KIND.draw(tmp_path, tmp_path / "plots", Options())
    assert len(drawn) == 3


# --- which model, which split -----------------------------------------------------------------------------------------


def test_the_title_has_the_ledgers_figures(out):
    table = ledger.load(out, [TRIALS["binarized"].key]).to_pylist()
    row = next(r for r in table if r["split"] == "valid" and r["epoch"] == 1)
    first, second, third = shown(out, "binarized", "valid").title("what").split("\n")
    assert first == "what"
    assert second == f"digits: r={R} beta=1 d=9 seed=0, gaussian posterior, binarized prior"
    figures = [row[c] for c in ("rate_nats", "distortion_nats", "elbo_nats")]
    assert third == "valid split: rate {:.2f}, distortion {:.2f}, ELBO {:.2f} nats per example".format(*figures)
    assert "rate" not in shown(out, "delta").title("what")  # it has none


def test_a_split_other_than_the_reported_one_is_in_the_files_name(out, tmp_path):
    path = shown(out, "gaussian", "train").file(tmp_path, "aggregated")
    assert path == tmp_path / f"aggregated_train_{TRIALS['gaussian'].key}.png"
    with pytest.raises(NothingToPlotError, match=r"--split: .* have no 'tests' \(they have train, valid, test\)"):
        pairs.KIND.draw(out, tmp_path, options("gaussian", split="tests"))


def test_a_diverged_model_is_refused(out, tmp_path):
    trial = replace(TRIALS["gaussian"], train=Train(epochs=1, optimizer="sgd", lr=100.0))
    assert distvae.train(trial, tmp_path).status == "diverged"
    with pytest.raises(NothingToPlotError, match="has diverged"):
        aggregated.KIND.draw(tmp_path, tmp_path, Options(trial=trial.key))


# --- reconstructions --------------------------------------------------------------------------------------------------


def test_inputs_above_their_reconstructions(out):
    s = shown(out, "gaussian")
    r = reconstructions.reconstruct(s, 6, seed=4)
    x = s.subject.pixels("test")[torch.from_numpy(r.rows)]
    vae = s.subject.vae
    assert len(set(r.rows)) == 6 and np.array_equal(r.x, x.double().numpy())
    assert r.of_middle == pytest.approx(vae.decode(vae.encode(x).mu).double().numpy(), abs=1e-6)
    z = s.subject.latents("test")[torch.from_numpy(r.rows)]
    assert r.of_draw == pytest.approx(vae.decode(z).double().numpy(), abs=1e-6)
    fig = reconstructions.picture(s, r)
    (image,) = fig.axes[0].images
    pixels, columns = np.asarray(image.get_array()), 5  # a tall one is 3.4 times as high as wide
    high = 3 * 9 - 1 + 4
    for i in range(6):
        row, column = divmod(i, columns)
        tile = pixels[row * (high + 1) :, column * 9 : column * 9 + 8]
        for k, rows in enumerate((r.x, r.of_middle, r.of_draw)):
            assert np.array_equal(tile[9 * k : 9 * k + 8], rows[i, 0])
    assert [t for t in texts(fig) if t in ("x", "mean", "z ~ q")] == ["x", "mean", "z ~ q"] * 2
    assert f"{r.errors[0]:.1f}" in texts(fig)


def test_the_numbers_are_the_examples_distortion(out):
    s = shown(out, "gaussian")
    everything = reconstructions.reconstruct(s, 10_000, seed=0)
    assert sorted(everything.rows) == list(range(180))
    assert everything.errors.mean() == pytest.approx(s.row["distortion_nats"], rel=1e-6)
    fig = reconstructions.picture(s, everything)
    assert not any(t.replace(".", "").isdigit() for t in texts(fig))  # 180 numbers could not be read


def test_codes_that_are_no_means_are_decoded_at_their_mode(out):
    for name in ("bernoulli", "categorical", "von_mises_fisher"):
        s = shown(out, name)
        z = traversals.start(s, np.arange(20))
        if name == "von_mises_fisher":
            assert z.norm(dim=-1).numpy() == pytest.approx(np.ones(20))
        else:
            assert set(z.unique().tolist()) <= {0.0, 1.0}
        if name == "categorical":
            assert z.argmax(-1).equal(s.subject.means("test")[:20].argmax(-1)) and (z.sum(-1) == 1).all()


# --- dimensions and traversals ----------------------------------------------------------------------------------------


def test_dimensions_go_by_decreasing_variance_of_the_means(out):
    s = shown(out, "binarized")
    dims = latents.dimensions(s)
    means = s.subject.means("test").numpy()
    assert sorted(dims.number) == list(range(9)) and (np.diff(dims.variance) <= 0).all()
    assert dims.variance == pytest.approx([np.var(means[:, d], ddof=1) for d in dims.number])
    assert dims.kl.sum() == pytest.approx(s.row["rate_nats"], rel=1e-5)  # the rate, not the surrogate
    assert latents.dimensions(shown(out, "delta")).kl is None
    assert latents.dimensions(shown(out, "von_mises_fisher")).kl is None
    bits = shown(out, "bernoulli")
    assert latents.dimensions(bits).kl.sum() == pytest.approx(bits.row["rate_nats"], rel=1e-5)


def test_traversals_of_the_ends_of_the_ranking(out):
    s = shown(out, "binarized")
    dims, z = latents.dimensions(s), s.subject.latents("test").numpy()
    rows = traversals.lines(s, dims, 7)
    mu = s.subject.means("test")[7]
    for row, k in zip(rows, [0, 1, 2, 6, 7, 8], strict=True):
        d = dims.number[k]
        assert row.z.shape == (traversals.COLUMNS, 9) and row.words == dims.words(k)
        assert row.z[[0, -1], d].numpy() == pytest.approx(np.percentile(z[:, d], [1, 99]))
        rest = [i for i in range(9) if i != d]
        assert (row.z[:, rest] == mu[rest]).all()
    fig = traversals.picture(s, seed=0)
    (image,) = fig.axes[0].images
    assert np.asarray(image.get_array()).shape[1] == traversals.COLUMNS * 9 - 1
    first = np.random.default_rng(0)  # any decoded image of the first row lies where it should
    j = int(first.integers(traversals.COLUMNS))
    example = traversals.permutation(0, 180, stream=traversals.Stream.SAMPLE)[0]
    want = s.subject.vae.decode(traversals.lines(s, dims, example)[0].z[j : j + 1])[0, 0].double().numpy()
    top = 8 + 3 + 1
    assert np.asarray(image.get_array())[top : top + 8, 9 * j : 9 * j + 8] == pytest.approx(want, abs=1e-6)
    assert traversals.ends(4) == [0, 1, 2, 3] and traversals.ends(100) == [0, 1, 2, 97, 98, 99]


def test_a_turn_stays_on_the_sphere():
    z = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
    values = torch.tensor([-1.0, -0.5, 0.6, 0.9], dtype=torch.float64)
    turned = traversals.turned(z, 0, values)
    assert turned.norm(dim=-1).numpy() == pytest.approx(np.ones(4)) and (turned[:, 0] == values).all()
    assert torch.allclose(turned[2], z) and (turned[:, 1] == 0).all()  # through z, in the plane of z and the axis
    pole = traversals.turned(torch.tensor([1.0, 0.0], dtype=torch.float64), 0, values)
    assert pole.norm(dim=-1).numpy() == pytest.approx(np.ones(4))


def test_bits_are_set_in_several_examples(out):
    s = shown(out, "bernoulli")
    dims, examples = latents.dimensions(s), np.array([3, 11])
    rows, codes = traversals.bits(s, dims, examples), traversals.start(s, examples)
    assert len(rows) == 5
    for row, d in zip(rows, dims.number, strict=True):
        assert row.z[:, d].tolist() == [0, 1, 0, 1]
        for e, code in enumerate(codes):
            own = row.notes[2 * e : 2 * e + 2].index(f"{int(code[d])} •")
            assert row.z[2 * e + own].equal(code) and row.notes[2 * e + 1 - own] == str(1 - int(code[d]))


def test_categories_are_decoded_by_use(out):
    s = shown(out, "categorical")
    use = s.subject.means("test").numpy().mean(0)
    told = texts(traversals.picture(s, 0))
    assert told == [f"{k}: {100 * use[k]:.1f}%" for k in np.argsort(-use)]


# --- aggregated posterior ---------------------------------------------------------------------------------------------


def test_aggregated_posteriors_and_modes(out):
    s = shown(out, "binarized")
    fig, dims = aggregated.picture(s), latents.dimensions(s)
    panels = [ax for ax in fig.axes if ax.axison]
    assert [ax.get_title() for ax in panels] == [dims.words(k) for k in range(9)]
    q = s.subject.posterior("test")
    for ax, d in zip(panels, dims.number, strict=True):
        density, prior, *lines = ax.lines
        assert [line.get_xdata()[0] for line in lines] == [-R, R]
        x = density.get_xdata()
        mean, std = q.mu[:, d].numpy(), q.var[:, d].sqrt().numpy()
        want = np.exp(-0.5 * ((x[:, None] - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi))
        assert density.get_ydata() == pytest.approx(want.mean(1), rel=1e-6)
        assert np.trapezoid(prior.get_ydata(), x) == pytest.approx(1.0, abs=5e-3)
        assert prior.get_ydata() == pytest.approx(prior.get_ydata()[::-1], abs=0.05)  # symmetric, on about that range


def test_no_more_panels_than_can_be_read(tmp_path):
    trial = a_trial(Gaussian(), natural_prior(Gaussian()), d=30)
    distvae.train(trial, tmp_path)
    s = model.choose(tmp_path, Options())
    fig = aggregated.picture(s)
    assert len([ax for ax in fig.axes if ax.axison]) == 24
    assert "the 24 of 30 dimensions of largest variance over 180 examples" in fig.get_suptitle()


@pytest.mark.parametrize(("name", "level"), [("bernoulli", 0.5), ("categorical", 0.2)])
def test_bars_of_discrete_codes(out, name, level):
    s = shown(out, name)
    (ax,) = aggregated.picture(s).axes
    use = s.subject.means("test").numpy().mean(0)
    order = latents.dimensions(s).number if name == "bernoulli" else np.argsort(-use)
    assert [bar.get_height() for bar in ax.patches] == pytest.approx(list(use[order]))
    assert [t.get_text() for t in ax.get_xticklabels()] == [str(d) for d in order]
    assert ax.lines[0].get_ydata() == pytest.approx([level, level])


# --- pairs and UMAP ---------------------------------------------------------------------------------------------------


def test_planes_of_the_four_widest_dimensions(out, monkeypatch):
    monkeypatch.setattr(pairs, "POINTS", 50)
    s = shown(out, "binarized")
    fig, dims = pairs.picture(s, seed=2), latents.dimensions(s)
    z, y = s.subject.latents("test").numpy(), s.subject.labels("test")
    planes = [ax for ax in fig.axes if ax.collections and not ax.lines]
    assert len(planes) == 6 and "50 of 180 examples: the 4 of 9 dimensions" in fig.get_suptitle()
    rows = pairs.permutation(2, 180, stream=pairs.Stream.SAMPLE)[:50]
    d0, d1 = dims.number[:2]
    assert np.asarray(planes[0].collections[0].get_offsets()) == pytest.approx(z[rows][:, [d0, d1]])
    from matplotlib.colors import to_rgb

    faces = planes[0].collections[0].get_facecolors()[:, :3]
    assert faces == pytest.approx(np.array([to_rgb(colour(np.arange(10))(c)) for c in y[rows]]))
    assert planes[-1].get_xlabel() == dims.words(2)
    (legend,) = fig.legends[:1]
    assert [t.get_text() for t in legend.get_texts()] == [str(c) for c in range(10)]


def test_two_dimensions_are_one_plane_and_one_has_none(tmp_path):
    for d in (1, 2):
        distvae.train(a_trial(Gaussian(), Binarized(r=R), d=d), tmp_path)
    key = a_trial(Gaussian(), Binarized(r=R), d=2).key
    fig = pairs.picture(model.choose(tmp_path, Options(trial=key)), 0)
    plane, above, beside = fig.axes
    assert len(plane.collections[0].get_offsets()) == 180
    assert (
        [line.get_xdata()[0] for line in above.lines[2:]]
        == [-R, R]
        == [line.get_ydata()[0] for line in beside.lines[2:]]
    )
    with pytest.raises(NothingToPlotError, match="its one dimension has no pairs"):
        pairs.KIND.draw(tmp_path, tmp_path, Options(trial=a_trial(Gaussian(), Binarized(r=R), d=1).key))


def test_classes_have_colours_of_their_own():
    assert len(set(EIGHT)) == 8 and len(set(PETROFF)) == 10
    eight, ten = np.arange(2, 10), np.arange(10)
    assert [colour(eight)(c) for c in eight] == list(EIGHT)
    assert [colour(ten)(c) for c in ten] == list(PETROFF)


def test_umap_shows_every_class_where_it_lies(out, placed):
    s = shown(out, "gaussian")
    fig = umap.picture(s, seed=5)
    means, y = s.subject.means("test").numpy(), s.subject.labels("test")
    assert "180 examples, n_neighbors=15 min_dist=0.1 euclidean, seed 5" in fig.get_suptitle()
    ax = fig.axes[0]
    for text in ax.texts:
        assert text.get_position() == pytest.approx(np.median(means[y == int(text.get_text())][:, :2], 0))
    assert len(ax.texts) == 10 and len(ax.collections[0].get_offsets()) == 180


@pytest.mark.slow
def test_umap_keeps_apart_what_is_apart_and_is_the_same_every_time():
    rng = np.random.default_rng(0)
    which = np.arange(120) % 3
    means = rng.normal(size=(120, 6)) + 40 * np.eye(3, 6)[which]
    at = umap.embed(means, 1)
    centres = np.stack([at[which == c].mean(0) for c in range(3)])
    within = max(np.linalg.norm(at[which == c] - centres[c], axis=1).max() for c in range(3))
    between = min(np.linalg.norm(centres[i] - centres[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert between > 2 * within
    assert np.array_equal(umap.embed(means, 1), at)


def test_images_of_an_example_above_one_another():
    a, b = np.zeros((2, 1, 3, 4)), np.full((2, 1, 3, 4), 0.5)
    tall = stacked(a, b, below=2)
    assert tall.shape == (2, 1, 3 + 1 + 3 + 2, 4)
    assert (tall[:, :, :3] == 0).all() and (tall[:, :, 4:7] == 0.5).all() and (tall[:, :, [3, 7, 8]] == 1).all()
