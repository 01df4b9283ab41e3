"""Samplers: ways to draw images from a trained model, `draw(vae, n, sampler)`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from distvae.part import Hyper, Part
from distvae.samplers.aggregated import Aggregated
from distvae.samplers.biased import Biased
from distvae.samplers.prior import Prior
from distvae.samplers.recursive import Recursive
from distvae.samplers.sampler import Fitted, SamplerError, SamplerPart
from distvae.samplers.second_stage import SecondStage
from distvae.samplers.unbinarized import Unbinarized

if TYPE_CHECKING:
    from torch import Tensor

    from distvae.vae import Vae

Sampler = Prior | Unbinarized | Biased | Aggregated | SecondStage | Recursive


@dataclass(frozen=True, kw_only=True)
class Menu(Part):
    """What `named` chooses from."""

    sampler: Annotated[Sampler, Hyper(doc="how z is drawn")]


__all__ = [
    "Aggregated",
    "Biased",
    "Fitted",
    "Prior",
    "Recursive",
    "Sampler",
    "SamplerError",
    "SamplerPart",
    "SecondStage",
    "Unbinarized",
    "draw",
    "named",
]


def draw(
    vae: "Vae", n: int, sampler: "Sampler | str | dict[str, Any]" = "prior", x: "Tensor | None" = None, seed: int = 0
) -> "Tensor":
    """`n` images E[x|z] `[n, *x_shape]` of a trained model. `sampler` is a part, its type, or its YAML or data:
    `draw(vae, 64, {"type": "aggregated", "components": 10}, x=train_images)`; `x` `[N, *x_shape]` are the training
    examples that some are fitted to. A beta-input model is used at `vae.beta`. Raises ConfigError, SamplerError."""
    part = sampler if isinstance(sampler, SamplerPart) else named(sampler)
    return part.fit(vae, x, seed).images(n, seed)


def named(sampler: "str | dict[str, Any]", label: str = "draw") -> "Sampler":
    """The sampler of a type, YAML text or data. Raises ConfigError with what is allowed; `label` is its place."""
    from distvae.config import chosen  # pydantic, only when used

    return chosen(Menu, "sampler", sampler, label)
