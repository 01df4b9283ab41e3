"""How far one rate-distortion curve lies from another (Bjontegaard 2001, ITU-T VCEG-M33), for VAEs.

A curve is the lower convex hull of its (rate, distortion) points, both in nats per example: what its models reach, also
by time-sharing. Every difference is B minus A, over the range that both curves have and no further:

    BD-rate        mean over D of R_B(D) - R_A(D), nats; in percent, of the mean of R_A(D) there
    BD-distortion  mean over R of D_B(R) - D_A(R), nats
    area           integral over R of |D_B(R) - D_A(R)|, nats^2: not 0 where the curves cross and the means cancel

Between points both are interpolated by PCHIP (Fritsch and Carlson 1980: piecewise cubic, monotone where the points
are), as in the codecs' common test conditions since JCTVC-L1100. Bjontegaard's cubic through four points overshoots
between unevenly spaced ones, is not monotone, so that R(D) is no function, and exists for four points only.

Codecs take the mean of log R over PSNR instead, for rates over orders of magnitude (`codec_difference`). A VAE's rate
reaches 0, where the logarithm has no value, and its distortion is in the rate's own unit: hence nats here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Point = tuple[float, float]
LEAST = 2  # points of a curve
CODEC_LEAST = 4  # as VCEG-M33 has


@dataclass(frozen=True)
class Difference:
    """B minus A. None where it does not exist; then `no_rate`, `no_distortion` say why."""

    rate_nats: float | None = None  # BD-rate
    rate_percent: float | None = None  # of A's mean rate; None if that is not above 0
    distortions: Point | None = None  # the range it is a mean over
    no_rate: str | None = None
    distortion_nats: float | None = None  # BD-distortion
    area_nats2: float | None = None
    rates: Point | None = None
    no_distortion: str | None = None


@dataclass(frozen=True)
class CodecDifference:
    """B minus A, as codecs are compared. None where it does not exist; then `no_rate`, `no_psnr` say why."""

    rate_percent: float | None = None
    no_rate: str | None = None
    psnr_db: float | None = None
    no_psnr: str | None = None


def lower_hull(points: Sequence[Point]) -> list[Point]:
    """The decreasing part of the lower convex hull of (rate, distortion) points, by increasing rate (Andrew's monotone
    chain)."""
    hull: list[Point] = []
    for p in sorted(set(points)):
        while len(hull) >= 2 and _turn(hull[-2], hull[-1], p) <= 0:
            hull.pop()
        hull.append(p)
    return [p for n, p in enumerate(hull) if n == 0 or p[1] < hull[n - 1][1]]


def _turn(a: Point, b: Point, c: Point) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def difference(a: Sequence[Point], b: Sequence[Point]) -> Difference:
    """Of the lower hulls of (rate, distortion) points, in any order. Raises ValueError if one is not finite."""
    curves = [np.array(lower_hull(_finite(points))).reshape(-1, 2) for points in (a, b)]
    short = _short(curves, LEAST, "on its lower hull")
    if short:
        return Difference(no_rate=short, no_distortion=short)
    (r_a, d_a), (r_b, d_b) = (c.T for c in curves)
    rates, distortions = _common(r_a, r_b), _common(d_a, d_b)
    found: dict[str, Any] = {}
    if distortions is None:
        found["no_rate"] = _apart("distortion", d_a, d_b)
    else:
        base, other = (_mean(_pchip(d, r), distortions) for d, r in ((d_a, r_a), (d_b, r_b)))
        percent = 100.0 * (other - base) / base if base > 0 else None
        found |= {"rate_nats": other - base, "rate_percent": percent, "distortions": distortions}
    if rates is None:
        found["no_distortion"] = _apart("rate", r_a, r_b)
    else:
        base, other = _pchip(r_a, d_a), _pchip(r_b, d_b)
        means = _mean(other, rates) - _mean(base, rates)
        found |= {"distortion_nats": means, "area_nats2": _area(base, other, rates), "rates": rates}
    return Difference(**found)


def codec_difference(a: Sequence[Point], b: Sequence[Point]) -> CodecDifference:
    """The codecs' convention, of (rate, PSNR in dB) points: exp(mean over PSNR of ln R_B - ln R_A) - 1 in percent, and
    the mean over ln R of PSNR_B - PSNR_A in dB. Through every point, no hull: each curve's PSNR must rise with its rate,
    which must be above 0."""
    curves = [np.array(sorted(_finite(points))).reshape(-1, 2) for points in (a, b)]
    why = _short(curves, CODEC_LEAST, "") or _unordered(curves)
    if why:
        return CodecDifference(no_rate=why, no_psnr=why)
    (r_a, q_a), (r_b, q_b) = ((np.log(c[:, 0]), c[:, 1]) for c in curves)
    rates, psnrs = _common(r_a, r_b), _common(q_a, q_b)
    found: dict[str, Any] = {}
    if psnrs is None:
        found["no_rate"] = _apart("PSNR", q_a, q_b)
    else:
        log = _mean(_pchip(q_b, r_b), psnrs) - _mean(_pchip(q_a, r_a), psnrs)
        found["rate_percent"] = 100.0 * math.expm1(log)
    if rates is None:
        found["no_psnr"] = _apart("ln rate", r_a, r_b)
    else:
        found["psnr_db"] = _mean(_pchip(r_b, q_b), rates) - _mean(_pchip(r_a, q_a), rates)
    return CodecDifference(**found)


def area_under(points: Sequence[Point], low: float, high: float) -> float | None:
    """Integral of D(R) of the lower hull over rates in [low, high], nats^2; None where the curve does not have all of
    them."""
    hull = np.array(lower_hull(_finite(points))).reshape(-1, 2)
    if len(hull) < LEAST or low < hull[0, 0] or high > hull[-1, 0]:
        return None
    return float(_pchip(*hull.T).integrate(low, high))


def hypervolume(points: Iterable[Point], corner: Point) -> float:
    """The area of what the points beat in both rate and distortion, up to `corner` (the worst rate and distortion that
    count). Needs no common range: any two sets compare under one corner."""
    area, ceiling = 0.0, corner[1]
    for rate, distortion in sorted(points):
        if rate < corner[0] and distortion < ceiling:
            area += (corner[0] - rate) * (ceiling - distortion)
            ceiling = distortion
    return area


def _pchip(x: Any, y: Any) -> Any:
    """A piecewise polynomial through points, sorted by x."""
    from scipy.interpolate import PchipInterpolator

    order = np.argsort(x)
    return PchipInterpolator(x[order], y[order])


def _mean(curve: Any, over: Point) -> float:
    low, high = over
    return float(curve.integrate(low, high)) / (high - low)


def _area(a: Any, b: Any, over: Point) -> float:
    """Integral of |b - a|: exact, piece by piece between the roots of the cubics."""
    from scipy.interpolate import PPoly

    low, high = over
    knots = np.unique(np.concatenate([[low, high], a.x, b.x]))
    knots = knots[(knots >= low) & (knots <= high)]
    taylor = [(b(knots[:-1], k) - a(knots[:-1], k)) / math.factorial(k) for k in (3, 2, 1, 0)]
    gap = PPoly(np.array(taylor), knots)
    roots = gap.roots(extrapolate=False)  # NaN marks a piece that is 0 throughout
    cuts = np.unique(np.concatenate([knots, roots[np.isfinite(roots)]]))
    whole = gap.antiderivative()(cuts)
    return float(np.abs(np.diff(whole)).sum())


def _common(x: Any, y: Any) -> Point | None:
    low, high = max(x.min(), y.min()), min(x.max(), y.max())
    return (float(low), float(high)) if low < high else None


def _apart(what: str, x: Any, y: Any) -> str:
    spans = [f"[{v.min():.4g}, {v.max():.4g}]" for v in (x, y)]
    return f"no {what} is in the range of both curves: {spans[0]} and {spans[1]}"


def _short(curves: Sequence[Any], least: int, where: str) -> str | None:
    for curve in curves:
        if len(curve) < least:
            points = f"{len(curve)} point" + ("" if len(curve) == 1 else "s")
            return " ".join(f"a curve has {points} {where}".split()) + f", and needs {least}"
    return None


def _unordered(curves: Sequence[Any]) -> str | None:
    for curve in curves:
        if curve[0, 0] <= 0:
            return f"a rate of {curve[0, 0]:g} has no logarithm"
        if not (np.diff(curve, axis=0) > 0).all():
            return "a curve's PSNR does not rise with its rate"
    return None


def _finite(points: Sequence[Point]) -> list[Point]:
    found = [(float(x), float(y)) for x, y in points]
    if not np.isfinite(np.array(found)).all():
        raise ValueError("points: one is not finite (leave out what has no valid value)")
    return found
