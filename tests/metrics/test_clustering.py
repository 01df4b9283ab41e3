"""k-means against blobs made by hand, and scores against contingency tables worked out on paper."""

import math
from math import comb

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import distvae
from distvae.data.digits import Digits
from distvae.data.gaussian import Gaussian as GaussianData
from distvae.likelihoods import Gaussian
from distvae.metrics.clustering import Clustering, ari, clusters, nmi
from distvae.metrics.subject import Subject
from distvae.nets import Mlp
from distvae.trial import Train, Trial
from distvae.vae import Model

RNG = np.random.default_rng(0)


def blobs(centres, n: int) -> np.ndarray:
    return np.concatenate([np.array(c) + 0.05 * RNG.normal(size=(n, 2)) for c in centres])


def test_blobs_are_found_whatever_they_are_called():
    z, y = blobs([(0, 0), (1, 0), (0, 3)], 40), np.repeat([0, 1, 2], 40)
    found = clusters(z, 3)
    assert nmi(y, found) == pytest.approx(1.0, abs=1e-12) and ari(y, found) == 1.0
    assert nmi((y + 1) % 3, found) == pytest.approx(1.0, abs=1e-12) and ari((y + 1) % 3, found) == 1.0


def test_two_clusters_of_four_classes_score_what_their_table_says():
    """I = ln 2, H(C) = ln 2, H(Y) = ln 4; pairs are counted for the Rand index."""
    m = 25
    found, y = clusters(blobs([(0, 0), (5, 0)], 2 * m), 2), np.repeat([0, 1, 2, 3], m)
    assert nmi(y, found) == pytest.approx(math.log(2) / ((math.log(2) + math.log(4)) / 2))
    together, in_y, in_c, pairs = 4 * comb(m, 2), 4 * comb(m, 2), 2 * comb(2 * m, 2), comb(4 * m, 2)
    expected = in_y * in_c / pairs
    assert ari(y, found) == pytest.approx((together - expected) / ((in_y + in_c) / 2 - expected))


def test_labels_that_have_nothing_to_do_with_the_code():
    z, y = RNG.normal(size=(4000, 3)), RNG.integers(0, 10, 4000)
    found = clusters(z, 10, restarts=2)
    assert abs(ari(y, found)) < 0.01 and nmi(y, found) < 0.02  # NMI is biased upwards by about 81 / (2 N ln 10)


def test_a_collapsed_code_is_one_cluster_and_says_nothing():
    found = clusters(np.zeros((50, 2)), 5)
    assert (found == 0).all()
    assert nmi(np.arange(50) % 5, found) == pytest.approx(0.0, abs=1e-12) and ari(np.arange(50) % 5, found) == 0.0


def test_more_clusters_than_examples_are_refused():
    with pytest.raises(ValueError, match="k: 5 clusters of 4 examples"):
        clusters(np.zeros((4, 2)), 5)


def test_it_runs_on_one_thread_whatever_was_set(monkeypatch):
    from sklearn.cluster import KMeans

    fit, seen = KMeans.fit_predict, []
    monkeypatch.setattr(
        KMeans,
        "fit_predict",
        lambda self, x: (seen.extend(p["num_threads"] for p in threadpool_info()), fit(self, x))[1],
    )
    z, found = RNG.normal(size=(3000, 4)), []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(clusters(z, 12, restarts=2))
            assert {p["num_threads"] for p in threadpool_info()} == {threads}
    assert set(seen) == {1}
    assert np.array_equal(*found)


def test_a_trial_on_digits():
    trial = Trial(data=Digits(), vae=Model(encoder=Mlp(hidden=(64,)), latent_dim=8), train=Train(epochs=8, lr=3e-3))
    subject = Subject(trial, distvae.train(trial).model)
    part = Clustering(splits=("valid", "test"))
    assert part.why_not(subject) is None
    got = part.measure(subject, "test")
    assert list(got) == [c.name for c in part.columns(trial)] == ["nmi", "ari"]
    z, y = subject.means("test").numpy(), subject.labels("test")
    assert got == Clustering(k=10).measure(subject, "test") and got["nmi"] == nmi(y, clusters(z, 10))
    assert 0.3 < got["nmi"] < 1.0 and 0.1 < got["ari"] < 1.0  # 0 is chance
    assert Clustering(k=2).measure(subject, "test") != got
    why = Clustering(k=1000).why_not(subject)
    assert why == "fewer examples than k = 1000 (valid)"


def test_without_labels_there_is_no_value_and_a_reason():
    trial = Trial(
        data=GaussianData(eigenvalues=(2.0, 1.0)),
        vae=Model(encoder=Mlp(hidden=()), latent_dim=2, likelihood=Gaussian()),
        train=Train(epochs=1),
    )
    why = Clustering().why_not(Subject(trial, distvae.train(trial).model))
    assert why is not None and why.endswith("have no labels")
