"""Importance-weighted -log p(x) (Burda et al. 2016, "Importance weighted autoencoders", Eq. 8), nats per example:

    log p(x) >= E[log 1/S sum_s w_s],      w_s = p(x|z_s) p(z_s) / q(z_s|x),      z_s ~ q(z|x)

The bound rises with S towards log p(x); at S = 1 it is the ELBO by one draw; where q is the posterior of the model, all
w_s are p(x) and every S gives it exactly. p(z) is the *normalised* prior (for `binarized` its mixture of modes, by
label the marginal), never the divergence that training weighed.

How far the estimate is from log p(x) is seen in the effective sample size (sum w)^2 / sum w^2, in [1, S]: near 1, one
draw carries the sum, and more samples would raise the bound.

Choices. The draws are the evaluation pass's own, by address: its z is the first of them, the first S of more are the S,
and no chunk changes any. Nets run in the model's dtype; densities and the sums of weights are float64."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from torch import Tensor

from distvae.metrics.latent import mean
from distvae.metrics.metric import Column, MetricPart
from distvae.part import Hyper

if TYPE_CHECKING:
    from distvae.batch import Batch
    from distvae.metrics.subject import Subject
    from distvae.trial import Trial
    from distvae.vae import Vae

LATENTS = 2**18  # entries of z [B, S, Z] at a time,
OUTPUTS = 2**21  # and decoder outputs [B, some of S, W]: what fits the cache


def log_mean_weight(log_w: Tensor) -> Tensor:
    """log 1/S sum_s w_s `[...]`, float64 nats, of log w `[..., S]`."""
    return log_w.double().logsumexp(-1) - math.log(log_w.shape[-1])


def effective_samples(log_w: Tensor) -> Tensor:
    """(sum_s w_s)^2 / sum_s w_s^2 `[...]`, float64, of log w `[..., S]` (Kish 1965)."""
    log_w = log_w.double()
    return (2.0 * log_w.logsumexp(-1) - (2.0 * log_w).logsumexp(-1)).exp()


@torch.no_grad()
def log_weights(vae: Vae, batch: Batch, samples: int, *, outputs: int = OUTPUTS) -> Tensor:
    """log w `[B, samples]`, float64 nats, of a batch (call `vae.eval()` first); `batch.samples` is not read. About
    `outputs` decoder outputs at a time. Raises TypeError for a posterior without a density."""
    q = vae.posterior_at(batch)
    z = q.rsample(batch.noise, samples)
    wide = z.double()
    log_w = vae.prior_at(batch).log_prob(wide) - q.double().log_prob(wide)
    width = vae.model.likelihood.width(vae.x_shape)
    some = max(1, outputs // (len(z) * width))
    return log_w - torch.cat([vae.distortion(part, batch) for part in z.split(some, 1)], 1)


@dataclass(frozen=True, kw_only=True)
class IwNll(MetricPart):
    """Importance-weighted -log p(x) (Burda et al. 2016)."""

    type: Literal["iw_nll"] = "iw_nll"
    samples: Annotated[int, Hyper(low=1, high=100_000, symbol="S", doc="draws of z for each example")] = 500

    def columns(self, trial: Trial) -> tuple[Column, ...]:
        return (
            Column("iw_nll_nats", "nats/example", "importance-weighted -log p(x)"),
            Column("iw_nll_se", "nats/example", "standard error of iw_nll_nats over examples"),
            Column("iw_samples", "samples", "draws of z for each example in iw_nll_nats", whole=True),
            Column("iw_ess", "samples", "effective sample size of iw_nll_nats, mean over examples"),
        )

    def why_not(self, subject: Subject) -> str | None:
        model = subject.vae.model
        if not model.posterior.density:
            return f"the {model.posterior.type} posterior has no density to weigh draws by"
        if model.likelihood.measure is None:
            return "with a sigma_x fitted to each image, p(x|z) is not a density of x"
        return None

    def measure(self, subject: Subject, split: str) -> dict[str, float | int]:
        model, vae = subject.vae.model, subject.vae
        code, width = model.posterior.code_dim(model.latent_dim), model.likelihood.width(vae.x_shape)
        size = max(1, min(LATENTS // (self.samples * code), OUTPUTS // width))
        parts = []
        for batch in subject.batches(split, size):
            log_w = log_weights(vae, batch, self.samples)
            parts.append(torch.stack([-log_mean_weight(log_w), effective_samples(log_w)]).cpu())
        nll, ess = torch.cat(parts, 1)
        value, se = mean(nll)
        return {
            "iw_nll_nats": value,
            "iw_nll_se": se,
            "iw_samples": self.samples,
            "iw_ess": float(ess.mean()),
        }
