"""The optimizer of stacked trials: each slot is clipped and moved by itself, with its own learning rate, weight decay
and momentum, by torch's own fused kernels on views of the slot. So a slot's step is that of its trial alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from distvae.trial import Train

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8  # torch's defaults, as `engine.optimizer` takes them


class StackOptimizer(torch.optim.Optimizer):
    """Over stacked parameters `[K, ...]`. `lr` holds the slots' learning rates of the next step."""

    def __init__(self, params: Sequence[torch.nn.Parameter], trains: Sequence[Train]):
        super().__init__(params, {"lr": trains[0].lr})
        self.trains = list(trains)
        self.params: list[torch.nn.Parameter] = self.param_groups[0]["params"]
        self.kind = trains[0].optimizer
        self.clip = None
        if trains[0].clip_norm is not None:
            self.clip = self.params[0].new_tensor([t.clip_norm for t in trains])
        self.lr: list[float] | list[Tensor] = [t.lr for t in trains]
        self.slots = {name: [torch.zeros_like(p) for p in self.params] for name in self._names()}
        self.steps = self.params[0].new_zeros(len(self.params), len(trains), dtype=torch.float32)
        self._views: dict[str, list[tuple[Tensor, ...]]] = {}  # of all but gradients, slot by slot, made once

    def _names(self) -> tuple[str, ...]:
        if self.kind == "sgd":
            return ("momentum_buffer",) if any(t.momentum for t in self.trains) else ()
        return ("exp_avg", "exp_avg_sq")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        live = [i for i, p in enumerate(self.params) if p.grad is not None]
        grads: list[Tensor] = [self.params[i].grad for i in live]  # type: ignore[misc]
        if self.clip is not None:
            self._clip(grads)
        views = self._views or self._slot_views()
        columns = [g.unbind(0) for g in grads]
        for i in live:
            self.steps[i].add_(1)
        for k, train in enumerate(self.trains):
            mine = {name: [values[i][k] for i in live] for name, values in views.items()}
            self._move(k, train, [c[k] for c in columns], mine)

    def _slot_views(self) -> dict[str, list[tuple[Tensor, ...]]]:
        values: dict[str, Sequence[Tensor]] = {"weights": self.params, **self.slots, "steps": list(self.steps)}
        self._views = {name: [v.detach().unbind(0) for v in some] for name, some in values.items()}
        return self._views

    def _move(self, k: int, train: Train, grads: list[Tensor], mine: dict[str, list[Tensor]]) -> None:
        weights, lr = mine["weights"], self.lr[k]
        if self.kind == "sgd":
            buffers: list[Any] = [*mine.get("momentum_buffer", [None] * len(weights))]
            sgd(
                weights, grads, buffers, fused=True, foreach=False, lr=lr, weight_decay=train.weight_decay,
                momentum=train.momentum, dampening=0.0, nesterov=False, maximize=False,
            )  # fmt: skip
            return
        adam: Any = torch._fused_adamw_ if self.kind == "adamw" else torch._fused_adam_
        adam(
            weights, grads, mine["exp_avg"], mine["exp_avg_sq"], [], mine["steps"], lr=lr, beta1=BETA1, beta2=BETA2,
            eps=EPS, weight_decay=train.weight_decay, amsgrad=False, maximize=False,
        )  # fmt: skip

    def _clip(self, grads: Sequence[Tensor]) -> None:
        """As `torch.nn.utils.clip_grad_norm_` does, slot by slot: a NaN stays in its own."""
        norms = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in grads])
        total = torch.linalg.vector_norm(norms, dim=0)
        scale = (self.clip / (total + 1e-6)).clamp(max=1.0)
        for g in grads:
            g.mul_(scale.view(-1, *(1,) * (g.dim() - 1)))
