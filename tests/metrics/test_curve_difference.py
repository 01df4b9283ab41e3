"""Differences between rate-distortion curves, against exact results and the codecs' conventions."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.interpolate import CubicHermiteSpline, PchipInterpolator

from distvae.metrics.curve_difference import area_under, codec_difference, difference, hypervolume, lower_hull
from distvae.metrics.rate_distortion import water_filling

RATES = (0.0, 0.5, 1.7, 3.0, 6.0, 10.0)
CURVE = [(r, 40 * math.exp(-r / 3)) for r in RATES]


def moved(points, rate=0.0, distortion=0.0):
    return [(r + rate, d + distortion) for r, d in points]


def test_a_curve_differs_from_itself_by_nothing():
    d = difference(CURVE, CURVE)
    assert (d.rate_nats, d.rate_percent, d.distortion_nats, d.area_nats2) == (0.0, 0.0, 0.0, 0.0)
    assert d.rates == (0.0, 10.0) and d.distortions == pytest.approx((CURVE[-1][1], 40.0))


@pytest.mark.parametrize("shift", [0.25, -0.25, 2.0])
def test_a_shift_in_rate_is_the_bd_rate(shift):
    d = difference(CURVE, moved(CURVE, rate=shift))
    assert d.rate_nats == pytest.approx(shift, rel=1e-12)
    (low, high), mean = d.distortions, d.rate_percent
    assert (low, high) == pytest.approx((CURVE[-1][1], 40.0))
    assert 100 * shift / mean == pytest.approx(_mean_rate(CURVE), rel=1e-12)  # percent of A's mean rate


def _mean_rate(points):
    """Of PCHIP's R(D) over all of its distortions, by adaptive quadrature."""
    r, d = np.array(points).T
    curve = PchipInterpolator(d[::-1], r[::-1])
    return quad(curve, d.min(), d.max(), points=sorted(d), limit=400, epsabs=1e-13)[0] / (d.max() - d.min())


@pytest.mark.parametrize("shift", [1.5, -30.0])
def test_a_shift_in_distortion_is_the_bd_distortion_and_the_area_over_the_width(shift):
    d = difference(CURVE, moved(CURVE, distortion=shift))
    assert d.distortion_nats == pytest.approx(shift, rel=1e-12) and d.area_nats2 == pytest.approx(10 * abs(shift))


def test_a_curve_of_half_the_rate_saves_half():
    d = difference(CURVE, [(r / 2, v) for r, v in CURVE])
    assert d.rate_percent == pytest.approx(-50.0) and d.rate_nats == pytest.approx(-_mean_rate(CURVE) / 2)


points = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda p: (p[0] / 4, p[1] / 4)), min_size=2, max_size=20
)


@given(points, points, st.randoms())
def test_b_minus_a_is_minus_a_minus_b_in_any_order_with_any_point_on_a_chord(a, b, random):
    d, back = difference(a, b), difference(b, a)
    hull = lower_hull(a)
    chord = [((p[0] + q[0]) / 2, (p[1] + q[1]) / 2) for p, q in itertools.pairwise(hull)]
    more = [*a, *chord]  # halves of quarters are exact
    random.shuffle(more)
    same = difference(more, b)
    for name in ("rate_nats", "distortion_nats"):
        x, y = getattr(d, name), getattr(back, name)
        assert (x is None) == (y is None)
        assert x is None or x == pytest.approx(-y, abs=1e-9)
    assert d.area_nats2 is None or d.area_nats2 == pytest.approx(back.area_nats2, abs=1e-9)
    assert same == d


@given(points, points)
def test_the_area_is_that_of_quadrature_and_at_least_the_mean_times_the_width(a, b):
    d = difference(a, b)
    if d.rates is None:
        return
    low, high = d.rates
    grid = np.linspace(low, high, 20001)
    curve_a, curve_b = (PchipInterpolator(*np.array(lower_hull(p)).T) for p in (a, b))
    gap = curve_b(grid) - curve_a(grid)
    assert d.area_nats2 == pytest.approx(np.trapezoid(np.abs(gap), grid), rel=1e-5, abs=1e-4)
    assert d.area_nats2 >= abs(d.distortion_nats) * (high - low) - 1e-9


def test_curves_that_cross_have_an_area_though_their_means_agree():
    d = difference([(0.0, 2.0), (2.0, 0.0)], [(0.0, 3.0), (1.0, 1.0), (2.0, 0.0)])
    straight = difference([(0.0, 4.0), (4.0, 0.0)], [(0.0, 6.0), (4.0, -2.0)])
    assert straight.distortion_nats == pytest.approx(0.0, abs=1e-12) and straight.area_nats2 == pytest.approx(4.0)
    assert d.area_nats2 > 0


