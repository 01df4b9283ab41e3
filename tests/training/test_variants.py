"""What the trainer and the evaluator do for variants: dynamic binarisation, labels, a grid of betas, gradient variance."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from distvae.api import train
from distvae.batch import Batch, Noise
from distvae.data import Mnist, Split
from distvae.estimators import Score, StraightThrough
from distvae.metrics.gradient import gradient_variance
from distvae.nets import Gate, Mlp
from distvae.objectives import BetaInput, Elbo
from distvae.posteriors import Bernoulli
from distvae.priors import Bernoulli as BernoulliPrior
from distvae.priors import Mixture
from distvae.results import curves
from distvae.training.evaluate import Examples
from distvae.training.loop import Runner
from distvae.trial import Evaluate, Train, Trial
from distvae.vae import Model

NET = Mlp(hidden=(16,))
SHORT = Train(epochs=2, batch_size=256, lr=5e-3)


def grey(n=50):
    x = np.random.default_rng(0).integers(0, 256, (n, 1, 4, 4)).astype(np.uint8)
    return Split(x, np.arange(n) % 10, 100 + np.arange(n))


def test_pixels_are_drawn_anew_at_every_step_and_by_example():
    trial = Trial(data=Mnist(binarize="dynamic"), vae=Model(prior=Mixture(by="label")))
    examples, rows = Examples(trial, grey(), "cpu"), np.array([7, 3, 40])
    (one, y, _), (two, _, _) = (examples.at(rows, torch.float32, step) for step in (0, 1))
    assert set(one.unique().tolist()) == {0.0, 1.0} and not torch.equal(one, two)
    torch.testing.assert_close(examples.at(np.arange(50), torch.float32, 0)[0][rows], one)  # by id, not by place
    assert y.tolist() == [7, 3, 0]
    many = torch.stack([examples.at(rows, torch.float64, s)[0] for s in range(2000)]).mean(0)
    assert float((many - torch.from_numpy(grey().x[rows] / 255)).abs().max()) < 4 * 0.5 / 2000**0.5
    other = Examples(replace(trial, data=Mnist(binarize="dynamic", seed=1)), grey(), "cpu")
    assert not torch.equal(other.at(rows, torch.float32, 0)[0], one)


def test_grey_pixels_stay_and_labels_come_only_where_a_prior_asks():
    examples = Examples(Trial(data=Mnist()), grey(), "cpu")
    x, y, _ = examples.at(np.arange(3), torch.float64, 5)
    assert y is None and torch.equal(x, torch.from_numpy(grey().x[:3] / 255.0))


@pytest.fixture(scope="module")
def beta_input(tmp_path_factory):
    trial = Trial(
        vae=Model(encoder=NET, latent_dim=4, conditioning=Gate()),
        objective=BetaInput(low=0.05, high=5.0, betas=(0.1, 1.0, 4.0)),
        train=replace(SHORT, epochs=12),
        evaluate=Evaluate(every=12),
    )
    return train(trial, tmp_path_factory.mktemp("out"))


def test_a_beta_input_model_has_a_row_for_each_beta_of_its_grid(beta_input):
    rows = beta_input.rows.to_pylist()
    assert sorted((r["point"], r["beta"], r["split"]) for r in rows) == [
        (p, b, s) for p, b in enumerate((0.1, 1.0, 4.0)) for s in ("test", "train", "valid")
    ]
    assert {r["conditioning"] for r in rows} == {"gate"}
    for split in ("train", "valid", "test"):
        rate, distortion = (
            [r[m] for r in sorted(rows, key=lambda r: r["beta"]) if r["split"] == split]
            for m in ("rate_nats", "distortion_nats")
        )
        assert rate == sorted(rate, reverse=True) and distortion == sorted(distortion)  # one curve, told beta
    at_one = [r for r in rows if r["beta"] == 1.0]
    assert all(r["objective"] == pytest.approx(-r["elbo_nats"], rel=1e-6) for r in at_one)


def test_each_beta_of_a_beta_input_model_is_a_point_of_the_curve(beta_input):
    points = curves.final_points(beta_input.rows)
    assert sorted((p.point, p.row["beta"]) for p in points) == [(0, 0.1), (1, 1.0), (2, 4.0)]
    assert len(curves.configs(beta_input.rows)) == 3
    best = max(points, key=lambda p: p.valid_elbo)
    assert curves.best_trial(beta_input.rows).row["beta"] == best.row["beta"]
    with pytest.raises(ValueError, match="this model is told beta"):
        replace_beta = beta_input.model
        replace_beta.beta = None
        replace_beta.sample(2)
    images = [
        beta_input.model.decode(beta_input.model.encode(torch.rand(2, 1, 8, 8), beta=b).mu, beta=b) for b in (0.1, 4.0)
    ]
    assert not torch.allclose(*images)


def bits(estimator) -> Trial:
    return Trial(
        vae=Model(encoder=NET, latent_dim=6, posterior=Bernoulli(), prior=BernoulliPrior(), estimator=estimator),
        objective=Elbo(),
        train=replace(SHORT, epochs=1, samples=2),
        evaluate=Evaluate(gradient_draws=8),
    )


def test_gradient_variance_is_measured_on_the_first_training_batch():
    trace = {}
    for estimator in (Score(), Score(baseline="leave_one_out"), StraightThrough()):
        runner = Runner(bits(estimator))
        rows = runner.advance().rows
        assert ["gradient_variance" in r for r in rows] == [True, False, False]
        some = runner.train.first(256)
        batch = Batch(
            x=torch.from_numpy(some.x), noise=Noise(0, runner.step_count, some.index), total=256, samples=2,
            step=runner.step_count, dataset=len(runner.train),
        )  # fmt: skip
        again = gradient_variance(runner.vae, runner.objective, batch, 8)
        assert rows[0]["gradient_variance"] == pytest.approx(again.trace, rel=1e-5)
        assert rows[0]["gradient_square"] == pytest.approx(again.square, rel=1e-5)
        trace[estimator] = again.trace
    score, loo, straight = trace.values()
    assert score > 10 * loo > 10 * straight  # S5 Fig. 5's order


def test_one_draw_has_no_variance():
    with pytest.raises(ValueError, match="gradient_draws: one draw has no variance"):
        Evaluate(gradient_draws=1)
