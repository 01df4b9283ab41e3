"""The feature nets: the classifier (trained once, kept, the same every time), pixels, and a net of one's own."""

import json
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from distvae.config import ConfigError, chosen
from distvae.data import Digits, Gaussian, Mnist, Npz, load
from distvae.data.dataset import Dataset, Split
from distvae.features import Classifier, FeatureError, FeatureNet, Module, Pixels, extract, fitted
from distvae.features import classifier as module
from distvae.features.classifier import CnnClassifier, Recipe, batches
from distvae.metrics.fid import fid
from distvae.part import Hyper, Part

SHORT = Recipe(steps=12)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTVAE_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def short(cache, monkeypatch):
    """A recipe of a few steps, in an empty cache."""
    monkeypatch.setattr(Classifier, "used", SHORT)
    return Classifier()


def weights(net):
    return {name: t.clone() for name, t in net.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def made(x, y=None, name="made"):
    """A data set of arrays."""
    n = len(x)
    parts = [
        Split(x[rows], None if y is None else y[rows], np.arange(n)[rows])
        for rows in np.split(np.arange(n), [n - 8, n - 4])
    ]
    return Dataset(name, *parts)


# --- classifier ---------------------------------------------------------------------------------------------------------


def test_the_second_call_trains_nothing_and_gives_the_same(short, cache, monkeypatch):
    first = weights(short.make(load(Digits())))
    monkeypatch.setattr(module, "train", lambda *_: pytest.fail("trained again"))
    assert equal(weights(short.make(load(Digits()))), first)
    (path,) = (cache / "features").glob("*.safetensors")
    assert path == short.path(load(Digits())) and path.name.startswith("classifier-digits-")


def test_a_truncated_file_is_trained_again_to_the_same_net(short, cache):
    first, path = weights(short.make(load(Digits()))), short.path(load(Digits()))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert equal(weights(short.make(load(Digits()))), first)


def test_threads_and_torchs_seed_do_not_change_it(short, cache):
    torch.manual_seed(1)
    first = weights(short.make(load(Digits())))
    short.path(load(Digits())).unlink()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        torch.manual_seed(2)
        with torch.inference_mode(False), torch.no_grad():
            assert equal(weights(short.make(load(Digits()))), first)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_its_file_is_named_by_recipe_data_and_shape(short, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.random((30, 1, 8, 8), dtype=np.float32), np.arange(30) % 3
    data = [made(x, y), made(x, y, "other"), made(x + 1, y), made(x, (y + 1) % 3), made(x.reshape(30, 1, 4, 16), y)]
    paths = {short.path(d) for d in data}
    monkeypatch.setattr(Classifier, "used", replace(SHORT, lr=1e-3))
    assert len(paths | {short.path(data[0])}) == 6
    assert short.path(made(x, y)) == short.path(made(x.copy(), y.copy()))


def test_the_recipe_learns_digits_and_says_how_well(cache):
    card = Classifier().card(load(Digits()))
    assert card["accuracy"]["valid"] > 0.93 and card["accuracy"]["test"] > 0.93
    assert card["data"] == "digits" and card["recipe"] == Classifier().recipe() and json.dumps(card)
    net = Classifier().make(load(Digits()))
    features = extract(net, [torch.from_numpy(load(Digits()).train.pixels(slice(None)))])
    assert features.shape == (1437, 64) and not any(p.requires_grad for p in net.parameters())
    assert float(features.double().var(0).sum()) == pytest.approx(64, rel=1e-3)
    test, noise = load(Digits()).test.pixels(slice(None)), np.random.default_rng(0).standard_normal((180, 1, 8, 8))
    real = extract(net, [torch.from_numpy(test)])
    values = [
        fid(extract(net, [torch.from_numpy(np.clip(test + s * noise, 0, 1))]), real) for s in (0, 0.1, 0.2, 0.4, 0.8)
    ]
    assert values[0] < 1e-6 and all(np.diff(values) > 0)


@pytest.mark.parametrize("shape", [(3, 4, 3), (1, 5, 9), (3, 32, 32), (1, 28, 28), (3, 64, 64)])
def test_it_takes_images_of_any_size(shape):
    net = CnnClassifier(Recipe(), shape, 5)
    assert net(torch.rand(2, *shape)).shape == (2, 64) and net.logits(torch.rand(2, *shape)).shape == (2, 5)


def test_batches_go_through_every_image(monkeypatch):
    rows = batches(10, Recipe(batch=5))
    passes = [np.concatenate([next(rows), next(rows)]) for _ in range(3)]
    assert all(sorted(p) == list(range(10)) for p in passes) and not np.array_equal(passes[0], passes[1])
    few = batches(3, Recipe(batch=5))
    assert sorted(next(few)) == [0, 1, 2]


def test_data_that_it_cannot_be_trained_on():
    rng = np.random.default_rng(0)
    x, y = rng.random((30, 1, 8, 8), dtype=np.float32), np.arange(30) % 3
    assert Classifier().refusal(made(x, y)) is None
    for data, why in ((made(x), "no labels"), (made(x, 0 * y), "one class"), (made(x.reshape(30, 64), y), r"\[64\]")):
        with pytest.raises(AssertionError, match=why + r".*use net: \{type: pixels\}"):
            raise AssertionError(Classifier().refusal(data))


@pytest.mark.slow
def test_mnist(cache, capsys):
    card = Classifier().card(load(Mnist()))
    assert card["accuracy"]["valid"] > 0.98 and card["accuracy"]["test"] > 0.98
    with capsys.disabled():
        print(card["accuracy"], f"{card['seconds']:.0f} s of one thread, on the clock")


# --- pixels -------------------------------------------------------------------------------------------------------------


def test_pixels_are_as_they_are_up_to_64_of_them():
    digits, vectors = fitted(Pixels(), Digits()), fitted(Pixels(), Gaussian(eigenvalues=(2.0, 1.0)))
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(digits(x), x.flatten(1))
    assert torch.equal(vectors(x[0, 0, :, :2]), x[0, 0, :, :2])


def test_of_more_pixels_the_components_hold_most_of_the_variance():
    rng = np.random.default_rng(0)
    low = rng.standard_normal((300, 5)) @ rng.standard_normal((5, 100))
    x = (low + 0.01 * rng.standard_normal((300, 100))).reshape(300, 1, 10, 10).astype(np.float32)
    net = Pixels().make(made(x))
    features = extract(net, [torch.from_numpy(x)]).numpy()
    assert features.shape == (300, 64)
    train = x[:292].reshape(292, 100)
    wanted = PCA(64, svd_solver="full").fit(train).transform(x.reshape(300, 100))
    assert np.abs(features)[:, :5] == pytest.approx(np.abs(wanted)[:, :5], rel=1e-3, abs=1e-3)
    assert features[:292].var(0).sum() == pytest.approx(train.var(0).sum(), rel=1e-3)


# --- a net of one's own -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Chosen(Part):
    net: Annotated[FeatureNet, Hyper(doc="a feature net")]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "my_nets.py").write_text(
        "import torch\n"
        "def means(): return lambda x: x.mean((-1, -2))\n"
        "def linear(): return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3), torch.nn.Dropout())\n"
        "def image(): return lambda x: x\n"
        "def number(): return 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


def test_what_an_importable_function_returns_is_a_net(mine):
    net = chosen(Chosen, "net", "{type: module, path: 'my_nets:means', name: means}", "--net")
    assert net == Module(path="my_nets:means", name="means") and net.short == "means"
    x = torch.rand(5, 1, 8, 8)
    assert torch.equal(extract(fitted(net, Digits()), [x]), x.mean((-1, -2)))
    linear = fitted(Module(path="my_nets:linear", name="linear"), Digits())
    assert torch.equal(linear(x), linear(x)) and not linear(x).requires_grad  # in evaluation mode


def test_nets_that_are_none(mine):
    for path, why in (
        ("no_such:net", "No module named 'no_such'"),
        ("my_nets:nets", "has no nets"),
        ("my_nets:number", "returned int"),
    ):
        with pytest.raises(FeatureError, match=f"net.path: {path}: .*{why}"):
            fitted(Module(path=path, name="mine"), Digits())
    with pytest.raises(FeatureError, match=r"\[5, 1, 8, 8\], expected features \[5, F\]"):
        extract(fitted(Module(path="my_nets:image", name="mine"), Digits()), [torch.rand(5, 1, 8, 8)])


@pytest.mark.parametrize(
    "text, why",
    [
        ("{type: module, path: /tmp/nets.py, name: mine}", "is not package.module:function"),
        ("{type: module, path: 'a:b', name: classifier}", "is not a name of its own"),
        ("{type: module, path: 'a:b', name: 'My Net'}", "is not a name of its own"),
        ("inception", "is not one of classifier, pixels, module"),
    ],
)
def test_what_a_yaml_may_not_say(text, why):
    with pytest.raises(ConfigError, match=why):
        chosen(Chosen, "net", text, "--net")


def test_images_without_labels_have_pixels(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.full((20, 8, 8), 9, np.uint8))
    data = Npz(name="mine", path=str(tmp_path / "a.npz"), valid=0.1, test=0.1)
    assert "no labels" in str(Classifier().refusal(load(data))) and Pixels().refusal(load(data)) is None
