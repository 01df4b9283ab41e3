"""Linear probes: classes that a line parts, noise, the limits of the penalty; subsets of labels; and trials."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import distvae
from distvae.data.digits import Digits
from distvae.data.gaussian import Gaussian as GaussianData
from distvae.likelihoods import Gaussian
from distvae.metrics.linear_probe import LinearProbe, labelled, probe_accuracy
from distvae.metrics.subject import Subject
from distvae.nets import Mlp
from distvae.trial import Evaluate, Train, Trial
from distvae.vae import Model

RNG = np.random.default_rng(0)


def parted(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Three classes in the corners of a triangle, far apart."""
    y = RNG.integers(0, 3, n)
    return np.array([(0.0, 0.0), (9.0, 0.0), (0.0, 9.0)])[y] + RNG.uniform(-1, 1, (n, 2)), y


def test_classes_that_lines_part_are_all_read():
    (z, y), (some_z, some_y) = parted(500), parted(30)
    assert probe_accuracy(some_z, some_y, z, y) == 1.0


def test_scale_shift_sign_and_order_of_dimensions_do_not_matter():
    z, y = RNG.normal(size=(600, 4)), RNG.integers(0, 3, 600)
    z[:, 0] += 0.7 * y
    other = (z * [1e-6, -3.0, 1e4, 1.0] + [0.0, 5.0, 0.0, -1.0])[:, [2, 0, 3, 1]]
    got = probe_accuracy(z[:300], y[:300], z[300:], y[300:])
    assert 0.45 < got < 0.8
    assert probe_accuracy(other[:300], y[:300], other[300:], y[300:]) == pytest.approx(got, abs=1 / 300)


def test_noise_is_read_at_chance():
    z, y = RNG.normal(size=(6000, 5)), RNG.integers(0, 4, 6000)
    assert probe_accuracy(z[:1000], y[:1000], z[1000:], y[1000:]) == pytest.approx(0.25, abs=0.02)  # 3 se


def test_a_probe_that_is_penalised_without_bound_says_what_is_most_frequent():
    z, y = parted(400)
    y[:150] = 2  # against the code, so that one class is ahead
    assert probe_accuracy(z, y, z, y, c=1e-9) == np.bincount(y).max() / 400 < probe_accuracy(z, y, z, y)


def test_the_probe_is_the_minimum_of_the_loss_it_states():
    """Two classes, one feature: softmax of +-w z / ... is fitted by scipy, and its boundary falls between the same
    examples."""
    from scipy.optimize import minimize

    y = np.repeat([0, 1], [150, 50])
    z = (RNG.normal(size=200) + 1.2 * y)[:, None]
    x = (z[:, 0] - z.mean()) / z.std()
    c = 0.05  # strong enough to move the boundary

    def loss(p):
        return np.logaddexp(0.0, -(2 * y - 1) * (p[0] * x + p[1])).sum() + p[0] ** 2 / (2 * c)

    w, b = minimize(loss, np.zeros(2), tol=1e-12).x
    unpenalised = minimize(lambda p: loss(p) - p[0] ** 2 / (2 * c), np.zeros(2), tol=1e-12).x
    grid = np.linspace(-3, 5, 2001)[:, None]
    says = (w * (grid[:, 0] - z.mean()) / z.std() + b > 0).astype(int)
    otherwise = (unpenalised[0] * (grid[:, 0] - z.mean()) / z.std() + unpenalised[1] > 0).astype(int)
    assert (says != otherwise).sum() > 20
    assert probe_accuracy(z, y, grid, says, c) >= 1 - 2 / 2001


def test_labels_are_drawn_by_class_and_by_address():
    y = np.repeat([0, 1, 2], [500, 300, 200])
    subsets = labelled(y, 100, draws=3)
    assert [np.bincount(y[rows]).tolist() for rows in subsets] == [[50, 30, 20]] * 3
    assert len({tuple(rows) for rows in subsets}) == 3
    assert all(np.array_equal(a, b) for a, b in zip(subsets, labelled(y, 100, draws=5), strict=False))
    assert not np.array_equal(subsets[0], labelled(y, 100, seed=1)[0])
    (every,) = labelled(y, 1000, draws=3)
    assert np.array_equal(every, np.arange(1000))
    with pytest.raises(ValueError, match="1001 of 1000"):
        labelled(y, 1001)


def test_one_class_among_the_labelled():
    assert probe_accuracy(np.ones((3, 1)), np.array([4, 4, 4]), np.ones((4, 1)), np.array([4, 4, 4, 0])) == 0.75


@pytest.mark.parametrize("labels", [(), (10, 10)])
def test_numbers_of_labels_that_make_no_columns(labels):
    with pytest.raises(ValueError, match="labels: at least one number, each once"):
        LinearProbe(labels=labels)


@pytest.fixture(scope="module")
def digits() -> Subject:
    trial = Trial(
        data=Digits(),
        vae=Model(encoder=Mlp(hidden=(64,)), latent_dim=8),
        train=Train(epochs=8, lr=3e-3),
        evaluate=Evaluate(train_examples=50),  # labelled examples are of the whole train split all the same
    )
    return Subject(trial, distvae.train(trial).model)


def test_a_trial_on_digits(digits):
    part = LinearProbe(labels=(20, 100, 1000, 1437, 10_000))
    assert part.why_not(digits) is None
    got = part.measure(digits, "test")
    assert list(got) == [c.name for c in part.columns(digits.trial)]
    means = [got[f"probe_accuracy_{n}"] for n in (20, 100, 1000)]
    assert 0.2 < means[0] < means[1] < means[2] < 1.0
    assert 0.0 < got["probe_accuracy_100_sd"] < 0.1
    assert got["probe_accuracy_1437"] > 0.6 and got["probe_accuracy_1437_sd"] is None  # all: one subset
    assert got["probe_accuracy_10000"] is None and got["probe_accuracy_10000_sd"] is None
    with threadpool_limits(2):
        assert part.measure(digits, "test") == got
    alone = LinearProbe(labels=(100,)).measure(digits, "test")
    assert alone == {name: got[name] for name in ("probe_accuracy_100", "probe_accuracy_100_sd")}


def test_codes_of_any_training_examples_are_those_of_the_evaluation_pass(digits):
    some = np.array([7, 49, 3])  # of those that are evaluated
    rows = np.flatnonzero(np.isin(digits.data.train.index, digits.split("train").index))[some]
    assert digits.train_means(rows).numpy() == pytest.approx(digits.means("train")[some].numpy(), abs=1e-6)


def test_what_has_no_value_says_why(digits):
    assert LinearProbe(labels=(2000,)).why_not(digits) == "the train split has 1437 examples, fewer than 2000 labels"
    trial = Trial(
        data=GaussianData(eigenvalues=(2.0, 1.0), n=128),
        vae=Model(encoder=Mlp(hidden=()), latent_dim=2, likelihood=Gaussian()),
        train=Train(epochs=1),
    )
    why = LinearProbe(labels=(2,)).why_not(Subject(trial, distvae.train(trial).model))
    assert why is not None and why.endswith("have no labels")
