"""Reconstruction from the middle of each posterior, with no noise in z: what the decoder makes of one code per example.

    code      the point of the latent space nearest to E[z|x]: the mean itself in R^d, its direction on the sphere, the
              rounded bits, the likeliest class. (E[z|x] itself is off the last three: the decoder has never seen it.)
    mse_mean  mean over examples of |x - E[x|z]|^2 / P, per pixel
    psnr_db   10 log10(1 / mse_mean), peak 1: of the mean error, which exists for every model. The other common average,
              the mean over images of each one's PSNR, is `psnr_image_db`: higher (Jensen), and infinite, so null, where
              one image is reproduced exactly
    bce_mean  -log p(x|z), S1's BCE "with z = mu", of Bernoulli likelihoods only: the cross-entropy of another
              likelihood's mean would be no -log of a probability that the model states

These are not distortions: `distortion_nats` and `distortion_mse` of a row are means over z ~ q(z|x)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from distvae.metrics.metric import Column, MetricPart

if TYPE_CHECKING:
    from distvae.batch import Batch
    from distvae.metrics.subject import Subject
    from distvae.posteriors.posterior import Space
    from distvae.trial import Trial


def middle(mu: Tensor, space: Space) -> Tensor:
    """The point of the latent space nearest to E[z|x] `[N, Z]`."""
    if space == "sphere":
        return normalize(mu, dim=-1, eps=1e-30)
    if space == "bits":
        return (mu > 0.5).to(mu.dtype)
    if space == "onehot":
        return (mu.argmax(-1, keepdim=True) == torch.arange(mu.shape[-1], device=mu.device)).to(mu.dtype)
    return mu


def psnr(mse: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of mean squared errors of pixels in [0, 1]; infinite for none."""
    return -10.0 * mse.log10()


def in_the_middle(subject: Subject, split: str) -> Iterator[tuple[Batch, Tensor]]:
    """(a batch, its codes `[B, Z]`) through the split."""
    codes = middle(subject.means(split), subject.vae.model.posterior.space).to(subject.device)
    done = 0
    for batch in subject.batches(split):
        yield batch, codes[done : done + len(batch.x)]
        done += len(batch.x)


def squared_errors(subject: Subject, split: str) -> Tensor:
    """|x - E[x|z]|^2 / P of each example at its code, float64 `[N]`."""
    vae = subject.vae
    each = [(vae.decode(z) - b.x).double().square().flatten(1).mean(1) for b, z in in_the_middle(subject, split)]
    return torch.cat(each).cpu()


@dataclass(frozen=True, kw_only=True)
class Reconstruction(MetricPart):
    """MSE, PSNR and BCE of the decoded posterior mean."""

    type: Literal["reconstruction"] = "reconstruction"

    def columns(self, trial: Trial) -> tuple[Column, ...]:
        return (
            Column("mse_mean", "squared pixel", "mean squared error per pixel of E[x|z] at the posterior mean"),
            Column("psnr_db", "dB", "PSNR of mse_mean, peak 1 (null for data that are not in [0, 1])"),
            Column("psnr_image_db", "dB", "mean over images of each one's PSNR at the posterior mean, peak 1"),
            Column("bce_mean_nats", "nats/example", "-log p(x|z) at the posterior mean (Bernoulli likelihoods)"),
        )

    def measure(self, subject: Subject, split: str) -> dict[str, float | None]:
        errors = squared_errors(subject, split)
        unit, each = subject.trial.data.unit, psnr(errors)
        return {
            "mse_mean": float(errors.mean()),
            "psnr_db": float(psnr(errors.mean())) if unit and errors.any() else None,
            "psnr_image_db": float(each.mean()) if unit and each.isfinite().all() else None,
            "bce_mean_nats": self._bce(subject, split),
        }

    def _bce(self, subject: Subject, split: str) -> float | None:
        if subject.vae.model.likelihood.measure != "binary":
            return None
        vae = subject.vae
        each = [vae.distortion(z[:, None], batch)[:, 0] for batch, z in in_the_middle(subject, split)]
        return float(torch.cat(each).mean())
