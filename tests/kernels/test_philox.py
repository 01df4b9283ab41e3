"""Philox against the authors' known answers (Random123), and what addressing promises."""

import numpy as np
import pytest
from scipy.stats import kstest

from distvae.kernels.philox import Stream, normal, permutation, philox, uniform, words

ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers(counter, key, answer):
    assert philox(key[0] | key[1] << 32, *counter).tolist() == list(answer)


def test_counters_broadcast_to_the_single_answers():
    block = philox(7, np.arange(5)[:, None], 3, np.arange(2), 9)
    assert block.shape == (5, 2, 4)
    for i in range(5):
        for j in range(2):
            np.testing.assert_array_equal(block[i, j], philox(7, i, 3, j, 9))


@pytest.mark.parametrize("draw", [words, uniform, normal])
def test_a_number_depends_on_its_address_only(draw):
    whole = draw(11, Stream.LATENT, index=np.arange(100), step=5, samples=3, dim=10)
    rows = np.array([99, 3, 42, 3])  # a shard, in another order, with a repeat
    np.testing.assert_array_equal(draw(11, Stream.LATENT, index=rows, step=5, samples=3, dim=10), whole[rows])
    fewer = draw(11, Stream.LATENT, index=np.arange(100), step=5, samples=2, dim=7)
    np.testing.assert_array_equal(fewer, whole[:, :2, :7])  # nor on how many samples or dimensions there are


def test_every_coordinate_of_the_address_matters():
    def draw(seed=1, stream=Stream.LATENT, step=0):
        return words(seed, stream, index=np.arange(8), step=step, samples=2, dim=8)

    base = draw()
    for other in (draw(seed=2), draw(seed=1 + 2**32), draw(step=1), *(draw(stream=s) for s in Stream if s)):
        assert (base != other).mean() > 0.99
    assert len(np.unique(base)) == base.size  # example, sample, dimension


def test_streams_have_their_own_numbers():
    assert len({int(s) for s in Stream}) == len(Stream.__members__)


N = 50_000


def test_uniforms_are_uniform_and_never_0_or_1():
    u = uniform(3, Stream.DROPOUT, index=np.arange(N // 5), dim=5).ravel()
    assert u.min() > 0.0 and u.max() < 1.0
    assert kstest(u, "uniform").pvalue > 1e-3


def test_the_first_and_last_word_give_neither_0_nor_1(monkeypatch):
    monkeypatch.setattr("distvae.kernels.philox.words", lambda *a, **k: np.array([0, ONES], dtype=np.uint32))
    assert uniform(0, Stream.LATENT, index=[0]).tolist() == [2.0**-33, 1 - 2.0**-33]


def test_normals_are_normal_and_uncorrelated():
    z = normal(3, Stream.LATENT, index=np.arange(N // 4), dim=4)[:, 0]
    assert kstest(z.ravel(), "norm").pvalue > 1e-3
    for k, moment in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)):
        spread = np.sqrt({1: 1, 2: 2, 3: 15, 4: 96}[k] / N)
        assert abs((z**k).mean() - moment) < 4 * spread
    assert np.abs(np.corrcoef(z, rowvar=False) - np.eye(4)).max() < 4 / np.sqrt(N // 4)
    assert abs(np.corrcoef(z[:-1, 0], z[1:, 0])[0, 1]) < 4 / np.sqrt(N // 4)  # neighbouring ids
    assert abs(np.corrcoef(z[:, 0] ** 2, z[:, 1] ** 2)[0, 1]) < 4 / np.sqrt(N // 4)  # a Box-Muller pair


def test_normals_are_box_muller_of_the_words():
    w = words(3, Stream.LATENT, index=[4], dim=4)[0, 0].astype(float)
    u = (w + 0.5) / 2**32
    z = np.sqrt(-2 * np.log(u[[0, 0, 2, 2]])) * [
        np.cos(2 * np.pi * u[1]), np.sin(2 * np.pi * u[1]), np.cos(2 * np.pi * u[3]), np.sin(2 * np.pi * u[3])
    ]  # fmt: skip
    np.testing.assert_allclose(normal(3, Stream.LATENT, index=[4], dim=4)[0, 0], z, rtol=1e-13)


@pytest.mark.parametrize("n", [1, 2, 1000])
def test_a_permutation_is_one_and_differs_by_step_and_seed(n):
    p = permutation(5, n, step=2)
    assert sorted(p) == list(range(n))
    np.testing.assert_array_equal(p, permutation(5, n, step=2))
    if n == 1000:
        for other in (
            permutation(5, n, step=3),
            permutation(6, n, step=2),
            permutation(5, n, stream=Stream.SPLIT, step=2),
        ):
            assert (p != other).mean() > 0.99


def test_every_position_of_a_permutation_is_uniform():
    firsts = np.array([permutation(0, 5, step=t) for t in range(4000)])
    counts = np.stack([np.bincount(column, minlength=5) for column in firsts.T])
    assert np.abs(counts - 800).max() < 4.5 * np.sqrt(4000 * 0.2 * 0.8)
