"""Sample quality of trained models: names, numbers of images, the floor, what is shared, and what has no value. On digits,
by pixels where the net does not matter."""

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import pytest
import torch

import distvae
from distvae.config import chosen
from distvae.data import Digits, Gaussian, Mnist, load
from distvae.features import Classifier, Module, Pixels, extract
from distvae.likelihoods import Gaussian as GaussianLikelihood
from distvae.metrics import against_real as module
from distvae.metrics.against_real import Reconstruction, which
from distvae.metrics.fid import Fid, fid
from distvae.metrics.kid import KernelDistance, kid
from distvae.metrics.precision_recall import PrecisionAndRecall, precision_recall
from distvae.metrics.subject import Subject
from distvae.nets import Film
from distvae.objectives import BetaInput
from distvae.part import Hyper, Part
from distvae.posteriors import Categorical
from distvae.priors import Categorical as CategoricalPrior
from distvae.samplers import Aggregated, Biased, Prior, draw
from distvae.trial import Evaluate, Train, Trial
from distvae.vae import Model

PIXELS = Pixels()
METRICS = [Fid(net=PIXELS), KernelDistance(net=PIXELS), PrecisionAndRecall(net=PIXELS)]


def trained(**kw) -> Subject:
    trial = Trial(**{"train": Train(epochs=2), "vae": Model(latent_dim=4), **kw})
    return Subject(trial, distvae.train(trial).model)


@pytest.fixture(scope="module")
def digits():
    return trained()


@pytest.fixture(scope="module")
def better():
    return trained(train=Train(epochs=30))


def real(name="test"):
    return torch.from_numpy(load(Digits()).splits()[name].pixels(slice(None)).reshape(-1, 64))


def pixels(images):
    return images.clamp(0, 1).flatten(1)


@dataclass(frozen=True, kw_only=True)
class Menu(Part):
    metric: Annotated[Fid | KernelDistance | PrecisionAndRecall, Hyper(doc="a metric")]


# --- columns ------------------------------------------------------------------------------------------------------------


def names(metric, trial=None):
    return [c.name for c in metric.columns(trial or Trial(data=Mnist()))]


def test_the_net_the_data_and_the_sampler_are_in_the_names():
    assert names(Fid()) == ["fid_mnist_classifier", "fid_mnist_classifier_real", "fid_mnist_classifier_samples"]
    assert names(KernelDistance(sampler=Aggregated()))[:2] == [
        "kid_mnist_classifier_aggregated",
        "kid_mnist_classifier_aggregated_se",
    ]
    assert names(PrecisionAndRecall(net=Module(path="a:b", name="mine"), sampler=Reconstruction())) == [
        "precision_mnist_mine_reconstruction",
        "recall_mnist_mine_reconstruction",
        "precision_mnist_mine_reconstruction_real",
        "recall_mnist_mine_reconstruction_real",
        "precision_recall_mnist_mine_reconstruction_samples",
    ]
    assert names(Fid(net=PIXELS), Trial(data=Mnist(binarize="dynamic", n_train=100)))[0] == (
        "fid_mnist_dynamic_first_100_all_pixels"
    )


def test_descriptions_say_that_it_is_not_inception_and_how_images_are_drawn():
    value, floor, samples = Fid(sampler=Aggregated(components=3)).columns(Trial(data=Mnist()))
    for said in ("E[x|z]", "aggregated (components=3", "classifier trained on mnist", "not Inception", "recipe "):
        assert said in value.doc
    assert "training images" in floor.doc and "E[x|z]" not in floor.doc
    assert samples.whole and samples.unit == "images" and not value.whole


def test_from_yaml():
    text = (
        "{type: precision_recall, k: 5, net: {type: pixels}, sampler: {type: aggregated, components: 2}, samples: 50}"
    )
    wanted = PrecisionAndRecall(k=5, net=PIXELS, sampler=Aggregated(components=2), samples=50)
    assert chosen(Menu, "metric", text, "--metrics") == wanted
    assert chosen(Menu, "metric", "fid", "--metrics") == Fid(net=Classifier(), sampler=Prior())
    again = chosen(Menu, "metric", "{type: kid, sampler: {type: reconstruction}}", "--metrics")
    assert again == KernelDistance(sampler=Reconstruction())


# --- values -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.type)
def test_every_column_has_its_value(digits, metric):
    assert metric.why_not(digits) is None
    found = metric.measure(digits, "test")
    assert list(found) == names(metric, digits.trial)
    assert all(np.isfinite(v) for v in found.values()) and list(found.values())[-1] == 180


