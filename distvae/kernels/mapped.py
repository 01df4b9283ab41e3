"""A batching rule without the way there: `vmap` of an autograd.Function goes through half a millisecond of torch's
Python a call, and a step of stacked trials has six. What is done here is what
torch does there, for the one case of a training step: a single vmap and no other transform."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

functorch: Any = torch._C._functorch  # type: ignore[attr-defined]


_NEEDED = (
    "CVmapInterpreterPtr",
    "TransformType",
    "_add_batch_dim",
    "_unwrap_batched",
    "get_interpreter_stack",
    "pop_dynamic_layer_stack",
    "push_dynamic_layer_stack",
)
KNOWN = all(hasattr(functorch, name) for name in _NEEDED)  # they are torch's own, and may go


class Info(NamedTuple):
    """What a rule may ask of the vmap."""

    batch_size: int


def by_rule(rule: Callable[..., tuple[Any, Any]], otherwise: Callable[..., Any], *args: Any) -> Any:
    """`rule(info, in_dims, *args)`, as the `vmap` of an autograd.Function is written, on the tensors under the vmap;
    `otherwise(*args)` where there is more at work than one vmap."""
    stack = functorch.get_interpreter_stack() if KNOWN else None
    if (
        stack is None
        or len(stack) != 1
        or stack[0].key() != functorch.TransformType.Vmap
        or torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack()
    ):
        return otherwise(*args)
    level = stack[0].level()
    pairs = [functorch._unwrap_batched(a, level) if isinstance(a, Tensor) else (a, None) for a in args]
    plain, dims = zip(*pairs, strict=True)
    if all(d is None for d in dims):
        return otherwise(*args)
    info = Info(functorch.CVmapInterpreterPtr(stack[0]).batchSize())
    saved = functorch.pop_dynamic_layer_stack()
    try:
        out, out_dims = rule(info, dims, *plain)
    finally:
        functorch.push_dynamic_layer_stack(saved)
    if isinstance(out, Tensor):
        return functorch._add_batch_dim(out, out_dims, level)
    return tuple(functorch._add_batch_dim(o, d, level) for o, d in zip(out, out_dims, strict=True))
