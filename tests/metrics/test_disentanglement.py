"""MIG, DCI, SAP and the FactorVAE score of codes made by hand, over every combination of their factors, where the right
values can be worked out on paper."""

import math
import os

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

import distvae
from distvae.data.digits import Digits
from distvae.data.dsprites import Dsprites
from distvae.metrics.dci import DciScores, completeness, dci, disentanglement
from distvae.metrics.factorvae import FactorVae, factorvae_score, shared
from distvae.metrics.mig import Mig, density_information, gap, histogram_information, mig
from distvae.metrics.sap import Sap, by_thresholds, sap
from distvae.metrics.subject import Subject
from distvae.nets import Mlp
from distvae.posteriors import Delta
from distvae.trial import Evaluate, Train, Trial
from distvae.vae import Model, Vae

SIZES = (3, 8, 8)
GRID = np.stack(np.meshgrid(*(np.arange(s) for s in (*SIZES, 4, 4)), indexing="ij"), -1).reshape(-1, 5)
FACTORS, OTHERS = GRID[:, :3], GRID[:, 3:]  # the last two axes are of no factor: exactly independent of them
PERFECT = (FACTORS - FACTORS.mean(0)) / FACTORS.std(0)
USELESS = (OTHERS - OTHERS.mean(0)) / OTHERS.std(0)
TURN = np.array([[1.0, 0.0, 0.0], [0.0, 0.5**0.5, 0.5**0.5], [0.0, 0.5**0.5, -(0.5**0.5)]])
ROTATED = PERFECT @ TURN  # 45 degrees between the second factor and the third
RNG = np.random.default_rng(0)
NOISY = np.concatenate([0.8 * ROTATED + 0.5 * RNG.normal(size=PERFECT.shape), RNG.normal(size=(len(GRID), 2))], 1)


# --- MIG --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        (PERFECT, 1.0),
        (np.concatenate([USELESS, PERFECT], 1), 1.0),
        (ROTATED, 1 / 3),  # both dimensions know as much of each of the two factors
        (USELESS, 0.0),
        (np.concatenate([PERFECT, PERFECT], 1), 0.0),  # each factor twice
        (PERFECT[:, [0, 1]], 2 / 3),  # one factor nowhere
    ],
)
def test_mig_of_codes_made_by_hand(means, expected):
    assert mig(means, FACTORS) == pytest.approx(expected, abs=1e-9)


def test_histograms_count_what_a_bin_holds():
    """8 values in 4 bins: half the entropy less ln 2; the sum of two fair dice against one of them."""
    information = histogram_information(PERFECT, FACTORS, bins=4)
    assert information[1, 1] == pytest.approx(math.log(4)) and information[1, 0] == pytest.approx(0.0, abs=1e-12)
    dice = np.stack(np.meshgrid(np.arange(6), np.arange(6)), -1).reshape(-1, 2)
    total = dice.sum(1, keepdims=True).astype(float)
    ways = np.array([1, 2, 3, 4, 5, 6, 5, 4, 3, 2, 1]) / 36
    assert histogram_information(total, dice, bins=11)[0, 0] == pytest.approx(-(ways @ np.log(ways)) - math.log(6))


def gaussian(means, std):
    mu = torch.tensor(means)
    return mu + std * torch.from_numpy(RNG.normal(size=mu.shape)), mu, torch.full_like(mu, 2 * math.log(std))


def test_density_mig_of_codes_made_by_hand():
    steps = FACTORS.astype(float)  # one unit apart
    assert gap(density_information(*gaussian(steps, 0.01), FACTORS), FACTORS) == pytest.approx(1.0, abs=1e-5)
    assert gap(density_information(*gaussian(USELESS, 0.01), FACTORS), FACTORS) == pytest.approx(0.0, abs=1e-5)
    assert gap(density_information(*gaussian(steps, 100.0), FACTORS), FACTORS) < 0.01  # no more than noise


def test_density_information_is_that_of_a_noisy_bit():
    """z = +-1 + 0.8 e: I by quadrature over the two Gaussians."""
    from scipy.integrate import quad
    from scipy.stats import norm

    bits = np.repeat([0, 1], 4000)[:, None]
    z, mu, logvar = gaussian(np.concatenate([2.0 * bits - 1.0, np.zeros_like(bits)], 1), 0.8)
    information = density_information(z, mu, logvar, bits)

    def integrand(t):
        p = norm.pdf(t, 1.0, 0.8)
        return p * np.log(p / (0.5 * p + 0.5 * norm.pdf(t, -1.0, 0.8)))

    exact = quad(integrand, -8, 8)[0]
    assert information[0, 0] == pytest.approx(exact, abs=0.02) and information[1, 0] == pytest.approx(0.0, abs=1e-6)
    assert gap(information, bits) == pytest.approx(exact / math.log(2), abs=0.03)


