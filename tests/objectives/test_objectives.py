"""The objectives against hand values; what they combine is per example, nats."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from distvae.batch import Batch, Noise
from distvae.objectives import BetaInput, Capacity, Elbo, Terms
from distvae.schedules import Cyclic, Linear

F = torch.float64
D, KL = torch.tensor([10.0, 20.0, 30.0], dtype=F), torch.tensor([1.0, 4.0, 7.0], dtype=F)


def a_batch(n=3, total=None, step=0, **kw):
    return Batch(x=torch.zeros(n, 1), noise=Noise(0, step, np.arange(n)), total=total or n, step=step, **kw)


def loss(part, batch=None, distortion=D, divergence=KL):
    terms = Terms(distortion, divergence[:, None], None, None, None)
    return part.build().to(distortion.dtype)(terms, batch or a_batch())


@pytest.mark.parametrize("dtype", [torch.float32, F])
def test_beta_1_is_the_negative_elbo_bit_for_bit(dtype):
    d, kl = (torch.randn(1000, generator=torch.Generator().manual_seed(s)).to(dtype) * 100 for s in (0, 1))
    assert torch.equal(loss(Elbo(beta=1.0), a_batch(1000), d, kl), d + kl)


def test_beta_weighs_the_divergence_and_the_schedule_weighs_beta():
    assert loss(Elbo(beta=2.0)).tolist() == [12.0, 28.0, 44.0]
    assert loss(Elbo(beta=0.0)).tolist() == D.tolist()
    part = Elbo(beta=2.0, schedule=Linear(steps=10))
    assert loss(part, a_batch(step=5)).tolist() == [11.0, 24.0, 37.0]
    assert [part.warm(s) for s in (0, 9, 10, 11)] == [0.0, 0.0, 1.0, 1.0]
    assert Elbo(beta=0.1).warm(0) == 1.0  # full weight is the schedule's, whatever beta is
    assert [Elbo(schedule=Cyclic(period=4)).warm(s) for s in range(5)] == [0.0, 0.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("reduction", "wanted"),
    [
        ("sample", [10 + 2 * 4, 20 + 2 * 1, 30 + 2 * 2]),  # |1 - 5|, |4 - 5|, |7 - 5|
        ("batch_mean", [10 + 2 * 1, 20 + 2 * 1, 30 + 2 * 1]),  # |4 - 5|
        ("batch_sum", [10 + 2 * 7 / 3, 20 + 2 * 7 / 3, 30 + 2 * 7 / 3]),  # |12 - 5| / 3
    ],
)
def test_the_three_reductions_of_the_capacity(reduction, wanted):
    part = Capacity(capacity=5.0, weight=2.0, reduction=reduction)
    assert loss(part).tolist() == pytest.approx(wanted, rel=1e-15)
    assert part.whole_batch == (reduction != "sample")
    # One shard of a larger batch: the others' divergences come by gather, the total is the global batch.
    shard = a_batch(2, total=3, gather=lambda t: torch.cat([t, KL[2:]]))
    assert loss(part, shard, D[:2], KL[:2]).tolist() == pytest.approx(wanted[:2], rel=1e-15)


def test_s1s_released_code_is_the_batch_sum():
    """abs(summed KL - C) added to the summed distortion, C = 10, batch 64: what `batch_sum` sums to."""
    kl, d = torch.rand(64, dtype=F), torch.rand(64, dtype=F)
    part = Capacity(capacity=10.0, weight=10.0, reduction="batch_sum")
    torch.testing.assert_close(loss(part, a_batch(64), d, kl).sum(), d.sum() + 10 * (kl.sum() - 10).abs())


def test_the_capacity_ramps_and_is_warm_once_risen():
    part = Capacity(capacity=5.0, weight=1.0, ramp=Linear(steps=10))
    assert loss(part, a_batch(step=0)).tolist() == [11.0, 24.0, 37.0]  # C = 0
    assert loss(part, a_batch(step=2)).tolist() == [10.0, 23.0, 36.0]  # C = 1
    assert loss(part, a_batch(step=99)).tolist() == [14.0, 21.0, 32.0]  # C = 5
    assert [part.warm(s) for s in (0, 9, 10)] == [0.0, 0.0, 1.0]


def test_beta_input_weighs_each_example_by_its_own_beta():
    part = BetaInput(low=0.1, high=10.0, schedule=Linear(steps=10))
    beta = torch.tensor([0.1, 1.0, 10.0], dtype=F)
    assert loss(part, a_batch(step=99, beta=beta)).tolist() == pytest.approx([10.1, 24.0, 100.0])
    assert loss(part, a_batch(step=5, beta=beta)).tolist() == pytest.approx([10.05, 22.0, 65.0])
    assert loss(BetaInput(), a_batch(beta=torch.ones(3, dtype=F))).tolist() == loss(Elbo(beta=1.0)).tolist()


def test_betas_are_log_uniform_and_addressed():
    part, like = BetaInput(low=0.01, high=10.0), torch.zeros((), dtype=F)
    ids = np.arange(20_000)
    beta = part.draw(Noise(1, 3, ids), like)
    assert float(beta.min()) >= 0.01 and float(beta.max()) <= 10.0
    u = (beta.log() - np.log(0.01)) / np.log(1000.0)
    assert kstest(u.numpy(), "uniform").pvalue > 1e-3
    assert torch.equal(part.draw(Noise(1, 3, ids[7:9]), like), beta[7:9])
    assert not torch.equal(part.draw(Noise(1, 4, ids), like), beta)
    assert Elbo().draw(Noise(1, 3, ids), like) is None and Elbo().grid() == (None,)


def test_the_grid_of_betas_is_what_is_asked_for_or_nine_of_equal_ratios():
    assert BetaInput(betas=(0.1, 1.0)).grid() == (0.1, 1.0)
    grid = np.array(BetaInput(low=0.01, high=100.0).grid())
    np.testing.assert_allclose(grid, 10.0 ** np.linspace(-2, 2, 9))
    with pytest.raises(ValueError, match="betas: 20 is outside"):
        BetaInput(betas=(20.0,))
    with pytest.raises(ValueError, match="low: 2 is not below high: 1"):
        BetaInput(low=2.0, high=1.0)
