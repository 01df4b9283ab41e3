"""The VAE, in the order of the formula:

    q(z|x) = posterior(encoder(x))                z ~ q, by addressed noise
    -ELBO  = E_q[-log p(x|z)] + KL(q(z|x) || p(z))      = distortion + rate, nats per example

`Vae.forward` gives what training weighs (`Terms`), `Vae.measure` what evaluation reports (`Measured`); they differ
where a surrogate is trained on. Every part is chosen in YAML; none is named here."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from distvae.batch import Batch, Noise
from distvae.estimators import Estimator, Pathwise, natural
from distvae.kernels import sample_kl
from distvae.kernels.philox import Stream
from distvae.likelihoods import Bernoulli, Likelihood
from distvae.nets import Conditioning, Mlp, Net
from distvae.nets.init import initialize
from distvae.objectives.objective import Terms
from distvae.part import Hyper, Part
from distvae.posteriors import Gaussian as GaussianPosterior
from distvae.posteriors import Posterior
from distvae.priors import Normal, Prior

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from distvae.trial import Trial


@dataclass(frozen=True, kw_only=True)
class Model(Part):
    """The parts of a VAE."""

    encoder: Annotated[Net, Hyper(doc="net from x to the posterior's parameters")] = Mlp()  # noqa: RUF009
    decoder: Annotated[
        Net | None, Hyper(doc="net from z to the likelihood's parameters; default: the encoder's mirror")
    ] = None
    conditioning: Annotated[
        Conditioning | None, Hyper(doc="how both nets are told beta (objective: beta_input); default: they are not")
    ] = None
    latent_dim: Annotated[int, Hyper(low=1, high=65536, symbol="d", doc="dimensions of z")] = 16
    posterior: Annotated[Posterior, Hyper(doc="q(z|x)")] = GaussianPosterior()  # noqa: RUF009
    prior: Annotated[Prior, Hyper(doc="p(z)")] = Normal()  # noqa: RUF009
    likelihood: Annotated[Likelihood, Hyper(doc="p(x|z)")] = Bernoulli()  # noqa: RUF009
    estimator: Annotated[
        Estimator | None,
        Hyper(doc="gradient of E_q[-log p(x|z)]; default: pathwise, or score where no gradient passes through z"),
    ] = None

    @property
    def bound(self) -> bool:
        """Is -(rate + distortion) a bound on log p(x)? Not without a posterior density, nor without a measure of x."""
        return self.posterior.density and self.likelihood.measure is not None

    def gradient(self) -> Any:
        """The estimator, the default one resolved."""
        return self.estimator or natural(self.posterior)


class Measured(NamedTuple):
    """What an evaluation pass reports, `[B]` and float64 unless it says otherwise."""

    distortion: Tensor  # E_q[-log p(x|z)] nats, all constants (a surrogate where the likelihood has no measure)
    divergence: Tensor  # [B, D] or [B, 1] the prior's training divergence, nats
    rate: Tensor  # KL(q(z|x) || p(z)) nats, to the normalised prior (zeros where q has no density)
    mse: Tensor  # E_q|x - E[x|z]|^2 / P, per pixel
    mu: Tensor  # [B, Z] posterior mean
    z: Tensor  # [B, Z] the first latent sample
    q: Any  # the posteriors


class Vae(nn.Module):
    """A VAE built from its description. Initial weights come from `seed` by address; hyper-parameters are 0-d
    buffers. `beta` is what a beta-input model is told where nothing else says (`load_best` sets it), `betas` those it was
    evaluated at; `trial` is whose model it is, `metrics` what its evaluation measured, split -> name -> value."""

    def __init__(self, model: Model, x_shape: Sequence[int], *, seed: int = 0, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.model, self.x_shape = model, tuple(x_shape)
        self.autocast: torch.dtype | None = None  # the nets' dtype in training, where it is not the weights'
        self.lean = False  # may training skip what only some objectives read of a step?
        self.beta: float | None = None
        self.betas: tuple[float, ...] = ()
        self.trial: Trial | None = None
        self.metrics: dict[str, dict[str, float]] = {}
        d, code = model.latent_dim, model.posterior.code_dim(model.latent_dim)
        decoder = model.decoder or model.encoder
        self.encoder: nn.Module = model.encoder.encoder(
            x_shape, model.posterior.width(d), head_bias=model.posterior.head_bias
        )
        self.decoder: nn.Module = decoder.decoder(code, model.likelihood.width(x_shape), x_shape)
        if model.conditioning is not None:
            pairs = model.posterior.gaussian  # (mean, log variance) in the encoder's head
            self.encoder = model.conditioning.condition(self.encoder, "encoder", self.x_shape, pairs=pairs)
            self.decoder = model.conditioning.condition(self.decoder, "decoder", (code,))
        self.posterior: nn.Module = model.posterior.build(d)
        self.prior: Any = model.prior.build(d, self.x_shape)
        self.likelihood: Any = model.likelihood.build(x_shape)
        self.estimator: Any = model.gradient().build()
        self.mask: Tensor | None  # [D] bool: the dimensions there are, where the model is wider than the trial
        self.register_buffer("mask", None, persistent=False)
        initialize(self, seed)
        self.to(dtype)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.encoder.parameters()).dtype

    def forward(self, batch: Batch) -> Terms:
        """Terms of one training step on this worker's shard. Under autocast the nets alone run in half precision."""
        if self.lean and batch.samples == 1:
            return self._one_pass(batch)
        q, p, x = self._infer(batch)
        distortion, z = self.estimator(
            q, p, lambda z: self.likelihood.nll(self._generate(z, batch.beta), x, batch), batch
        )
        return Terms(distortion, self._divergence(q, p, z), q, z[:, 0], p)

    def _one_pass(self, batch: Batch) -> Terms:
        """`forward` where sample and divergence are one kernel's (`sampled`); no posterior is made."""
        h = self._net(self.encoder, batch.x, batch.beta)
        mu, logvar, p_keep, floor = self.posterior.raw(h, batch)  # type: ignore[operator]
        noise, r = batch.noise, self.prior.offset
        z, kl = sample_kl(
            mu, logvar, seed=noise.seed, step=noise.step, index=noise.ids(mu), stream=noise.latent, r=r,
            p_keep=p_keep, floor=floor, mask=self.mask,
        )  # fmt: skip
        z = z[:, None]
        distortion = self.likelihood.nll(self._generate(z, batch.beta), batch.x.flatten(1), batch).mean(1)
        return Terms(distortion, kl, None, z[:, 0], self.prior)

    @property
    def sampled(self) -> bool:
        """Do a sample and its divergence come out of `kernels.sample_kl`?"""
        gaussian = self.model.posterior.gaussian and isinstance(self.model.gradient(), Pathwise)
        return gaussian and getattr(self.prior, "offset", None) is not None

    @torch.no_grad()
    def measure(self, batch: Batch) -> Measured:
        """Evaluation of a batch (call `.eval()` first): float64 per example, the rate to the normalised prior."""
        q, p, x = self._infer(batch)

        def errors(z: Tensor) -> Tensor:  # [B, S, 2]
            y = self._generate(self._masked(z), batch.beta)
            mse = (self.likelihood.mean(y) - x[:, None]).double().square().mean(-1)
            return torch.stack([self.likelihood.nll(y, x, batch).double(), mse], -1)

        mean, z = self.estimator.measure(q, errors, batch)
        distortion, mse = mean.unbind(-1)
        q, z = q.double(), self._masked(z.double())
        rate = (
            self._masked(p.rate(q, z).double()).sum(-1)
            if self.model.posterior.density
            else torch.zeros_like(distortion)
        )
        return Measured(distortion, self._divergence(q, p, z).double(), rate, mse, q.mu, z[:, 0], q)

    @torch.no_grad()
    def distortion(self, z: Tensor, batch: Batch) -> Tensor:
        """-log p(x|z) `[B, S]`, float64 nats, of the batch's x and z `[B, S, Z]`."""
        y = self._generate(z.to(self.dtype), batch.beta)
        return self.likelihood.nll(y, batch.x.flatten(1), batch).double()

    def _infer(self, batch: Batch) -> tuple[Any, Any, Tensor]:
        """(q(z|x), p(z), x `[B, P]`)"""
        return self.posterior_at(batch), self.prior_at(batch), batch.x.flatten(1)

    def posterior_at(self, batch: Batch) -> Any:
        """q(z|x) of this step."""
        return self.posterior(self._net(self.encoder, batch.x, batch.beta), batch)

    def prior_at(self, batch: Batch) -> Any:
        """p(z) of this step: the prior conditioned on what of the batch it needs."""
        return self.prior(lambda x: self.posterior(self._net(self.encoder, x, None), batch), batch)

    def _generate(self, z: Tensor, beta: Tensor | None) -> Tensor:
        """The likelihood's parameters `[..., W]` of z `[..., Z]`; `beta` `[B]` belongs to the first axis."""
        lead = z.shape[:-1]
        if beta is not None:
            beta = beta.reshape(-1, *(1 for _ in lead[1:])).expand(lead).reshape(-1)
        return self._net(self.decoder, z.reshape(-1, z.shape[-1]), beta).reshape(*lead, -1)

    def _net(self, net: nn.Module, x: Tensor, beta: Tensor | None) -> Tensor:
        half = self.autocast if self.training else None
        with torch.autocast(x.device.type, half) if half else contextlib.nullcontext():
            y = net(x) if beta is None else net(x, beta.log())
        return y.to(self.dtype)

    def _divergence(self, q: Any, p: Any, z: Tensor) -> Tensor:
        return self._masked(p.divergence(q, z)) if self.model.posterior.density else torch.zeros_like(z[:, 0, :1])

    def _masked(self, t: Tensor) -> Tensor:
        """0 in the dimensions that the trial does not have."""
        return t if self.mask is None else torch.where(self.mask, t, 0.0)

    def projections(self) -> Iterator[tuple[nn.Parameter, Callable[[Tensor], Tensor]]]:
        """Parameters that a part constrains, with the map applied after every optimizer step."""
        for part in self.modules():
            if part is not self and hasattr(part, "projections"):
                yield from part.projections()  # type: ignore[operator]

    # --- use of a trained model -------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(self, x: Tensor, *, beta: float | None = None) -> Any:
        """q(z|x) of pixels `[B, *x_shape]` in [0, 1], in evaluation mode; `beta` for a beta-input model."""
        training = self.training
        self.eval()
        x = x.to(self.dtype).reshape(-1, *self.x_shape)
        at = self._at(beta, x)
        batch = Batch(x=x, noise=Noise(0, 0, np.arange(len(x))), total=len(x), beta=at)
        q = self.posterior(self._net(self.encoder, x, at), batch)
        self.train(training)
        return q

    @torch.no_grad()
    def decode(self, z: Tensor, *, beta: float | None = None) -> Tensor:
        """E[x|z] `[B, *x_shape]` of latents `[B, Z]`."""
        z = z.to(self.dtype)
        return self.likelihood.mean(self._generate(z, self._at(beta, z))).reshape(-1, *self.x_shape)

    @torch.no_grad()
    def sample(self, n: int, *, seed: int = 0, beta: float | None = None) -> Tensor:
        """E[x|z] `[n, *x_shape]` for z from the prior; `distvae.samplers` has other ways to draw z."""
        return self.decode(self.latents(n, seed=seed), beta=beta)

    @torch.no_grad()
    def latents(self, n: int, *, seed: int = 0) -> Tensor:
        """z `[n, Z]` from the prior, by address: the first of more are the same."""
        noise = Noise(seed, 0, np.arange(n), Stream.SAMPLE)
        return self.prior_for(noise).sample(noise, next(self.encoder.parameters()))

    def prior_for(self, noise: Noise) -> Any:
        """p(z) with no batch to condition it on, in evaluation mode."""
        like, training = next(self.encoder.parameters()), self.training
        self.eval()
        p = self.prior_at(Batch(x=like.new_empty(0), noise=noise, total=len(noise.index)))
        self.train(training)
        return p

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Write the model into a folder: weights as safetensors, the rest as JSON. Raises PretrainedError."""
        from distvae.pretrained import save_pretrained

        return save_pretrained(self, folder)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], *, device: str = "cpu") -> Vae:
        """What `save_pretrained` wrote, in evaluation mode. Raises PretrainedError."""
        from distvae.pretrained import from_pretrained

        return from_pretrained(folder, device=device)

    def _at(self, beta: float | None, like: Tensor) -> Tensor | None:
        if self.model.conditioning is None:
            return None
        beta = self.beta if beta is None else beta
        if beta is None:
            raise ValueError("beta: this model is told beta: give one (beta=...)")
        return like.new_full((len(like),), beta)

    def pixels(self) -> int:
        return math.prod(self.x_shape)
