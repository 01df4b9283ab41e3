"""A net with functions of log beta between its layers: what `film` and `gate` share.

The layers keep the names they have in the plain net, and initial weights go by name: a conditioned net starts from the
plain net's weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from distvae.nets.net import ACTIVATIONS, NetPart
from distvae.part import Part

_NONLINEAR = tuple(ACTIVATIONS.values())


@dataclass(frozen=True, kw_only=True)
class ConditioningPart(Part):
    """Base of the ways to tell a net beta."""

    def refusal(self, net: NetPart) -> str | None:
        """Why this net cannot be told beta this way, and the likely fix; None if it can."""
        return None

    def condition(
        self, net: nn.Sequential, role: Literal["encoder", "decoder"], features_in: Sequence[int], *, pairs: bool = True
    ) -> nn.Module:
        """`net` (inputs `[N, *features_in]`) as a module of (x, log beta `[N]`). `pairs`: an encoder's outputs are
        (mean, log variance) per dimension, as those of every Gaussian posterior are."""
        raise NotImplementedError


class Conditioned(nn.Module):
    """`net`, where the output of layer i passes through `after[i]`, a module of (h `[N, F, ...]`, log beta `[N]`);
    i = -1 is the net's input."""

    def __init__(self, net: nn.Sequential, after: Mapping[int, nn.Module]):
        super().__init__()
        for name, layer in net.named_children():
            self.add_module(name, layer)
        for i, module in after.items():
            self.add_module(_name(i), module)
        self.depth, self.after = len(net), frozenset(after)

    def forward(self, x: Tensor, log_beta: Tensor) -> Tensor:
        for i in range(-1, self.depth):
            if i >= 0:
                x = self.get_submodule(str(i))(x)
            if i in self.after:
                x = self.get_submodule(_name(i))(x, log_beta)
        return x


def _name(i: int) -> str:
    return f"beta{i}" if i >= 0 else "beta_in"


def hidden(net: nn.Sequential) -> dict[int, int]:
    """Index of each non-linearity, and its features: units of a dense layer, channels of a convolution."""
    features, found = 0, {}
    for i, layer in enumerate(net):
        if isinstance(layer, nn.Linear):
            features = layer.out_features
        elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            features = layer.out_channels
        elif isinstance(layer, _NONLINEAR):
            found[i] = features
    return found


def outputs(net: nn.Sequential) -> int:
    """Features of the last affine layer."""
    return [m.out_features for m in net if isinstance(m, nn.Linear)][-1]


def spread(f: Tensor, h: Tensor) -> Tensor:
    """`f [N, F]` to the rank of `h [N, F, ...]`: one value per feature, the same at every pixel."""
    return f.reshape(*f.shape, *(1,) * (h.dim() - f.dim()))