# --- exact curves of the Gaussian source ------------------------------------------------------------------------------

SIGMA = 0.5


def source(eigenvalues, thetas):
    """Reverse water-filling: (rate nats, distortion nats without its constant)."""
    found = (water_filling(eigenvalues, t / SIGMA**2, SIGMA) for t in thetas)
    return [(r, sse / (2 * SIGMA**2)) for r, sse in found]


def test_one_gaussian_against_another():
    """R(D) = 1/2 ln(lambda / D): sources 3 and 2 are 1/2 ln(3/2) nats apart at every distortion."""
    a, b = (source([v], np.geomspace(0.02, v, 60)) for v in (2.0, 3.0))
    d = difference(a, b)
    assert d.rate_nats == pytest.approx(0.5 * math.log(1.5), abs=2e-4)
    width = d.rates[1] - d.rates[0]
    exact = (3.0 - 2.0) / (2 * SIGMA**2) * (1 - math.exp(-2 * width)) / 2  # of (3 - 2) e^(-2R) / (2 sigma^2)
    assert d.rates[0] == 0.0 and d.area_nats2 == pytest.approx(exact, rel=1e-4)
    assert d.distortion_nats * width == pytest.approx(exact, rel=1e-4)
    low, high = 0.02 / (2 * SIGMA**2), 2.0 / (2 * SIGMA**2)
    mean_rate = quad(lambda x: 0.5 * math.log(high / x), low, high)[0] / (high - low)
    assert d.rate_percent == pytest.approx(100 * 0.5 * math.log(1.5) / mean_rate, rel=1e-3)


def test_the_area_under_many_gaussians():
    """With k components above the water, dR = -k dtheta / (2 theta)."""
    eigenvalues, low = [4.0, 2.0, 1.0, 0.25], 0.05
    curve = source(eigenvalues, np.geomspace(low, 4.0, 400))

    def slope(theta):
        k = sum(v > theta for v in eigenvalues)
        return water_filling(eigenvalues, theta / SIGMA**2, SIGMA)[1] / (2 * SIGMA**2) * k / (2 * theta)

    exact = quad(slope, low, 4.0, points=[0.25, 1.0, 2.0], limit=200)[0]
    assert area_under(curve, 0.0, curve[0][0]) == pytest.approx(exact, rel=1e-5)
    assert area_under(curve, 0.0, curve[0][0] + 0.1) is None


def test_pchip_comes_nearer_the_truth_with_more_points():
    truth = 0.5 * math.log(1.5)
    off = []
    for n in (4, 8, 16, 32):
        a, b = (source([v], np.geomspace(0.02, v, n)) for v in (2.0, 3.0))
        off.append(abs(difference(a, b).rate_nats - truth))
    assert off == sorted(off, reverse=True) and off[-1] < 1e-3


# --- what does not exist ----------------------------------------------------------------------------------------------


def test_curves_without_a_common_range_have_no_difference_and_say_so():
    apart = difference([(0.0, 9.0), (1.0, 8.0)], [(2.0, 3.0), (4.0, 1.0)])
    assert apart.rate_nats is None is apart.distortion_nats and apart.rate_percent is None is apart.area_nats2
    assert apart.no_rate == "no distortion is in the range of both curves: [8, 9] and [1, 3]"
    assert apart.no_distortion == "no rate is in the range of both curves: [0, 1] and [2, 4]"
    above = difference([(0.0, 9.0), (2.0, 8.0)], [(1.0, 3.0), (4.0, 1.0)])
    assert above.rate_nats is None and above.rates == (1.0, 2.0) and above.distortion_nats < -5
    touching = difference([(0.0, 2.0), (1.0, 1.0)], [(1.0, 1.0), (2.0, 0.0)])
    assert touching.rate_nats is None is touching.distortion_nats


@pytest.mark.parametrize("few", [[], [(1.0, 1.0)], [(1.0, 1.0), (2.0, 3.0)]])
def test_a_curve_of_one_point_is_none(few):
    d = difference(CURVE, few)
    assert d.rate_nats is None is d.area_nats2 and "on its lower hull, and needs 2" in d.no_rate == d.no_distortion


def test_a_rate_of_zero_has_no_percent():
    d = difference([(-1.0, 2.0), (1.0, 0.0)], [(0.0, 2.0), (1.0, 0.0)])
    assert d.rate_nats == pytest.approx(0.5) and d.rate_percent is None


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        difference(CURVE, [(0.0, math.nan), (1.0, 1.0)])


# --- as codecs are compared -------------------------------------------------------------------------------------------

