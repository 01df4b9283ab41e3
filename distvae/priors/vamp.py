"""VampPrior (Tomczak and Welling 2018, "VAE with a VampPrior"): the aggregated posterior of K learned pseudo-inputs,

    p(z) = 1/K sum_k q(z | u_k),        KL(q || p) = E_q[log q(z|x) - log p(z)] by Monte Carlo               Eq. 9

u_k live in data space. The authors keep them in [0, 1] by a hard tanh, which passes no gradient to an entry that has
left the interval; `sigmoid` always does; `none` is for data that are real numbers.

Choices. The pseudo-inputs start as U(0, 1) draws by address (normals with `none`); the authors' code draws normals
around a constant, or copies training images. Encoder and pseudo-inputs both learn from p, as in the paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from distvae.batch import Batch
from distvae.kernels import philox
from distvae.kernels.philox import Stream
from distvae.nets.init import address
from distvae.part import Hyper
from distvae.priors.mixture import GaussianMixture
from distvae.priors.prior import Encode, PriorPart


@dataclass(frozen=True, kw_only=True)
class Vamp(PriorPart):
    """Aggregated posterior of K learned pseudo-inputs (Tomczak and Welling 2018)."""

    type: Literal["vamp"] = "vamp"
    components: Annotated[int, Hyper(low=1, high=65536, symbol="K", doc="pseudo-inputs")] = 100
    squash: Annotated[
        Literal["hardtanh", "sigmoid", "none"], Hyper(doc="what keeps pseudo-inputs in [0, 1]; none: real data")
    ] = "hardtanh"

    closed_form: ClassVar[bool] = False
    factorised: ClassVar[bool] = False

    @property
    def unit(self) -> bool:
        """Are the pseudo-inputs pixels in [0, 1]?"""
        return self.squash != "none"

    def build(self, latent_dim: int, x_shape: Sequence[int] = ()) -> VampPrior:
        return VampPrior(self, x_shape)


class VampPrior(nn.Module):
    def __init__(self, part: Vamp, x_shape: Sequence[int]):
        super().__init__()
        self.squash, self.x_shape = part.squash, tuple(x_shape)
        self.inputs = nn.Parameter(torch.zeros(part.components, math.prod(x_shape), dtype=torch.float64))
        self.initialize(0, "prior")

    @torch.no_grad()
    def initialize(self, seed: int, name: str) -> None:
        """Pseudo-inputs by (trial seed, parameter name); under `binarized`, what they would be alone."""
        k, pixels = self.inputs.shape
        draw = philox.normal if self.squash == "none" else philox.uniform
        at = address(f"{name.removesuffix('.over')}.inputs")
        u = torch.from_numpy(draw(seed, Stream.INIT, index=range(k), step=at, dim=pixels)[:, 0])
        self.inputs.copy_(u.logit() if self.squash == "sigmoid" else u)

    def pseudo_inputs(self) -> Tensor:
        """u `[K, *x_shape]`."""
        u = self.inputs.unflatten(-1, self.x_shape)
        return {"hardtanh": lambda: u.clamp(0, 1), "sigmoid": u.sigmoid, "none": lambda: u}[self.squash]()

    def forward(self, encode: Encode, batch: Batch) -> GaussianMixture:
        q = encode(self.pseudo_inputs())
        return GaussianMixture(q.mu.new_full((len(q.mu),), -math.log(len(q.mu))), q.mu, q.var)
