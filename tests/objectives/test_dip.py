"""DIP-VAE against numpy.cov."""

import numpy as np
import pytest
import torch
from made import F, a_batch, leaves, loss_in_shards, loss_of, randn, terms_of, with_gradients
from torch.autograd import gradcheck

from distvae.objectives import Elbo
from distvae.objectives.dip import Dip, covariance
from distvae.priors import Binarized
from distvae.schedules import Linear


@pytest.mark.parametrize("dtype", [torch.float32, F])
@pytest.mark.parametrize("version", ["I", "II"])
def test_lambdas_of_0_are_the_elbo_bit_for_bit(version, dtype):
    inputs = leaves(200, 5, dtype)
    dip = Dip(version=version, beta=1.7, lambda_od=0.0, lambda_d=0.0, schedule=Linear(steps=8))
    batch = a_batch(200, step=3)
    for a, b in zip(
        with_gradients(dip, inputs, batch),
        with_gradients(Elbo(beta=1.7, schedule=Linear(steps=8)), inputs, batch),
        strict=True,
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize("n", [1, 2, 50])
def test_the_covariance_is_numpys(n):
    mu = randn(n, 4) @ randn(4, 4, seed=1) + 3
    np.testing.assert_allclose(covariance(mu), np.cov(mu.numpy().T, bias=True), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("version", ["I", "II"])
def test_the_penalty_is_of_numpys_covariance(version):
    inputs = leaves(40, 3)
    terms = terms_of(*inputs)
    c = np.cov(terms.q.mu.detach().numpy().T, bias=True)
    if version == "II":
        c = c + np.diag(terms.q.var.detach().numpy().mean(0))
    off = sum(c[i, j] ** 2 for i in range(3) for j in range(3) if i != j)
    wanted = 2.0 * off + 3.0 * sum((c[i, i] - 1) ** 2 for i in range(3))
    loss = loss_of(Dip(version=version, beta=0.0, lambda_od=2.0, lambda_d=3.0), terms)
    np.testing.assert_allclose((loss - terms.distortion).detach(), np.full(40, wanted), rtol=1e-11)


def test_version_ii_is_the_covariance_of_the_aggregated_posterior():
    """No penalty where q(z) = N(0, I): whitened means of variance 3/4, and posteriors of variance 1/4."""
    mu = randn(5000, 2)
    mu = mu - mu.mean(0)
    mu = 0.5 * 3**0.5 * mu @ torch.linalg.inv(torch.linalg.cholesky(covariance(mu))).T
    terms = terms_of(torch.zeros(5000, dtype=F), mu, torch.full_like(mu, 0.25).log())
    assert float(loss_of(Dip(version="II", beta=0.0), terms)[0]) == pytest.approx(0.0, abs=1e-18)
    assert float(loss_of(Dip(version="I", beta=0.0, lambda_d=8.0), terms)[0]) == pytest.approx(8 * 2 / 16)


def test_binarized_dip_sees_the_means_from_their_modes():
    inputs, r = leaves(30, 2), 0.7
    binarized = terms_of(*inputs, prior=Binarized(r=r).build(2).to(F))
    mu = inputs[1].detach()
    plain = terms_of(inputs[0], mu - r * torch.where(mu >= 0, 1.0, -1.0), inputs[2])
    part = Dip(beta=0.0)
    torch.testing.assert_close(loss_of(part, binarized), loss_of(part, plain))
    assert not torch.allclose(loss_of(part, binarized), loss_of(part, terms_of(*inputs)))


def test_the_schedule_weighs_all_but_the_distortion():
    inputs, part = leaves(), Dip(beta=2.0, schedule=Linear(steps=10))
    terms = terms_of(*inputs)
    full = loss_of(part, terms, a_batch(12, step=10)) - terms.distortion
    torch.testing.assert_close(loss_of(part, terms, a_batch(12, step=3)) - terms.distortion, 0.3 * full)
    assert [part.warm(s) for s in (9, 10)] == [0.0, 1.0]


@pytest.mark.parametrize("version", ["I", "II"])
def test_shards_give_the_whole_batch_and_gradients_are_right(version):
    inputs, part = leaves(7, 2), Dip(version=version, lambda_d=3.0)
    terms = terms_of(*inputs)
    torch.testing.assert_close(loss_in_shards(part, terms, a_batch(7)), loss_of(part, terms))
    assert gradcheck(lambda *t: loss_of(part, terms_of(*t)), inputs)
