"""The optimizer of stacked trials: each slot is clipped and moved by itself, with its own learning rate, weight decay
and momentum, by torch's own fused kernels on views of the slot. So a slot's step is that of its trial alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam
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
        self.steps = [p.new_zeros(len(trains), dtype=torch.float32) for p in self.params]

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
        columns = [g.unbind(0) for g in grads]
        weights = [self.params[i].unbind(0) for i in live]
        slots = {name: [values[i].unbind(0) for i in live] for name, values in self.slots.items()}
        steps = [self.steps[i].unbind(0) for i in live]
        for k, train in enumerate(self.trains):
            mine = {name: [v[k] for v in values] for name, values in slots.items()}
            self._move(k, train, [w[k] for w in weights], [c[k] for c in columns], mine, [s[k] for s in steps])

    def _move(self, k: int, train: Train, weights: Any, grads: Any, slots: Any, steps: Any) -> None:
        common = {"lr": self.lr[k], "weight_decay": train.weight_decay, "maximize": False}
        if self.kind == "sgd":
            buffers = slots.get("momentum_buffer", [None] * len(weights))
            sgd(
                weights, grads, buffers, fused=True, foreach=False,
                momentum=train.momentum, dampening=0.0, nesterov=False, **common,
            )  # fmt: skip
            return
        adam(
            weights, grads, slots["exp_avg"], slots["exp_avg_sq"], [], steps, fused=True, foreach=False, amsgrad=False,
            beta1=BETA1, beta2=BETA2, eps=EPS, decoupled_weight_decay=self.kind == "adamw", **common,
        )  # fmt: skip

    def _clip(self, grads: Sequence[Tensor]) -> None:
        """As `torch.nn.utils.clip_grad_norm_` does, slot by slot: a NaN stays in its own."""
        norms = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in grads])
        total = torch.linalg.vector_norm(norms, dim=0)
        scale = (self.clip / (total + 1e-6)).clamp(max=1.0)
        for g in grads:
            g.mul_(scale.view(-1, *(1,) * (g.dim() - 1)))
