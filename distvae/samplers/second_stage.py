"""A second VAE on the latents of the first (Dai and Wipf, "Diagnosing and Enhancing VAE Models", 2019):

    u ~ N(0, I),   z ~ N(decoder2(u), gamma),   x = E[x|z]

The first model's aggregated posterior fills its latent space but is not the prior; a VAE as wide as the latent space
itself (u has the dimensions of z) can learn it. As theirs: a Gaussian likelihood whose gamma is learned, one fresh
z ~ q(z|x) of every example an epoch, and the learning rate halved after 3/8 and again after 6/8 of the epochs.

Differs from theirs: z is standardised per dimension first, which changes no optimum, only what a learning rate means;
sigma_z starts at 0.3, where theirs starts at 1 (there, u ignored and gamma the variance of z is a stationary point, and
on two well-separated modes training never left it); the net is a plain MLP, without their skip of u around it; and it is smaller (theirs: 3 x 1024, 800 epochs, batch 64).
Trap: the paper's gamma is a variance, the variable gamma_x of its code a standard deviation. Ours is
`likelihoods.gaussian`, mode learned: it learns log sigma_z, of the standard deviation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from distvae.batch import Batch, Noise
from distvae.kernels import philox
from distvae.likelihoods import Gaussian
from distvae.nets import Mlp
from distvae.objectives import Elbo
from distvae.part import Hyper
from distvae.samplers.sampler import Fitted, SamplerError, SamplerPart, codes, decode, drawn, only_real, posterior
from distvae.training.engine import TorchEngine
from distvae.training.world import World
from distvae.trial import Train
from distvae.vae import Model, Vae

START = 0.3  # sigma_z, of standardised z: at 1 a second VAE that ignores u is a stationary point


@dataclass(frozen=True, kw_only=True)
class SecondStage(SamplerPart):
    """z from a second VAE, trained on the training examples' z (Dai and Wipf 2019)."""

    type: Literal["second_stage"] = "second_stage"
    hidden: Annotated[tuple[int, ...], Hyper(low=1, high=65536, doc="widths of the second encoder's hidden layers")] = (
        256,
        256,
    )
    epochs: Annotated[int, Hyper(low=1, high=10**6, doc="passes over the training examples")] = 40
    lr: Annotated[float, Hyper(above=0.0, high=100.0, doc="Adam's learning rate, halved twice")] = 1e-3
    batch: Annotated[int, Hyper(low=1, high=10**6, doc="examples in a batch")] = 128

    examples: ClassVar[bool] = True

    def refusal(self, vae: Vae) -> str | None:
        return only_real(vae)

    def _fit(self, vae: Vae, x: Tensor, seed: int) -> SecondStageSampler:
        q = posterior(vae, x)
        first = codes(q, "draws", seed)
        mean, std = first.mean(0), first.std(0, correction=0).clamp_min(1e-6)  # [Z]
        return SecondStageSampler(vae, self.train(q, mean, std, seed), mean, std)

    @torch.enable_grad()
    def train(self, q: Any, mean: Tensor, std: Tensor, seed: int) -> Vae:
        """The second VAE, of (z - mean) / std."""
        n, z_shape = q.mu.shape
        likelihood, net = Gaussian(mode="learned", sigma=START), Mlp(hidden=self.hidden)
        model = Model(encoder=net, latent_dim=z_shape, likelihood=likelihood)
        stage, objective = Vae(model, (z_shape,), seed=seed, dtype=q.mu.dtype).to(q.mu.device), Elbo().build()
        engine, step = TorchEngine(stage, Train(lr=self.lr), World(), {}), 0
        for epoch in range(self.epochs):
            z = (codes(q, "draws", seed, epoch) - mean) / std
            for rows in np.split(philox.permutation(seed, n, step=epoch), range(self.batch, n, self.batch)):
                batch = Batch(x=z[torch.from_numpy(rows)], noise=Noise(seed, step, rows), total=len(rows), step=step)
                engine.backward(objective(stage(batch), batch).mean())
                engine.step(self.lr * 0.5 ** (8 * epoch // (3 * self.epochs)))
                step += 1
        if not all(p.isfinite().all() for p in stage.parameters()):
            raise SamplerError(f"sampler.lr: at {self.lr:g} the second stage diverged: lower it")
        return stage.eval()


class SecondStageSampler(Fitted):
    def __init__(self, vae: Vae, stage: Vae, mean: Tensor, std: Tensor):
        super().__init__(vae)
        self.stage, self.mean, self.std = stage, mean, std

    @torch.no_grad()
    def latents(self, n: int, seed: int = 0) -> Tensor:
        eps = drawn(n, seed, step=1).normal(1, len(self.mean), self.mean)[:, 0]
        sigma = self.stage.likelihood.variance().sqrt()
        return self.mean + self.std * (decode(self.stage, self.stage.latents(n, seed=seed)) + sigma * eps)
