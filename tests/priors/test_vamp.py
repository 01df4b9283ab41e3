"""The VampPrior is the mixture of what the encoder makes of its pseudo-inputs."""

import numpy as np
import pytest
import torch
from gaussians import F, reference
from torch.autograd import gradcheck

from distvae.batch import Batch, Noise
from distvae.data import Digits
from distvae.data import Gaussian as GaussianData
from distvae.likelihoods import Gaussian as GaussianLikelihood
from distvae.nets import Mlp
from distvae.objectives import Elbo
from distvae.posteriors import Delta
from distvae.priors import Binarized, Vamp
from distvae.rules import refusals
from distvae.trial import Trial
from distvae.vae import Model, Vae

SHAPE = (1, 2, 2)


def a_vae(part, seed=0, dtype=F):
    return Vae(
        Model(encoder=Mlp(hidden=(3,), activation="tanh"), latent_dim=2, prior=part), SHAPE, seed=seed, dtype=dtype
    )


def a_batch(n=6):
    x = torch.rand(n, *SHAPE, dtype=F, generator=torch.Generator().manual_seed(0))
    return Batch(x, Noise(1, 0, np.arange(n)), n, samples=2)


@pytest.mark.parametrize("squash", ["hardtanh", "sigmoid", "none"])
def test_it_is_the_mixture_of_the_encoded_pseudo_inputs(squash):
    vae = a_vae(Vamp(components=4, squash=squash))
    u = vae.prior.pseudo_inputs()
    assert u.shape == (4, *SHAPE)
    p, q = vae.prior_at(a_batch()), vae.encode(u.detach())
    torch.testing.assert_close((p.mean, p.var, p.log_w.exp()), (q.mu, q.var, torch.full((4,), 0.25, dtype=F)))
    z = torch.randn(5, 2, dtype=F, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(p.log_prob(z), reference(p).log_prob(z))


def test_pseudo_inputs_stay_in_the_unit_interval_and_are_addressed():
    for squash in ("hardtanh", "sigmoid"):
        vae = a_vae(Vamp(components=50, squash=squash))
        first = vae.prior.pseudo_inputs().detach()
        assert 0 < float(first.min()) < 0.05 and 0.95 < float(first.max()) < 1  # U(0, 1)
        with torch.no_grad():
            vae.prior.inputs.mul_(100.0)
        u = vae.prior.pseudo_inputs().detach()
        assert float(u.min()) >= 0 and float(u.max()) <= 1
    few, other = a_vae(Vamp(components=3)), a_vae(Vamp(components=3), seed=1)
    assert torch.equal(few.prior.inputs, a_vae(Vamp(components=50)).prior.inputs[:3])
    assert not torch.equal(few.prior.inputs, other.prior.inputs)
    assert torch.equal(few.prior.inputs, a_vae(Binarized(r=0.3, over=Vamp(components=3))).prior.over.inputs)
    assert Vamp().unit and not Vamp(squash="none").unit


@pytest.mark.parametrize(
    "part", [Vamp(components=3), Binarized(r=0.4, over=Vamp(components=3, squash="sigmoid"))], ids=repr
)
def test_gradients_reach_encoder_and_pseudo_inputs(part):
    vae, objective, batch = a_vae(part), Elbo(beta=0.7).build().to(F), a_batch()
    parameters = list(vae.parameters())

    def f(*_):
        return objective(vae(batch), batch).sum()

    assert gradcheck(f, parameters, atol=1e-6, rtol=1e-4, fast_mode=True)
    (vae.prior_at(batch).log_prob(torch.zeros(1, 2, dtype=F))).sum().backward()
    reached = {n.split(".")[0] for n, p in vae.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {"encoder", "prior"}


def test_the_pseudo_inputs_learn_by_training():
    vae, batch = a_vae(Vamp(components=3), dtype=torch.float32), a_batch(32)
    batch = Batch(batch.x.float(), batch.noise, 32)
    before, losses = vae.prior.inputs.detach().clone(), []
    optimizer = torch.optim.Adam(vae.parameters(), lr=0.01)
    for _ in range(30):
        loss = Elbo().build().float()(vae(batch), batch).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] and not torch.equal(vae.prior.inputs, before)


def test_what_makes_no_sense_is_refused():
    def reasons(data, **model):
        return [why for field, why in refusals(Trial(data=data, vae=Model(**model))) if field == "vae.prior"]

    assert reasons(Digits(), prior=Vamp()) == []
    assert "Gaussian posteriors" in reasons(Digits(), prior=Vamp(), posterior=Delta())[0]
    real = {"likelihood": GaussianLikelihood()}
    assert "squash: none" in reasons(GaussianData(eigenvalues=(1.0, 1.0)), prior=Binarized(over=Vamp()), **real)[0]
    assert reasons(GaussianData(eigenvalues=(1.0, 1.0)), prior=Vamp(squash="none"), **real) == []
