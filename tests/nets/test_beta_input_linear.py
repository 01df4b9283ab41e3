"""One gated linear VAE, trained by `beta_input`, is the whole curve of linear VAEs trained one by one: its evaluation
grid lands on reverse water-filling (methods 5.2.1), every point a valid bound.

The batch is the data set, whose covariance is exact: latent noise and the drawn betas are all that is random. The
formula is written out here, from eigenvalues and sigma."""

import numpy as np
import pytest

import distvae
from distvae.data.gaussian import Gaussian as GaussianData
from distvae.likelihoods import Gaussian
from distvae.nets import Gate, Mlp
from distvae.objectives import BetaInput
from distvae.schedules import Cosine
from distvae.trial import Evaluate, Train, Trial
from distvae.vae import Model

SIGMA = 0.5


def trial(eigenvalues, betas, *, steps, samples):
    return Trial(
        data=GaussianData(eigenvalues=eigenvalues, n=64, n_held=1024),
        vae=Model(
            encoder=Mlp(hidden=()),
            conditioning=Gate(slope_rate=0.0),
            latent_dim=len(eigenvalues),
            likelihood=Gaussian(mode="fixed", sigma=SIGMA),
        ),
        objective=BetaInput(low=min(betas), high=max(betas), betas=betas),
        train=Train(epochs=steps, batch_size=64, samples=samples, lr=0.1, lr_schedule=Cosine(steps=steps)),
        evaluate=Evaluate(every=steps, samples=64),
    )


def check(trial, rel):
    lam, var = np.array(trial.data.eigenvalues), SIGMA**2
    rows = distvae.train(trial).rows.to_pylist()
    for split in ("train", "valid", "test"):
        mine = [r for r in rows if r["split"] == split]
        assert [(r["point"], r["beta"]) for r in mine] == list(enumerate(trial.objective.betas))
        for row in mine:
            theta = row["beta"] * var
            sse, rate = np.minimum(lam, theta).sum(), (0.5 * np.log(lam / theta)).clip(0).sum()
            assert row["conditioning"] == "gate"
            assert row["distortion_mse"] * len(lam) == pytest.approx(sse, rel=rel), (split, row["beta"])
            assert row["rate_nats"] == pytest.approx(rate, rel=rel), (split, row["beta"])
            assert row["elbo_nats"] == pytest.approx(-row["rate_nats"] - row["distortion_nats"])


def test_the_grid_lands_on_reverse_water_filling():
    """Two components, the smaller one dies at beta = 4."""
    check(trial((4.0, 1.0), (0.2, 0.8, 2.0, 8.0), steps=400, samples=4), rel=0.03)


@pytest.mark.slow
def test_five_components_closely():
    """Betas away from the closings at 1, 2, 4, 8 and 16."""
    betas = (0.1, 0.25, 0.6, 1.5, 3.0, 6.0, 11.0)
    check(trial((4.0, 2.0, 1.0, 0.5, 0.25), betas, steps=2000, samples=16), rel=0.015)