# The example that ships with the public implementations of VCEG-M33: kbit/s and dB.
ANCHOR = [(686.76, 40.28), (309.58, 37.18), (157.11, 34.24), (85.95, 31.42)]
TEST = [(893.34, 40.39), (407.8, 37.21), (204.93, 34.17), (112.75, 31.24)]


def by_hand(anchor, test):
    """JCTVC-L1100's spreadsheet: slopes at inner points are weighted harmonic means, at the ends three-point formulas
    held to monotone ones; then Simpson's rule, exact for cubics."""

    def curve(points):
        y, x = np.array(sorted(points)).T
        return CubicHermiteSpline(x, np.log(y), slopes(x, np.log(y)))

    def slopes(x, y):
        h, s = np.diff(x), np.diff(y) / np.diff(x)
        inner = [
            3 * (h[i - 1] + h[i]) / ((2 * h[i] + h[i - 1]) / s[i - 1] + (h[i] + 2 * h[i - 1]) / s[i])
            for i in range(1, len(h))
        ]
        ends = [((2 * h[i] + h[j]) * s[i] - h[i] * s[j]) / (h[i] + h[j]) for i, j in ((0, 1), (-1, -2))]
        ends = [max(e, 0.0) for e in ends]
        return np.array([ends[0], *inner, ends[1]])

    a, b = curve(anchor), curve(test)
    low, high = max(a.x[0], b.x[0]), min(a.x[-1], b.x[-1])
    knots = np.unique(np.concatenate([[low, high], a.x, b.x]))
    knots = knots[(knots >= low) & (knots <= high)]
    total = sum(
        (q - p) / 6 * (g(p) + 4 * g((p + q) / 2) + g(q))
        for g, p, q in ((lambda x: b(x) - a(x), p, q) for p, q in itertools.pairwise(knots))
    )
    return 100 * (math.exp(total / (high - low)) - 1)


def test_the_published_example():
    found = codec_difference(ANCHOR, TEST)
    assert found.rate_percent == pytest.approx(by_hand(ANCHOR, TEST), rel=1e-10)
    rates, psnrs = zip(*(np.array(c).T for c in (ANCHOR, TEST)), strict=True)
    old = cubic(psnrs[0], np.log(rates[0]), psnrs[1], np.log(rates[1]))  # VCEG-M33's
    assert 100 * math.expm1(old) == pytest.approx(31.397374, abs=1e-5)
    assert found.rate_percent == pytest.approx(100 * math.expm1(old), abs=0.05)
    assert found.psnr_db == pytest.approx(cubic(np.log(rates[0]), psnrs[0], np.log(rates[1]), psnrs[1]), abs=0.02)


def cubic(x_a, y_a, x_b, y_b):
    """Mean difference of the cubics through four points."""
    low, high = max(x_a.min(), x_b.min()), min(x_a.max(), x_b.max())
    a, b = (np.polyint(np.polyfit(x, y, 3)) for x, y in ((x_a, y_a), (x_b, y_b)))
    return float(np.polyval(b, high) - np.polyval(b, low) - np.polyval(a, high) + np.polyval(a, low)) / (high - low)


def test_a_quarter_more_bits_and_half_a_decibel():
    assert codec_difference(ANCHOR, [(1.25 * r, q) for r, q in ANCHOR]).rate_percent == pytest.approx(25.0)
    assert codec_difference(ANCHOR[::-1], [(r, q + 0.5) for r, q in ANCHOR]).psnr_db == pytest.approx(0.5)
    there, back = codec_difference(ANCHOR, TEST), codec_difference(TEST, ANCHOR)
    assert (1 + there.rate_percent / 100) * (1 + back.rate_percent / 100) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "other, why",
    [
        (TEST[:3], "a curve has 3 points, and needs 4"),
        ([*TEST, (900.0, 30.0)], "a curve's PSNR does not rise with its rate"),
        ([*TEST, (0.0, 30.0)], "a rate of 0 has no logarithm"),
    ],
)
def test_what_is_no_codecs_curve(other, why):
    found = codec_difference(ANCHOR, other)
    assert (found.rate_percent, found.psnr_db, found.no_rate, found.no_psnr) == (None, None, why, why)


def test_the_area_dominated_is_a_union_of_boxes():
    rng = np.random.default_rng(0)
    cells = (np.arange(200) + 0.5) / 20
    for _ in range(20):
        some = [tuple(p) for p in rng.integers(0, 10, (6, 2)).astype(float)]
        hit = np.zeros((200, 200), bool)
        for r, d in some:
            hit |= (cells[:, None] > r) & (cells[None] > d)
        assert hypervolume(some, (10.0, 10.0)) == pytest.approx(hit.sum() / 400)
