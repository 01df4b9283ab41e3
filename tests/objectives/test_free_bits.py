"""The three meanings of free bits against loops."""

import numpy as np
import pytest
import torch
from made import F, a_batch, leaves, loss_in_shards, loss_of, terms_of, with_gradients
from torch.autograd import gradcheck

from distvae.objectives import Elbo
from distvae.objectives.free_bits import FreeBits
from distvae.schedules import Linear

OF = ["total", "sample_dim", "batch_dim"]


def by_loops(kl, of, nats):
    """Mean over the batch."""
    n, d = kl.shape
    if of == "total":
        return sum(max(sum(kl[i]), nats) for i in range(n)) / n
    if of == "sample_dim":
        return sum(max(kl[i, j], nats) for i in range(n) for j in range(d)) / n
    return sum(max(sum(kl[:, j]) / n, nats) for j in range(d))


@pytest.mark.parametrize("of", OF)
@pytest.mark.parametrize("nats", [0.05, 0.4, 1.0])
def test_the_mean_is_the_formula(of, nats):
    terms = terms_of(*leaves(20, 4))
    kl, nats = terms.divergence.detach().numpy(), 4 * nats if of == "total" else nats
    loss = (loss_of(FreeBits(of=of, nats=nats, beta=1.5), terms) - terms.distortion).detach()
    assert float(loss.mean()) == pytest.approx(1.5 * by_loops(kl, of, nats), rel=1e-12)


@pytest.mark.parametrize("of", OF)
@pytest.mark.parametrize("dtype", [torch.float32, F])
def test_no_nats_are_the_elbo_bit_for_bit(of, dtype):
    inputs, batch = leaves(100, 4, dtype), a_batch(100, step=3)
    free = with_gradients(FreeBits(of=of, nats=0.0, beta=0.7, schedule=Linear(steps=8)), inputs, batch)
    for a, b in zip(free, with_gradients(Elbo(beta=0.7, schedule=Linear(steps=8)), inputs, batch), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("of", OF)
def test_a_negative_monte_carlo_kl_is_not_cut_at_0(of):
    terms = terms_of(*leaves(4, 1))._replace(divergence=torch.tensor([[-0.3], [0.2], [-0.1], [-0.4]], dtype=F))
    assert torch.equal(loss_of(FreeBits(of=of, nats=0.0), terms), loss_of(Elbo(), terms))


@pytest.mark.parametrize("of", OF)
def test_huge_nats_are_a_constant(of):
    inputs = leaves(20, 4)
    loss, distortion, mu, logvar = with_gradients(FreeBits(of=of, nats=100.0), inputs)
    np.testing.assert_allclose(loss - inputs[0].detach(), 100.0 * (1 if of == "total" else 4), rtol=1e-12)
    assert torch.equal(distortion, torch.ones_like(distortion))
    assert not mu.any() and not logvar.any()


@pytest.mark.parametrize("of", OF)
def test_the_gradient_is_that_of_the_formula(of):
    """The batch's mean of `batch_dim` spreads its maximum over the examples: same mean, same gradient."""
    inputs, nats = leaves(20, 4), 0.8
    kl = terms_of(*inputs).divergence
    formula = {
        "total": lambda: kl.sum(1).clamp(min=4 * nats).sum(),
        "sample_dim": lambda: kl.clamp(min=nats).sum(),
        "batch_dim": lambda: 20 * kl.mean(0).clamp(min=nats).sum(),
    }[of]()
    wanted = torch.autograd.grad(formula, inputs[1:])
    _, _, *got = with_gradients(FreeBits(of=of, nats=4 * nats if of == "total" else nats), inputs)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b)
    assert 0 < int((got[0] == 0).sum()) < got[0].numel()  # both sides of the maximum are there


def test_only_the_batchs_mean_needs_the_batch_and_only_the_total_does_without_dimensions():
    assert [FreeBits(of=of).whole_batch for of in OF] == [False, False, True]
    assert [FreeBits(of=of).factorised for of in OF] == [False, True, True]


@pytest.mark.parametrize("of", OF)
def test_shards_give_the_whole_batch_and_gradients_are_right(of):
    inputs, part = leaves(7, 2), FreeBits(of=of, nats=0.9, beta=0.7)
    terms = terms_of(*inputs)
    torch.testing.assert_close(loss_in_shards(part, terms, a_batch(7)), loss_of(part, terms))
    assert gradcheck(lambda *t: loss_of(part, terms_of(*t)).sum(), inputs)


def test_the_mean_is_the_global_batchs():
    """Two workers, one with every KL below lambda, one above; together above in one dimension."""
    kl = torch.tensor([[0.1, 0.1], [0.2, 0.1], [3.0, 1.0], [2.0, 1.0]], dtype=F)
    terms = terms_of(*leaves(4, 2))._replace(divergence=kl)
    part = FreeBits(of="batch_dim", nats=0.9)
    wanted = torch.tensor([0.1 + 0.9, 0.2 + 0.9, 3.0 + 0.9, 2.0 + 0.9], dtype=F)
    torch.testing.assert_close((loss_in_shards(part, terms, a_batch(4)) - terms.distortion).detach(), wanted)
