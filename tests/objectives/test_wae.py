"""WAE-MMD: its limit, its draws, its binarized form."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from made import F, a_batch, leaves, loss_in_shards, loss_of, randn, terms_of, with_gradients
from torch.autograd import gradcheck

from distvae.batch import Noise
from distvae.kernels.philox import Stream
from distvae.metrics.mmd import mmd
from distvae.objectives import Elbo
from distvae.objectives.wae import Wae
from distvae.posteriors.gaussian import NormalQ
from distvae.priors import Binarized, Mixture, Normal, UniformSphere
from distvae.schedules import Linear


def penalty(part, terms, batch=None):
    return (loss_of(part, terms, batch) - terms.distortion).detach()


def test_weight_0_is_the_autoencoder_bit_for_bit():
    inputs = leaves(50, 4, torch.float32)
    for a, b in zip(with_gradients(Wae(weight=0.0), inputs), with_gradients(Elbo(beta=0.0), inputs), strict=True):
        assert torch.equal(a, b)
    assert not Wae().weighs  # so a delta posterior is welcome


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_the_penalty_is_the_mmd_to_draws_of_the_prior(kernel):
    terms, batch = terms_of(*leaves(20, 3)), a_batch(20, step=4)
    draws = Normal().build(3).sample(replace(batch.noise, latent=Stream.SAMPLE), terms.z)
    wanted = 3.0 * mmd(terms.z, draws, kernel=kernel, bandwidth=0.7)
    got = penalty(Wae(weight=3.0, kernel=kernel, bandwidth=0.7), terms, batch)
    torch.testing.assert_close(got, wanted.detach().expand(20))
    halfway = Wae(weight=3.0, kernel=kernel, bandwidth=0.7, schedule=Linear(steps=8))
    torch.testing.assert_close(penalty(halfway, terms, batch), 0.5 * got)


@pytest.mark.parametrize("latent", [Stream.LATENT, Stream.EVALUATE])
@pytest.mark.parametrize("prior", [Normal(), Mixture(components=3), Binarized(r=0.0), UniformSphere()], ids=repr)
def test_it_is_0_in_expectation_where_q_is_the_prior(prior, latent):
    """z drawn with the step's own noise, as the posterior would draw it: the prior's draws must be others."""
    p, d, values = prior.build(3, (1,)).to(F)(None, a_batch(24)), 3, []
    for step in range(80):
        batch = replace(a_batch(24, step=step), noise=Noise(3, step, np.arange(24), latent))
        own = replace(batch.noise, seed=4) if isinstance(prior, Mixture) else batch.noise  # no q draws a component
        z = p.sample(own, torch.zeros((), dtype=F))
        terms = terms_of(torch.zeros(24, dtype=F), torch.zeros(24, d, dtype=F), torch.zeros(24, d, dtype=F), prior=p)
        values.append(float(penalty(Wae(weight=1.0), terms._replace(z=z), batch)[0]))
    values = np.array(values)
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(80)


def test_binarized_wae_compares_the_located_code_to_the_unbinarized_prior():
    terms, r = terms_of(*leaves(40, 2)), 0.8
    binarized = terms._replace(p=Binarized(r=r).build(2).to(F))
    located = terms._replace(z=terms.z.sign() * (terms.z.abs() - r))  # methods S1.7
    torch.testing.assert_close(penalty(Wae(), binarized), penalty(Wae(), located))
    assert not torch.allclose(penalty(Wae(), binarized), penalty(Wae(), terms))
    assert torch.equal(penalty(Wae(), terms._replace(p=Binarized(r=0.0).build(2).to(F))), penalty(Wae(), terms))


def test_it_needs_no_density_of_q():
    z = randn(10, 2)
    terms = terms_of(randn(10), z, z)._replace(q=None, divergence=torch.zeros(10, 1, dtype=F), z=z)
    assert penalty(Wae(), terms).isfinite().all()


def test_it_moves_the_code_and_a_learned_prior():
    p = Mixture(components=2).build(2).to(F)
    inputs = leaves(16, 2)
    terms = terms_of(*inputs, prior=p(None, a_batch(16)))
    gradients = torch.autograd.grad(loss_of(Wae(), terms).sum(), (inputs[1], inputs[2], p.mean, p.logvar))
    assert all(g.abs().sum() > 0 for g in gradients)


def test_shards_give_the_whole_batch_and_gradients_are_right():
    inputs, part = leaves(7, 2), Wae(weight=2.0)
    terms = terms_of(*inputs)
    torch.testing.assert_close(loss_in_shards(part, terms, a_batch(7), 3), loss_of(part, terms))
    assert gradcheck(lambda *t: loss_of(part, terms_of(*t)), inputs)


def test_a_whole_split_is_one_batch():
    n = 1000  # not a multiple of the block
    z = randn(n, 8)
    terms = terms_of(torch.zeros(n, dtype=F), z, z)._replace(z=z, q=NormalQ(z, z.exp()))
    with torch.no_grad():
        assert abs(float(penalty(Wae(weight=1.0), terms)[0])) < 0.01
