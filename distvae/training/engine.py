"""The engine: backward, reduction over the ranks, clipping and the optimizer's step. `TorchEngine` is the whole of it
in torch, for machines without DeepSpeed; `DeepSpeedEngine` (deepspeed_engine.py) has the same interface and gives the
same rows.

A rank's loss is its local sum * W / N_global, and engines average gradients over the ranks, so an uneven last batch
counts right."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from distvae.training.loss_scale import LossScale, loss_scale
from distvae.training.world import World
from distvae.trial import Train


class Engine(Protocol):
    """What the loop needs of an engine."""

    accumulate: int  # micro-batches per optimizer step
    scale: LossScale | None  # of a float16 trial

    def backward(self, loss: Tensor) -> None:
        """Gradients of one micro-batch; the engine divides by `accumulate`."""
        ...

    def step(self, lr: float) -> None:
        """After every micro-batch; moves the weights after the last one."""
        ...

    def project(self, p: nn.Parameter, f: Callable[[Tensor], Tensor]) -> None:
        """p <- f(p), in the working copy and any master copy."""
        ...

    def whole(self) -> AbstractContextManager[Any]:
        """The module with all of its weights, on every rank: for whoever reads them, or evaluates. All ranks together.
        Weights are not to be changed inside; buffers may be."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Weights, optimizer state and loss scale of this rank, by name. All ranks together."""
        ...

    def load_state(self, state: dict[str, Tensor]) -> None: ...

    def close(self) -> None: ...


def optimizer(train: Train, module: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of a trial, over the parameters that learn."""
    params = [p for p in module.parameters() if p.requires_grad]
    if train.optimizer == "sgd":
        sgd = eager(torch.optim.SGD)
        return sgd(params, lr=train.lr, momentum=train.momentum, weight_decay=train.weight_decay, fused=True)
    kind = torch.optim.Adam if train.optimizer == "adam" else torch.optim.AdamW
    return eager(kind)(params, lr=train.lr, weight_decay=train.weight_decay, fused=True)


@cache
def eager(kind: type[torch.optim.Optimizer]) -> type[Any]:
    """`kind` without its marks for torch.compile. They import torch._dynamo, all of Inductor and sympy at the first use:
    2.3 s and 75 MB in every worker, and nothing here is compiled."""
    marked = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    plain = {name: inspect.unwrap(getattr(kind, name)) for name in marked}
    plain["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), plain)


class TorchEngine:
    """Plain torch: a flat all-reduce where there are several ranks."""

    def __init__(
        self,
        module: nn.Module,
        train: Train,
        world: World,
        block: dict[str, Any],
        own: torch.optim.Optimizer | None = None,
    ):
        self.module, self.world = module, world
        self.accumulate = int(block.get("gradient_accumulation_steps", 1))
        self.scale = loss_scale(train.dtype, block, world)
        self.clip_norm = train.clip_norm if own is None and self.scale is None else None
        self.optimizer = own or optimizer(train, module)
        if self.scale is not None:
            self.scale.guard(self.optimizer, train.clip_norm, sharded=False)
        self._params = [p for g in self.optimizer.param_groups for p in g["params"]]
        self._micro = 0

    def backward(self, loss: Tensor) -> None:
        loss = loss if self.scale is None else self.scale.scaled(loss)
        (loss / self.accumulate).backward()

    def step(self, lr: float) -> None:
        self._micro += 1
        if self._micro % self.accumulate:
            return
        if self.world.size > 1:
            self._average()
        if self.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._params, self.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        if self.scale is not None:
            self.scale.settle()
        self.optimizer.zero_grad()

    def _average(self) -> None:
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self._params]
        flat = torch.cat([g.flatten() for g in grads])
        dist.all_reduce(flat)
        flat /= self.world.size
        for p, g in zip(self._params, flat.split([g.numel() for g in grads]), strict=True):
            p.grad = g.view_as(p)

    @torch.no_grad()
    def project(self, p: nn.Parameter, f: Callable[[Tensor], Tensor]) -> None:
        p.copy_(f(p))

    @contextmanager
    def whole(self) -> Iterator[nn.Module]:
        yield self.module

    def state(self) -> dict[str, Tensor]:
        scale = {} if self.scale is None else self.scale.state()
        return {**module_state(self.module), **optimizer_state(self.optimizer), **scale}

    def load_state(self, state: dict[str, Tensor]) -> None:
        load_module_state(self.module, state)
        load_optimizer_state(self.optimizer, state)
        if self.scale is not None:
            self.scale.load_state(state)

    def close(self) -> None:
        pass


def module_state(module: nn.Module) -> dict[str, Tensor]:
    return {f"model.{k}": v.detach().cpu().contiguous().clone() for k, v in module.state_dict().items()}


def load_module_state(module: nn.Module, state: dict[str, Tensor]) -> None:
    module.load_state_dict({k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")})


def optimizer_state(opt: torch.optim.Optimizer) -> dict[str, Tensor]:
    """`optimizer.<parameter>.<name>` tensors; scalars become 0-d tensors."""
    flat = {}
    for i, slots in opt.state_dict()["state"].items():
        for name, value in slots.items():
            if value is not None:
                flat[f"optimizer.{i}.{name}"] = torch.as_tensor(value).detach().cpu().contiguous().clone()
    return flat


def load_optimizer_state(opt: torch.optim.Optimizer, state: dict[str, Tensor]) -> None:
    slots: dict[int, dict[str, Any]] = {}
    for k, v in state.items():
        if k.startswith("optimizer."):
            _, i, name = k.split(".", 2)
            slots.setdefault(int(i), {})[name] = v
    opt.load_state_dict({"state": slots, "param_groups": opt.state_dict()["param_groups"]})
