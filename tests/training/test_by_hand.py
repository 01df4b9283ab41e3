"""A trial equals, step for step, a loop written by hand here from torch alone: same initial weights, order and
noise."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from distvae.data import Digits, load
from distvae.kernels import philox
from distvae.kernels.philox import Stream
from distvae.nets import Mlp
from distvae.objectives import Elbo
from distvae.posteriors import Du, Gaussian
from distvae.priors import Binarized
from distvae.schedules import Linear
from distvae.training.loop import Runner
from distvae.trial import Train, Trial
from distvae.vae import Model

D, R, BETA, GAMMA, KEEP, SEED, EPOCHS, BATCH, WARM = 3, 0.7, 1.7, 0.6, 0.8, 5, 2, 200, 6


def normals(step, ids):
    return torch.from_numpy(philox.normal(SEED, Stream.LATENT, index=ids, step=step, dim=D)[:, 0]).float()


def by_hand(du: bool, initial: dict[str, torch.Tensor]) -> list[float]:
    """Losses of every step; weights in `initial` are trained in place. mu rows are the even outputs of the encoder's
    head."""
    w = {k: v.clone().requires_grad_() for k, v in initial.items()}
    adam = torch.optim.Adam(list(w.values()), lr=2e-3)
    data, losses, step = load(Digits()).train, [], 0
    x_all, n = torch.from_numpy(data.x).flatten(1), len(data)
    for epoch in range(EPOCHS):
        order = philox.permutation(0, n, step=epoch)
        for at in range(0, n, BATCH):
            rows = order[at : at + BATCH]
            x, ids = x_all[rows], data.index[rows]
            h = torch.relu(x @ w["encoder.1.weight"].T + w["encoder.1.bias"]) @ w["encoder.3.weight"].T
            if not du:
                h = h + w["encoder.3.bias"]
            mu, logvar = h[:, 0::2], h[:, 1::2]
            if du:
                s = w["posterior.scale"]
                mu = s * (mu - mu.mean(0)) / (mu.var(0, unbiased=False) + 1e-5).sqrt() + w["posterior.shift"]
                var = (logvar + w["posterior.logvar_bias"]).exp()
                if step >= WARM:
                    u = torch.from_numpy(philox.uniform(SEED, Stream.DROPOUT, index=ids, step=step, dim=D)[:, 0])
                    var = torch.where(u <= KEEP, var / KEEP, 0.0)
                var = var + 1 / (2 * math.pi * math.e)
            else:
                var = logvar.exp()
            z = mu + var.sqrt() * normals(step, ids)
            y = (
                torch.relu(z @ w["decoder.0.weight"].T + w["decoder.0.bias"]) @ w["decoder.2.weight"].T
                + w["decoder.2.bias"]
            )
            distortion = bce(y, x, reduction="none").sum(1)
            kl = 0.5 * (var + (mu.abs() - R) ** 2 - 1 - var.log()).sum(1)
            loss = (distortion + BETA * min(1.0, step / WARM) * kl).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            if du:
                with torch.no_grad():
                    w["posterior.scale"] *= GAMMA / w["posterior.scale"].square().mean().sqrt()
            losses.append(loss.item())
            step += 1
    for k in initial:
        initial[k].copy_(w[k].detach())
    return losses


@pytest.mark.parametrize("du", [False, True])
def test_a_trial_is_the_loop_written_by_hand(du):
    trial = Trial(
        vae=Model(
            encoder=Mlp(hidden=(20,)),
            latent_dim=D,
            posterior=Du(gamma=GAMMA, p_keep=KEEP) if du else Gaussian(),
            prior=Binarized(r=R),
        ),
        objective=Elbo(beta=BETA, schedule=Linear(steps=WARM)),
        train=Train(epochs=EPOCHS, batch_size=BATCH, lr=2e-3),
        seed=SEED,
    )
    runner = Runner(trial)
    named = {k: p.detach().clone() for k, p in runner.vae.named_parameters()}
    assert ("encoder.3.bias" in named) != du  # no bias may feed a batch norm
    expected = by_hand(du, named)
    ours = []
    for epoch in range(EPOCHS):
        order = philox.permutation(0, len(runner.train), step=epoch)
        runner.vae.train()
        for rows in np.split(order, range(BATCH, len(order), BATCH)):
            ours.append(float(runner.step_on(rows)) / len(rows))
    np.testing.assert_allclose(ours, expected, rtol=2e-6)
    for k, p in runner.vae.named_parameters():
        torch.testing.assert_close(p.detach(), named[k], rtol=1e-4, atol=1e-5)
