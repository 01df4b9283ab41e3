"""DU-VAE posterior (S2, Algorithm 1): batch-normalised means, floored and dropped-out variances.

    mu^  = gamma_d (mu - E[mu]) / sqrt(Var[mu] + eps) + beta_d                    Eq. 9, over the *global* batch
    var  = exp(logvar) + alpha,     alpha = 1 / (2 pi e)                          Section 3.1: additive, entropy > 0
    var^ = g (var - alpha) + alpha, g ~ Bernoulli(p) / p                          Eq. 6, p = p_keep, a KEEP probability
    gamma_d <- gamma gamma_d / sqrt(mean_d gamma_d^2)                             Algorithm 1, line 9 (`projections`)

Choices. The floor is added, not a clamp (the authors' code); written as var^ = g exp(logvar) + alpha, exact at g = 1.
Dropout starts once the objective's warm-up is at full weight (their code: `kl_weight == 1`, read as "warm-up
finished", else it would never start at beta != 1); the floor and the batch norm act from the first step, as Algorithm
1 has it, where their batch-norm encoder delays the floor too. The KL and the sample both use the dropped variance.
Evaluation uses running statistics and never drops. `fixed_gamma: true` is BN-VAE (Zhu et al. 2020): gamma_d = gamma,
beta_d learned. gamma_d are learned from gamma and rescaled after every step, the same thing as the code's "at the
start of each forward". No bias may feed a batch norm (its gradient is rounding noise, which Adam turns into steps of
+-lr), so the encoder's last layer has none (`head_bias`), and the log variances get theirs here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from distvae.batch import Batch
from distvae.kernels.philox import Stream
from distvae.part import Hyper, hold
from distvae.posteriors.gaussian import NormalQ, Raw, split
from distvae.posteriors.posterior import PosteriorPart

ALPHA = 1.0 / (2.0 * math.pi * math.e)  # variance at which a Gaussian's entropy is 0 nats


@dataclass(frozen=True, kw_only=True)
class Du(PosteriorPart):
    """DU-VAE (S2): variance dropout, variance floor, batch-normalised mean with rescaled gamma; BN-VAE with
    `fixed_gamma`."""

    type: Literal["du"] = "du"
    gamma: Annotated[
        float, Hyper(above=0.0, symbol="gamma", doc="root mean square of the batch norm's scales (S2 Eq. 9)")
    ] = 0.5
    p_keep: Annotated[
        float,
        Hyper(above=0.0, high=1.0, symbol="p", doc="probability of KEEPING a variance, 1 = no dropout (S2 Eq. 6)"),
    ] = 1.0
    fixed_gamma: Annotated[bool, Hyper(doc="keep every scale at gamma: BN-VAE (Zhu et al. 2020)")] = False
    momentum: Annotated[float, Hyper(above=0.0, high=1.0, doc="weight of a batch in the running statistics")] = 0.1
    eps: Annotated[float, Hyper(above=0.0, doc="added to the batch variance (the authors' image code: 1e-5)")] = 1e-5

    gaussian: ClassVar[bool] = True
    head_bias: ClassVar[bool] = False
    whole_batch: ClassVar[bool] = True  # its statistics span the global batch: refused with gradient accumulation

    def width(self, latent_dim: int) -> int:
        return 2 * latent_dim

    def build(self, latent_dim: int) -> DuHead:
        return DuHead(self, latent_dim)


class DuHead(nn.Module):
    gamma: Tensor
    p_keep: Tensor
    eps: Tensor
    momentum: Tensor
    dims: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, part: Du, latent_dim: int):
        super().__init__()
        hold(self, gamma=part.gamma, p_keep=part.p_keep, eps=part.eps, momentum=part.momentum, dims=latent_dim)
        self.rescaled = not part.fixed_gamma
        self.scale = nn.Parameter(
            torch.full((latent_dim,), part.gamma, dtype=torch.float64), requires_grad=not part.fixed_gamma
        )
        self.logvar_bias = nn.Parameter(torch.zeros(latent_dim, dtype=torch.float64))
        self.shift = nn.Parameter(torch.zeros(latent_dim, dtype=torch.float64))
        self.register_buffer("running_mean", torch.zeros(latent_dim, dtype=torch.float64))
        self.register_buffer("running_var", torch.ones(latent_dim, dtype=torch.float64))

    def raw(self, h: Tensor, batch: Batch) -> Raw:
        """Dropout only in training, and only once the warm-up is over."""
        mu, logvar = split(h)
        mu, logvar = self._normalize(mu, batch), logvar + self.logvar_bias
        if not self.training:
            return Raw(mu, logvar, floor=ALPHA)
        warm = torch.as_tensor(batch.warm, device=mu.device) >= 1.0
        return Raw(mu, logvar, torch.where(warm, self.p_keep, 1.0), ALPHA)

    def forward(self, h: Tensor, batch: Batch) -> NormalQ:
        mu, logvar, p_keep, floor = self.raw(h, batch)
        var = logvar.exp()
        if self.training:
            u = batch.noise.uniform(Stream.DROPOUT, var.shape[-1], var)
            p_keep = torch.as_tensor(p_keep)
            var = (u <= p_keep.double()).to(var.dtype) / p_keep * var
        return NormalQ(mu, var + floor)  # Eq. 6

    def _normalize(self, mu: Tensor, batch: Batch) -> Tensor:  # Eq. 9
        if self.training:
            every = batch.gather(mu)  # [total, D]
            mean = every.mean(0)
            var = (every - mean).square().mean(0)
            with torch.no_grad():
                n = every.shape[0]
                self.running_mean += self.momentum * (mean - self.running_mean)
                self.running_var += self.momentum * (var * (n / max(1, n - 1)) - self.running_var)
        else:
            mean, var = self.running_mean, self.running_var
        return self.scale * (mu - mean) * torch.rsqrt(var + self.eps) + self.shift

    def projections(self) -> Iterator[tuple[nn.Parameter, Callable[[Tensor], Tensor]]]:
        """(parameter, what it becomes after every step): gamma_d <- gamma gamma_d / sqrt(mean gamma_d^2)."""
        if self.rescaled:
            yield self.scale, lambda s: s * (self.gamma / (s.square().sum() / self.dims).sqrt())