def test_it_is_the_figure_of_the_models_images_and_of_training_images(digits):
    drawn = pixels(draw(digits.vae, 180, seed=digits.trial.seed))
    rows = which(1437, 180)
    assert len(set(rows.tolist())) == 180 and rows.max() > 1000  # not the first ones
    for metric, function in zip(METRICS, (lambda *a: [fid(*a)], kid, precision_recall), strict=True):
        found = metric.measure(digits, "test")
        assert list(found.values())[: len(metric.figures())] == pytest.approx(list(function(drawn, real())), rel=1e-5)
        floor = [v for name, v in found.items() if name.endswith("_real")]
        assert floor == pytest.approx(list(function(real("train")[rows], real()))[: len(floor)], rel=1e-5)


def test_reconstructions_are_of_the_images_that_are_compared(digits):
    z = digits.latents("valid")
    again = pixels(digits.vae.decode(z))
    found = Fid(net=PIXELS, sampler=Reconstruction()).measure(digits, "valid")
    stem = "fid_digits_pixels_reconstruction"
    assert found[stem] == pytest.approx(fid(again, real("valid")), rel=1e-5)
    some = which(180, 50)
    fewer = Fid(net=PIXELS, sampler=Reconstruction(), samples=50).measure(digits, "valid")
    assert fewer[stem] == pytest.approx(fid(again[some], real("valid")[some]), rel=1e-5)
    assert fewer[f"{stem}_samples"] == 50


def test_more_images_than_the_split_has(digits):
    found = Fid(net=PIXELS, samples=500).measure(digits, "test")
    drawn = pixels(draw(digits.vae, 500, seed=0))
    assert found["fid_digits_pixels"] == pytest.approx(fid(drawn, real()), rel=1e-5)
    assert found["fid_digits_pixels_samples"] == 500
    floor = fid(real("train")[which(1437, 500)], real())
    assert found["fid_digits_pixels_real"] == pytest.approx(floor, rel=1e-5)


def test_the_floor_of_the_training_split_is_of_its_other_images():
    subject = trained(evaluate=Evaluate(train_examples=400), train=Train(epochs=1))
    found = Fid(net=PIXELS).measure(subject, "train")
    mine = np.isin(subject.data.train.index, subject.split("train").index)
    assert mine.sum() == 400
    others, split = real("train")[~mine][which(1037, 400)], real("train")[mine]
    assert found["fid_digits_pixels_real"] == pytest.approx(fid(others, split), rel=1e-5)
    whole = trained(train=Train(epochs=1))
    found = Fid(net=PIXELS).measure(whole, "train")  # all 1,437 are in the split
    assert found["fid_digits_pixels_real"] is None and found["fid_digits_pixels"] > 0


def test_training_and_the_trials_seed_change_it_and_chunks_do_not(digits, better, monkeypatch):
    metric = Fid(net=PIXELS)
    wanted = metric.measure(digits, "test")
    assert metric.measure(better, "test")["fid_digits_pixels"] < 0.8 * wanted["fid_digits_pixels"]
    other = Subject(replace(digits.trial, seed=1), digits.vae)
    assert metric.measure(other, "test")["fid_digits_pixels"] != wanted["fid_digits_pixels"]
    monkeypatch.setattr(module, "CHUNK", 7)
    module._reference.cache_clear(), module._floor.cache_clear()
    again = Subject(digits.trial, digits.vae)
    assert metric.measure(again, "test") == pytest.approx(wanted, rel=1e-5)


@pytest.mark.slow
def test_the_classifier_sees_that_training_helps(digits, better, tmp_path, monkeypatch):
    monkeypatch.setenv("DISTVAE_CACHE", str(tmp_path))
    metrics = [m for kind in (Fid, KernelDistance) for m in (kind(), kind(sampler=Reconstruction()))]
    for metric in metrics:
        name = names(metric, digits.trial)[0]
        values = [metric.measure(s, "test") for s in (digits, better)]
        assert values[0][name] > 2 * values[1][name] > 2 * values[1][f"{name}_real"], name
    assert len(list((tmp_path / "features").glob("*.safetensors"))) == 1


# --- what is computed once ----------------------------------------------------------------------------------------------


def test_real_features_are_computed_once_a_process_and_drawn_ones_once_a_model(digits, monkeypatch):
    module._reference.cache_clear(), module._floor.cache_clear()
    seen = []
    monkeypatch.setattr(module, "extract", lambda net, images: seen.append(1) or extract(net, images))
    subject = Subject(digits.trial, digits.vae)
    for metric in METRICS:
        metric.measure(subject, "test")
    assert len(seen) == 3  # real, training, drawn
    another = Subject(replace(digits.trial, seed=1, data=Digits(seed=5)), digits.vae)  # the same data in another order
    for metric in METRICS:
        metric.measure(another, "test")
    assert len(seen) == 4  # drawn