# --- DCI --------------------------------------------------------------------------------------------------------------


def test_dci_of_importances_by_hand():
    assert disentanglement(np.eye(3)[[2, 0, 1]]) == completeness(np.eye(3)) == 1.0
    assert disentanglement(np.ones((4, 3))) == pytest.approx(0.0, abs=1e-12)
    assert completeness(np.ones((4, 3))) == pytest.approx(0.0, abs=1e-12)
    r = np.array([[0.75, 0.0], [0.25, 0.0], [0.0, 1.0]])  # each dimension of one factor; one factor in two
    h = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(3)
    assert disentanglement(r) == pytest.approx(1.0) and completeness(r) == pytest.approx((1 - h + 1) / 2)
    r = np.array([[1.0, 1.0], [0.0, 2.0], [0.0, 0.0]])  # one dimension of both; one dead, of no weight
    assert disentanglement(r) == pytest.approx(0.5)
    assert disentanglement(np.zeros((2, 2))) == 0.0


def test_dci_of_codes_made_by_hand():
    assert dci(PERFECT, FACTORS, PERFECT, FACTORS) == (1.0, 1.0, 1.0)
    d, c, i = dci(ROTATED, FACTORS, ROTATED, FACTORS)
    half = 1 - math.log(2) / math.log(3)  # two dimensions with equal parts in two factors
    assert d == pytest.approx((1 + 2 * half) / 3, abs=0.02) and c == pytest.approx((1 + 2 * half) / 3, abs=0.02)
    assert i > 0.99
    noise, more = RNG.normal(size=(2, len(GRID), 3))
    d, c, i = dci(noise, FACTORS, more, FACTORS)
    assert d < 0.02 and c < 0.02 and i == pytest.approx((1 / 3 + 1 / 8 + 1 / 8) / 3, abs=0.02)


def test_dci_leaves_a_constant_factor_out():
    constant = np.concatenate([np.zeros_like(FACTORS[:, :1]), FACTORS], 1)
    assert dci(PERFECT, constant, PERFECT, constant) == (1.0, 1.0, 1.0)


# --- SAP --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("means", "categorical", "expected"),
    [
        (PERFECT, (), 1.0),  # R^2 of 1 and 0
        (PERFECT, (0,), (2 / 3 + 1 + 1) / 3),  # accuracy of 1 and, blindly, 1/3
        (PERFECT, (0, 1, 2), (2 / 3 + 7 / 8 + 7 / 8) / 3),
        (ROTATED, (), 1 / 3),  # R^2 of 1/2 twice
        (USELESS, (0,), 0.0),
        (0.05 * PERFECT, (0,), 0.0),  # variance 0.0025: inactive
    ],
)
def test_sap_of_codes_made_by_hand(means, categorical, expected):
    assert sap(means, FACTORS, categorical=categorical) == pytest.approx(expected, abs=1e-9)


def test_thresholds_are_judged_by_balanced_accuracy():
    """One threshold between 90 and 10 examples that overlap: of the rare class all, of the other 60 of 90."""
    v = np.repeat([0, 1], [90, 10])
    z = np.concatenate([np.zeros(60), np.ones(30), np.ones(10)])
    assert by_thresholds(z, v) == pytest.approx((60 / 90 + 1) / 2)


# --- FactorVAE --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("means", "expected", "within"),
    [
        (PERFECT, 1.0, 0.0),
        (np.concatenate([USELESS, PERFECT, USELESS], 1), 1.0, 0.0),
        (ROTATED, 2 / 3, 0.03),  # two factors are not told apart
        (USELESS, 1 / 3, 0.03),
        (0.05 * PERFECT, 1 / 3, 0.0),  # no active dimension: the majority
    ],
)
def test_factorvae_of_codes_made_by_hand(means, expected, within):
    assert factorvae_score(means, FACTORS, votes=3000) == pytest.approx(expected, abs=within)


