"""How a kernel becomes a torch operator `torch.ops.distvae.NAME`: schema, implementation, fake (shapes only), autograd
and a vmap rule. Every operator has a trial axis K in front, so vmap over V of them is one call with V K trials."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from distvae.kernels.mapped import by_rule

LIBRARY = torch.library.Library("distvae", "DEF")


@dataclass(frozen=True)
class Trials:
    """Positions of an operator's tensors: `per_trial` have the trial axis first, `both` may lack it (position: its number
    of dimensions then; all trials share it); K is read off the argument `k_from`."""

    per_trial: tuple[int, ...]
    both: dict[int, int] = field(default_factory=dict)
    k_from: int = 0


def _save_nothing(ctx: Any, inputs: Any, output: Any) -> None:
    pass


def define(
    schema: str,
    forward: Callable[..., Any],
    *,
    fake: Callable[..., Any],
    trials: Trials,
    save: Callable[..., None] = _save_nothing,
    grad: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Registers the operator and returns what to call. That is the operator where something looks at it (torch.compile,
    fake tensors, tracing); inside torch.func transforms an autograd.Function around it (torch.library's own autograd
    does not go through `torch.func.grad`); and for plain eager tensors, also those that a transform has unwrapped, the
    implementation itself, which saves most of the 0.2 ms that a Python operator's dispatch costs, forward and backward.
    Without `grad` its derivative is an error: torch would warn and go on with a wrong one."""
    differentiable = grad is not None
    name = f"distvae::{schema.partition('(')[0]}"
    grad = grad or _no_derivative(name)
    LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    torch.library.impl(name, ("CPU", "CUDA"), forward, lib=LIBRARY)
    torch.library.register_fake(name, fake, lib=LIBRARY)
    torch.library.register_autograd(name, grad, setup_context=save, lib=LIBRARY)
    operator = getattr(torch.ops.distvae, name.partition("::")[2])

    class Eager(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> Any:
            out = forward(*args)
            save(ctx, args, out)
            return out

        backward: Any = staticmethod(grad)

    def unwrapped(*args: Any) -> Any:
        if _eager(args[0]):
            if not _needs_gradient(args):
                return forward(*args)
            if differentiable:
                return Eager.apply(*args)
        return operator(*args)

    rule = _fold(unwrapped, trials)
    torch.library.register_vmap(name, rule, lib=LIBRARY)

    class Transformed(torch.autograd.Function):
        @staticmethod
        def forward(*args: Any) -> Any:
            return unwrapped(*args)

        setup_context = staticmethod(save)
        backward = staticmethod(grad)

        @staticmethod
        def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
            return rule(info, in_dims, *args)

    def call(*args: Any) -> Any:
        if torch._C._are_functorch_transforms_active():
            return by_rule(rule, Transformed.apply, *args)
        return unwrapped(*args)

    return call


def _eager(x: Tensor) -> bool:
    """A plain tensor that nothing traces, transforms or intercepts?"""
    return (
        not torch.compiler.is_compiling()
        and (type(x) is Tensor or type(x) is torch.nn.Parameter)
        and not torch._C._are_functorch_transforms_active()
        and not torch._C._len_torch_dispatch_stack()
    )


def _needs_gradient(args: tuple[Any, ...]) -> bool:
    if torch.is_grad_enabled():
        for x in args:  # no generator: this runs in every call
            if isinstance(x, Tensor) and x.requires_grad:
                return True
    return False


def _no_derivative(name: str) -> Callable[..., Any]:
    def refuse(ctx: Any, *gradients: Any) -> Any:
        raise NotImplementedError(f"{name} has no derivative: the kernels can be differentiated once, not twice")

    return refuse


def _fold(operator: Any, trials: Trials) -> Callable[..., Any]:
    """The vmap rule: V x K trials in one call."""

    def rule(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        v = info.batch_size
        where = in_dims[trials.k_from]
        k = args[trials.k_from].shape[0 if where is None or where > 0 else 1]
        folded = list(args)
        for position in (*trials.per_trial, *trials.both):
            x, dim = args[position], in_dims[position]
            if x is None or (dim is None and position in trials.both):
                continue
            x = x.movedim(dim, 0) if dim is not None else x[None].expand(v, *x.shape)
            if x.dim() == trials.both.get(position, -1) + 1:  # one for all K trials of each
                x = x[:, None].expand(v, k, *x.shape[1:])
            folded[position] = x.reshape(v * k, *x.shape[2:])
        out = operator(*folded)
        parts = tuple(t.unflatten(0, (v, k)) for t in (out if isinstance(out, tuple) else (out,)))
        return (parts, tuple(0 for _ in parts)) if isinstance(out, tuple) else (parts[0], 0)

    return rule


def strides_free(x: Tensor) -> Tensor:
    """An empty tensor like `x`, contiguous: what the kernels return."""
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)
