"""Reverse water-filling against its definition: the level that is solved for by bisection, and Lagrange's
conditions."""

import numpy as np
import pytest
from scipy.optimize import brentq, minimize

from distvae.metrics.rate_distortion import exact_curve, water_filling

LAM = np.array([6.0, 3.0, 1.5, 0.4, 0.05])


@pytest.mark.parametrize("theta", [0.01, 0.2, 1.0, 2.0, 5.9, 7.0])
def test_no_other_allocation_has_a_lower_rate_at_the_same_error(theta):
    """minimise sum 1/2 ln(lam/D) over 0 < D <= lam with sum D fixed, by scipy."""
    rate, sse = water_filling(LAM, beta=4 * theta, sigma=0.5)
    if theta >= LAM.max():
        assert rate == 0.0 and sse == pytest.approx(LAM.sum())
        return
    level = brentq(lambda t: np.minimum(LAM, t).sum() - sse, 1e-9, LAM.max())
    assert level == pytest.approx(theta)
    found = minimize(
        lambda d: 0.5 * np.log(LAM / d).sum(),
        LAM * sse / LAM.sum(),
        jac=lambda d: -0.5 / d,
        bounds=[(1e-9, lam) for lam in LAM],
        constraints={"type": "eq", "fun": lambda d: d.sum() - sse, "jac": lambda d: np.ones_like(d)},
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-14},
    )
    assert found.success and found.fun == pytest.approx(rate, abs=1e-6)
    assert rate == pytest.approx(sum(0.5 * np.log(lam / theta) for lam in LAM if lam > theta))


def test_the_exact_curve_is_the_linear_vaes_at_every_beta():
    """Rate and distortion in nats of the known optimum of a linear VAE: q's variance, decoder gains and all, written
    out."""
    sigma, d = 0.5, 3
    curve = np.array(exact_curve(tuple(LAM), sigma, d))
    assert (np.diff(curve[:, 0]) * np.diff(curve[:, 1]) <= 1e-12).all()  # decreasing
    for beta in (0.5, 1.0, 3.0):
        rate = distortion = 0.0
        for i, lam in enumerate(LAM):
            theta = beta * sigma**2
            live = i < d and lam > theta
            rate += 0.5 * np.log(lam / theta) if live else 0.0
            distortion += 0.5 * np.log(2 * np.pi * sigma**2) + (theta if live else lam) / (2 * sigma**2)
        order = np.argsort(curve[:, 0])
        assert np.interp(rate, curve[order, 0], curve[order, 1]) == pytest.approx(distortion, rel=2e-3)