def test_batches_share_the_fixed_factor_and_nothing_else():
    fixed = np.array([0, 1, 2] * 40)
    rows = shared(FACTORS, fixed, np.arange(120), 64, seed=0)
    for k, batch in zip(fixed, FACTORS[rows], strict=True):
        assert [len(np.unique(v)) == 1 for v in batch.T] == [j == k for j in range(3)]
    assert np.array_equal(shared(FACTORS, fixed[30:60], np.arange(30, 60), 64, seed=0), rows[30:60])
    counts = np.bincount(FACTORS[rows[fixed == 1][:, 0], 1], minlength=8)
    assert counts.min() > 0  # every value has its turn


# --- all --------------------------------------------------------------------------------------------------------------


def score_all(means, factors):
    return {
        "mig": mig(means, factors),
        "sap": sap(means, factors, categorical=(0,)),
        "factorvae": factorvae_score(means, factors, votes=600),
        **dci(means, factors, means, factors, trees=2)._asdict(),
    }


def test_order_and_sign_of_dimensions_do_not_matter():
    one = score_all(NOISY, FACTORS)
    assert 0.02 < one["mig"] < 0.5 and 0.35 < one["factorvae"] < 0.9
    other = score_all(NOISY[:, [4, 1, 0, 3, 2]] * [-1, 1, -1, 1, -1], FACTORS)
    for name in ("mig", "sap", "factorvae"):
        assert other[name] == pytest.approx(one[name], abs=1e-9), name
    for name in ("disentanglement", "completeness", "informativeness"):  # trees break ties by position
        assert other[name] == pytest.approx(one[name], abs=0.03), name


def test_threads_do_not_matter():
    with threadpool_limits(1):
        one = score_all(NOISY, FACTORS)
    with threadpool_limits(2):
        assert score_all(NOISY, FACTORS) == one


def test_a_factor_that_does_not_vary_is_left_out():
    constant = np.concatenate([np.full_like(FACTORS[:, :1], 2), FACTORS], 1)
    assert mig(PERFECT, constant) == pytest.approx(1.0)
    assert sap(PERFECT, constant) == pytest.approx(1.0)
    assert factorvae_score(PERFECT, constant, votes=300) == 1.0
    for score in (mig, sap, factorvae_score):
        with pytest.raises(ValueError):
            score(PERFECT, constant[:, :1])


def test_one_dimension_has_no_second_best():
    for score in (mig, sap):
        with pytest.raises(ValueError, match="1 dimensions"):
            score(PERFECT[:, :1], FACTORS)


PARTS = [Mig(), Mig(estimator="density"), DciScores(examples=500, trees=2), Sap(), FactorVae(votes=200)]


def untrained(trial: Trial) -> Subject:
    return Subject(trial, Vae(trial.vae, (1, 8, 8)))


@pytest.mark.parametrize("part", PARTS, ids=lambda p: p.type)
def test_digits_have_no_factors(part):
    why = part.why_not(untrained(Trial(data=Digits())))
    assert why == "the data (digits) have no generating factors (dsprites has)"


def test_the_density_estimator_is_of_gaussian_posteriors():
    why = Mig(estimator="density").why_not(untrained(Trial(data=Digits(), vae=Model(posterior=Delta()))))
    assert why == "estimator: density is of Gaussian posteriors, not delta"


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("DISTVAE_DATA"), reason="needs DISTVAE_DATA (dsprites)")
def test_a_trial_on_dsprites():
    trial = Trial(
        data=Dsprites(subset="random", valid=14_000, test=2_000),
        vae=Model(encoder=Mlp(hidden=(16,)), latent_dim=3),
        train=Train(epochs=1, lr=3e-3),
        evaluate=Evaluate(train_examples=100),
    )
    subject = Subject(trial, distvae.train(trial).model)
    factors, means = subject.factors("test"), subject.means("test").numpy()
    for part in PARTS:
        assert part.why_not(subject) is None
        got = part.measure(subject, "test")
        assert list(got) == [c.name for c in part.columns(trial)]
        assert all(0.0 <= v <= 1.0 for v in got.values())
        assert part.measure(subject, "test") == got
    assert Mig().measure(subject, "test") == {"mig": mig(means, factors)}
    assert Sap().measure(subject, "test") == {"sap": sap(means, factors, categorical=(0,))}
    assert FactorVae().measure(subject, "test")["factorvae"] > 0.21  # position shows in any code
    narrow = Subject(trial, Vae(Model(encoder=Mlp(hidden=(4,)), latent_dim=1), (1, 64, 64)))
    assert Sap().why_not(narrow) == "it compares the best two dimensions of the code, which has 1"
