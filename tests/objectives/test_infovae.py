"""InfoVAE: the objectives it contains."""

import pytest
import torch
from made import F, a_batch, leaves, loss_in_shards, loss_of, terms_of, with_gradients
from torch.autograd import gradcheck

from distvae.objectives import Elbo
from distvae.objectives.infovae import InfoVae
from distvae.objectives.wae import Wae
from distvae.schedules import Linear


@pytest.mark.parametrize("dtype", [torch.float32, F])
def test_alpha_0_weight_1_is_the_elbo_bit_for_bit(dtype):
    inputs, batch = leaves(60, 4, dtype), a_batch(60, step=3)
    info = with_gradients(InfoVae(alpha=0.0, weight=1.0, schedule=Linear(steps=8)), inputs, batch)
    for a, b in zip(info, with_gradients(Elbo(schedule=Linear(steps=8)), inputs, batch), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
@pytest.mark.parametrize("weight", [1.0, 10.0])
def test_alpha_1_is_the_wasserstein_autoencoder(kernel, weight):
    inputs = leaves(30, 3)
    info = with_gradients(InfoVae(alpha=1.0, weight=weight, kernel=kernel, bandwidth=0.6), inputs)
    wae = with_gradients(Wae(weight=weight, kernel=kernel, bandwidth=0.6), inputs)
    for a, b in zip(info, wae, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)
    assert not InfoVae(alpha=1.0).weighs and InfoVae(alpha=0.99).weighs


def test_between_them_it_is_linear_in_both_terms():
    terms = terms_of(*leaves(30, 3))
    kl, mmd = terms.divergence.sum(-1), loss_of(Wae(weight=1.0), terms) - terms.distortion
    wanted = terms.distortion + (1 + 0.5) * kl + (-0.5 + 4 - 1) * mmd
    torch.testing.assert_close(loss_of(InfoVae(alpha=-0.5, weight=4.0), terms), wanted)


def test_a_reward_for_misfit_is_refused():
    with pytest.raises(ValueError, match=r"weight: 0\.4 with alpha 0\.5 weighs MMD\^2 by -0\.1.*weight: 0\.5 or more"):
        InfoVae(alpha=0.5, weight=0.4)
    assert InfoVae(alpha=0.5, weight=0.5).whole_batch


def test_shards_give_the_whole_batch_and_gradients_are_right():
    inputs, part = leaves(7, 2), InfoVae(weight=2.0)
    terms = terms_of(*inputs)
    torch.testing.assert_close(loss_in_shards(part, terms, a_batch(7)), loss_of(part, terms))
    assert gradcheck(lambda *t: loss_of(part, terms_of(*t)), inputs)
