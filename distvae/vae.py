"""The VAE, in the order of the formula:

    q(z|x) = posterior(encoder(x))                z = q.rsample(noise)
    -ELBO  = E_q[-log p(x|z)] + KL(q(z|x) || p(z))      = distortion + rate, nats per example

`Vae.forward` gives what training weighs (`Terms`), `Vae.measure` what evaluation reports (`Measured`); they differ
where a surrogate is trained on. Every part is chosen in YAML; none is named here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from distvae.batch import Batch, Noise
from distvae.kernels import philox
from distvae.kernels.philox import Stream
from distvae.likelihoods import Bernoulli, Likelihood
from distvae.nets import Mlp, Net
from distvae.nets.init import initialize
from distvae.part import Hyper, Part
from distvae.posteriors import Gaussian as GaussianPosterior
from distvae.posteriors import Posterior
from distvae.priors import Normal, Prior


@dataclass(frozen=True, kw_only=True)
class Model(Part):
    """The parts of a VAE."""

    encoder: Annotated[Net, Hyper(doc="net from x to the posterior's parameters")] = Mlp()  # noqa: RUF009
    decoder: Annotated[
        Net | None, Hyper(doc="net from z to the likelihood's parameters; default: the encoder's mirror")
    ] = None
    latent_dim: Annotated[int, Hyper(low=1, high=65536, symbol="d", doc="dimensions of z")] = 16
    posterior: Annotated[Posterior, Hyper(doc="q(z|x)")] = GaussianPosterior()  # noqa: RUF009
    prior: Annotated[Prior, Hyper(doc="p(z)")] = Normal()  # noqa: RUF009
    likelihood: Annotated[Likelihood, Hyper(doc="p(x|z)")] = Bernoulli()  # noqa: RUF009


class Terms(NamedTuple):
    """What the objective combines, per example `[B]`, nats."""

    distortion: Tensor  # E_q[-log p(x|z)], mean over the batch's latent samples
    divergence: Tensor  # what the prior trains by: the KL, or a surrogate


class Measured(NamedTuple):
    """What an evaluation pass reports, per example `[B]`."""

    distortion: Tensor  # E_q[-log p(x|z)] nats, all constants (a surrogate where the likelihood has no measure)
    divergence: Tensor  # the prior's training divergence, nats
    rate: Tensor  # KL(q(z|x) || p(z)) nats, to the normalised prior
    mse: Tensor  # |x - E[x|z]|^2 / P, per pixel
    mu: Tensor  # [B, D] posterior mean


class Vae(nn.Module):
    """A VAE built from its description. Initial weights come from `seed` by address; hyper-parameters are 0-d
    buffers."""

    def __init__(self, model: Model, x_shape: Sequence[int], *, seed: int = 0, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.model, self.x_shape = model, tuple(x_shape)
        d = model.latent_dim
        decoder = model.decoder or model.encoder
        self.encoder = model.encoder.encoder(x_shape, model.posterior.width(d), head_bias=model.posterior.head_bias)
        self.decoder = decoder.decoder(d, model.likelihood.width(x_shape))
        self.posterior: nn.Module = model.posterior.build(d)
        self.prior: Any = model.prior.build(d)
        self.likelihood: Any = model.likelihood.build(x_shape)
        initialize(self, seed)
        self.to(dtype)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.encoder.parameters()).dtype

    def _pass(self, batch: Batch) -> tuple[Any, Tensor, Tensor]:
        q = self.posterior(self.encoder(batch.x).to(self.dtype), batch)
        z = q.rsample(batch.noise.normal(batch.samples, q.mu.shape[-1], q.mu))  # [B, S, D]
        return q, self.decoder(z).to(self.dtype), batch.x.flatten(1)

    def forward(self, batch: Batch) -> Terms:
        """Terms of one training step on this worker's shard. Under autocast the nets alone run in bfloat16."""
        q, y, x = self._pass(batch)
        return Terms(self.likelihood.nll(y, x, batch).mean(1), self.prior.divergence(q).sum(-1))

    @torch.no_grad()
    def measure(self, batch: Batch) -> Measured:
        """Evaluation of a batch (call `.eval()` first): float64 per example, the rate to the normalised prior."""
        q, y, x = self._pass(batch)
        q = type(q)(q.mu.double(), q.var.double())
        return Measured(
            distortion=self.likelihood.nll(y, x, batch).double().mean(1),
            divergence=self._double(self.prior.divergence, q).sum(-1),
            rate=self._double(self.prior.rate, q).sum(-1),
            mse=(self.likelihood.mean(y) - x[:, None]).double().square().mean((1, 2)),
            mu=q.mu,
        )

    @staticmethod
    def _double(f: Any, q: Any) -> Tensor:
        return f(q).double()

    def projections(self) -> Iterator[tuple[nn.Parameter, Callable[[Tensor], Tensor]]]:
        """Parameters that a part constrains, with the map applied after every optimizer step."""
        for part in self.modules():
            if part is not self and hasattr(part, "projections"):
                yield from part.projections()  # type: ignore[operator]

    # --- use of a trained model -------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(self, x: Tensor) -> Any:
        """q(z|x) of pixels `[B, *x_shape]` in [0, 1], in evaluation mode."""
        training = self.training
        self.eval()
        x = x.to(self.dtype).reshape(-1, *self.x_shape)
        batch = Batch(x=x, noise=Noise(0, 0, np.arange(len(x))), total=len(x))
        q = self.posterior(self.encoder(x), batch)
        self.train(training)
        return q

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """E[x|z] `[B, *x_shape]` of latents `[B, D]`."""
        return self.likelihood.mean(self.decoder(z.to(self.dtype))).reshape(-1, *self.x_shape)

    @torch.no_grad()
    def sample(self, n: int, *, seed: int = 0) -> Tensor:
        """E[x|z] `[n, *x_shape]` for z from the prior."""
        index, d = np.arange(n), self.model.latent_dim
        eps = torch.from_numpy(philox.normal(seed, Stream.SAMPLE, index=index, dim=d)[:, 0]).to(self.dtype)
        u = torch.from_numpy(philox.uniform(seed, Stream.SAMPLE, index=index, step=1, dim=d)[:, 0]).to(self.dtype)
        return self.decode(self.prior.sample(eps, u))

    def pixels(self) -> int:
        return math.prod(self.x_shape)
