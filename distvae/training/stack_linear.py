"""An affine layer that is one batched product when it is mapped over trials, forward and backward: the products that the
layer makes alone, in their order. `vmap` of torch's own `linear` multiplies and then adds the bias, and its derivative
multiplies the other way round: slower, and rounded differently."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from distvae.kernels.mapped import by_rule


class _Stacked(torch.autograd.Function):
    """`[K, B, i]`, `[K, o, i]`, `[K, o]` or None -> `[K, B, o]`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        turned = weight.transpose(1, 2)
        return torch.bmm(x, turned) if bias is None else torch.baddbmm(bias[:, None], x, turned)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        need = ctx.needs_input_grad
        return (
            torch.bmm(g, weight) if need[0] else None,
            torch.bmm(g.transpose(1, 2), x) if need[1] else None,
            g.sum(1) if need[2] else None,
        )


class _Mapped(torch.autograd.Function):
    """`linear`, for vmap."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        raise NotImplementedError("stacked layers are differentiated outside vmap, by _Stacked")

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Tensor | None) -> tuple[Tensor, int]:
        k = info.batch_size
        stacked = [
            a if a is None else a.movedim(dim, 0) if dim is not None else a.expand(k, *a.shape)
            for a, dim in zip(args, in_dims, strict=True)
        ]
        return _Stacked.apply(*stacked), 0  # type: ignore[return-value]


class StackedLinear(nn.Linear):
    """`nn.Linear` for a model that is mapped over trials; inputs `[B, i]`."""

    def forward(self, input: Tensor) -> Tensor:
        kind = torch.get_autocast_dtype(input.device.type) if torch.is_autocast_enabled(input.device.type) else None
        args = (input, self.weight, self.bias)
        args = args if kind is None else tuple(a if a is None else a.to(kind) for a in args)
        return by_rule(_Mapped.vmap, _Mapped.apply, *args)


def stackable(module: nn.Module) -> None:
    """Give every `nn.Linear` inside `module` the rule above, in place."""
    for layer in module.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = StackedLinear
