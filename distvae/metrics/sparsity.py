"""Optimal sparse representation (Dai, Wenliang and Wipf 2021, Definition 1; S4's slides, methods S4.9): (i) the error of
decoding the posterior mean is 0, (ii) given that, as many dimensions as possible have mu_d(x) = 0 for all x.

Nothing trained by gradient reaches either zero. Ours, with both thresholds knobs:

    inactive_dims   dimensions with Var_x[mu_d] <= `variance`, where the squared error per pixel at the mean is at most
                    `mse`; null where it is above: few dimensions at a large error say nothing (a collapsed model would
                    win)
    inactive_share  the same over D

Choices. mu_d the same for all x stands for 0: a constant is worth nothing to the decoder either. `variance` is that of
active units, so inactive_dims = D - active_units. `mse` 0.01 is a PSNR of 20 dB for pixels in [0, 1]; for other data set
it by their scale. Posteriors on R^d with a density only: an autoencoder's code (`delta`) has no scale to call a variance
small by, and Definition 1 has no meaning on a sphere or for bits. "Maximal" is over models: compare trials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from distvae.metrics.latent import ACTIVE, active_units
from distvae.metrics.metric import Column, MetricPart
from distvae.metrics.reconstruction import squared_errors
from distvae.part import Hyper

if TYPE_CHECKING:
    from distvae.metrics.subject import Subject
    from distvae.trial import Trial


@dataclass(frozen=True, kw_only=True)
class Sparsity(MetricPart):
    """Inactive dimensions at near-zero reconstruction error (S4)."""

    type: Literal["sparsity"] = "sparsity"
    mse: Annotated[
        float, Hyper(above=0.0, doc="largest squared error per pixel, decoding the mean, that counts as near zero")
    ] = 0.01
    variance: Annotated[
        float, Hyper(above=0.0, doc="largest variance over examples of the mean of an inactive dimension")
    ] = ACTIVE

    def columns(self, trial: Trial) -> tuple[Column, ...]:
        where = f"at a squared error per pixel of at most {self.mse:g} (else null)"
        what = f"dimensions whose posterior mean varies by at most {self.variance:g} over examples"
        return (
            Column("inactive_dims", "dimensions", f"{what}, {where}", whole=True),
            Column("inactive_share", "", f"inactive_dims over all dimensions, {where}"),
        )

    def why_not(self, subject: Subject) -> str | None:
        posterior = subject.vae.model.posterior
        if posterior.space == "real" and posterior.density:
            return None
        return f"inactive dimensions are of a density on R^d, and the posterior is {posterior.type}"

    def measure(self, subject: Subject, split: str) -> dict[str, float | int | None]:
        mu = subject.means(split)
        if len(mu) < 2 or not float(squared_errors(subject, split).mean()) <= self.mse:
            return {"inactive_dims": None, "inactive_share": None}
        d = mu.shape[1]
        inactive = d - active_units(mu, self.variance)
        return {"inactive_dims": inactive, "inactive_share": inactive / d}
