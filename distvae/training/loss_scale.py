"""Dynamic loss scaling, for nets in float16, whose gradients vanish below 6e-8 and overflow above 65504. The loss is
multiplied by a scale, gradients are divided by it, and a step whose gradients are not finite is skipped and the scale
halved.

`float16` means what `bfloat16` means here: autocast. The nets' matrix products run in half; weights, optimizer, KL,
log-likelihoods, their sums and evaluation stay float32. DeepSpeed's own `fp16` would cast the whole model instead, and a
log-density summed over 3072 pixels in half is worth nothing (half has 11 bits: 1000 nats to the nearest 0.5). Autocast
is also the one way that is the same on a CPU and a GPU, and the same arithmetic with both engines.

So the scaler is neither DeepSpeed's (part of its `fp16`; with autocast it has torch's, one that each rank updates from
its own partition alone) nor `torch.amp.GradScaler` (no hysteresis, no least scale): one rule, DeepSpeed's options, both
engines. It sits in the optimizer's step, the one place that every ZeRO stage, offloaded or not, passes with float32
gradients. Scales are powers of 2, so scaling rounds nothing."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from distvae.training.world import World

OPTIONS = {"initial_scale_power": 16, "loss_scale_window": 1000, "hysteresis": 2, "min_loss_scale": 1}


class LossScale:
    """The scale of one trial. `options` are DeepSpeed's `fp16` block: 2^`initial_scale_power` at first, twice as much
    after each `loss_scale_window` steps without overflow (the first of them does not count), half as much at the
    `hysteresis`-th overflow and at each that follows until it grows again, at least `min_loss_scale`. `lost`: gradients
    overflow at the least scale."""

    def __init__(self, options: dict[str, Any], world: World):
        self.world, self.options = world, {**OPTIONS, **options}
        self.value = 2.0 ** self.options["initial_scale_power"]
        self.patience = int(self.options["hysteresis"])
        self.good = 0  # steps since the last overflow
        self.lost = False
        self._stepped = False

    def scaled(self, loss: Tensor) -> Tensor:
        """What to run backward on. Gradients of weights, sums over a shard of what is divided by its size, overflow first:
        they are of one size on any number of workers, so one worker and two agree on when to skip, but for rounding."""
        return loss * self.value

    def guard(self, optimizer: torch.optim.Optimizer, clip_norm: float | None, *, sharded: bool) -> None:
        """From now on `optimizer.step()` unscales and clips, or does nothing where a gradient is not finite.
        `sharded`: a rank's gradients are a part of them."""
        plain = optimizer.step

        def step(closure: None = None) -> None:
            grads = [p.grad for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
            square = float(sum(g.double().square().sum() for g in grads))
            norm = math.sqrt(self.world.sum(square) if sharded else square) / self.value
            self._stepped = math.isfinite(norm)
            if not self._stepped:
                return
            shrink = 1.0 if clip_norm is None else min(1.0, clip_norm / (norm + 1e-6))
            for g in grads:
                g.mul_(1.0 / self.value).mul_(shrink)
            plain()

        optimizer.step = step  # type: ignore[method-assign]

    def settle(self) -> None:
        """After each optimizer step, taken or not: DeepSpeed itself skips one whose gradients are not finite."""
        if self._stepped:
            if self.good and self.good % self.options["loss_scale_window"] == 0:
                self.value *= 2.0
                self.patience = int(self.options["hysteresis"])
            self.good += 1
        else:
            self.good = 0
            self.lost = self.value <= self.options["min_loss_scale"]
            if self.patience > 1:
                self.patience -= 1
            else:
                self.value = max(self.value / 2.0, float(self.options["min_loss_scale"]))
        self._stepped = False

    def state(self) -> dict[str, Tensor]:
        values = {"value": self.value, "patience": self.patience, "good": self.good}
        return {f"loss_scale.{k}": torch.tensor(v, dtype=torch.float64) for k, v in values.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.value = float(state["loss_scale.value"])
        self.patience, self.good = (int(state[f"loss_scale.{k}"]) for k in ("patience", "good"))


def loss_scale(dtype: str, block: dict[str, Any], world: World) -> LossScale | None:
    """Of a trial of this dtype, with the `fp16` options of its `deepspeed` block; None where no loss is scaled."""
    return LossScale(block.get("fp16", {}), world) if dtype == "float16" else None