def test_a_measured_model_is_let_go():
    subject = trained(train=Train(epochs=1))
    Fid(net=PIXELS).measure(subject, "test")
    before = len(module._SUBJECTS)
    del subject
    assert len(module._SUBJECTS) == before - 1


# --- what has no value --------------------------------------------------------------------------------------------------


def test_vectors_and_data_without_labels():
    vectors = trained(
        data=Gaussian(eigenvalues=(2.0, 1.0, 0.5), n=200, n_held=100),
        vae=Model(latent_dim=2, likelihood=GaussianLikelihood()),
        train=Train(epochs=1),
    )
    assert "no labels" in Fid().why_not(vectors) and "use net: {type: pixels}" in Fid().why_not(vectors)
    metric = Fid(net=PIXELS)
    assert metric.why_not(vectors) is None
    found = metric.measure(vectors, "test")
    drawn = draw(vectors.vae, 100, seed=0)  # real numbers, not clamped
    test = torch.from_numpy(load(vectors.trial.data).test.x)
    assert found["fid_gaussian_pixels"] == pytest.approx(fid(drawn, test), rel=1e-5)


def test_samplers_that_do_not_fit_the_model(digits):
    assert "binarized" in Fid(net=PIXELS, sampler=Biased()).why_not(digits)
    assert "too many" in Fid(net=PIXELS, sampler=Aggregated(components=5000)).why_not(digits)
    assert Fid(net=PIXELS, sampler=Aggregated(components=2)).why_not(digits) is None


def test_a_diverged_model_has_none():
    subject = trained(train=Train(epochs=1))
    with torch.no_grad():
        next(subject.vae.decoder.parameters()).fill_(torch.nan)
    assert "diverged" in Fid(net=PIXELS).why_not(subject)
    found = Fid(net=PIXELS).measure(subject, "test")
    assert found["fid_digits_pixels"] is None and found["fid_digits_pixels_samples"] is None
    assert found["fid_digits_pixels_real"] > 0


def test_fewer_images_than_neighbours(digits):
    found = PrecisionAndRecall(net=PIXELS, k=200).measure(digits, "test")
    assert found["precision_digits_pixels"] is None and found["recall_digits_pixels_real"] is None


# --- other models -------------------------------------------------------------------------------------------------------


def test_discrete_latents_and_models_that_are_told_beta():
    codes = trained(
        vae=Model(latent_dim=6, posterior=Categorical(), prior=CategoricalPrior()), train=Train(epochs=1, samples=2)
    )
    found = Fid(net=PIXELS, sampler=Reconstruction()).measure(codes, "test")
    again = pixels(codes.vae.decode(codes.latents("test")))
    assert found["fid_digits_pixels_reconstruction"] == pytest.approx(fid(again, real()), rel=1e-5)
    told = trained(
        vae=Model(latent_dim=4, conditioning=Film()), objective=BetaInput(betas=(0.1, 10.0)), train=Train(epochs=2)
    )
    trial, vae = told.trial, told.vae
    for metric in (Fid(net=PIXELS), Fid(net=PIXELS, sampler=Reconstruction())):
        values = []
        for beta in (0.1, 10.0):
            subject = Subject(trial, vae, beta=beta)
            assert metric.why_not(subject) is None
            values.append(metric.measure(subject, "test")[names(metric, trial)[0]])
        assert values[0] != values[1]


@pytest.mark.slow
def test_mnist(tmp_path, monkeypatch, capsys):
    """Seconds and values are printed; the floors are what 10,000 images of the same law leave."""
    monkeypatch.setenv("DISTVAE_CACHE", str(tmp_path))
    subject = trained(data=Mnist(), train=Train(epochs=2), vae=Model(latent_dim=16))
    fid_ = Fid().measure(subject, "test")
    assert fid_["fid_mnist_classifier_samples"] == 10_000
    assert 0 < fid_["fid_mnist_classifier_real"] < 0.5 < fid_["fid_mnist_classifier"]
    kid_ = KernelDistance().measure(subject, "test")
    assert abs(kid_["kid_mnist_classifier_real"]) < 0.02 < kid_["kid_mnist_classifier"]
    both = PrecisionAndRecall().measure(subject, "test")
    for name in ("precision", "recall"):
        assert both[f"{name}_mnist_classifier"] < 0.95 and 0.8 < both[f"{name}_mnist_classifier_real"] < 0.97
    with capsys.disabled():
        print(fid_, kid_, both)
