"""Each trial is a DeepSpeed engine. What DeepSpeed does on its own accord is turned off: it compiles nothing at run
time (its shared-memory op takes 68 s to build and its default Adam 134 s; we pass a torch optimizer), unpickles
nothing (its `load_checkpoint` would) and imports no MLflow.

The user's `deepspeed:` block passes through; batch size, optimizer, clipping and dtype come from `train:`, their one
home. An optimizer offloaded to the CPU is torch's there (DeepSpeed's own would be compiled).

ZeRO stage 3 keeps a part of every weight on each rank, and its hooks gather a net's layer by layer. Weights outside the
two nets (a prior's means, a likelihood's sigma_x) are read outside of their module's `forward`, where no hook runs: they
are kept whole, as DeepSpeed keeps every parameter below `stage3_param_persistence_threshold` (10^5 numbers: a small VAE
is not cut at all unless it is set lower). The hooks expect a training pass, so evaluation runs on a twin of the model,
without hooks, that holds the weights for as long as it is asked for. Weights are made whole, by address, and then cut:
a model must fit one rank's memory at its start."""

from __future__ import annotations

import copy
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn

from distvae.training.engine import load_module_state, load_optimizer_state, module_state, optimizer, optimizer_state
from distvae.training.loss_scale import loss_scale
from distvae.training.world import World, meet
from distvae.trial import Train


def import_deepspeed() -> ModuleType:
    """DeepSpeed, tamed. Raises ImportError where it cannot be had."""
    if "deepspeed" not in sys.modules:
        if not torch.cuda.is_available():
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "error")
        logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
        absent = "mlflow" not in sys.modules
        if absent:
            sys.modules["mlflow"] = None  # type: ignore[assignment]  # it imports MLflow if it can: seconds per worker
        try:
            import deepspeed
        finally:
            if absent:
                sys.modules.pop("mlflow", None)
        for name, other in logging.root.manager.loggerDict.items():
            if name.startswith("DeepSpeed") and isinstance(other, logging.Logger):
                other.setLevel(logging.ERROR)
    import deepspeed
    from deepspeed.ops import __compatible_ops__ as ops

    ops["deepspeed_shm_comm"] = False  # or `init_distributed` compiles it
    return deepspeed


class DeepSpeedEngine:
    """A DeepSpeed engine around one trial's model, or (with an optimizer of its `own`, which also clips) around
    several that are stacked. The process group of several ranks exists already (`world.meet`)."""

    def __init__(
        self,
        module: nn.Module,
        train: Train,
        world: World,
        block: dict[str, Any],
        own: torch.optim.Optimizer | None = None,
    ):
        ds = import_deepspeed()
        if world.size == 1:
            meet(0, 1, device=world.device)
        self.accumulate = int(block.get("gradient_accumulation_steps", 1))
        self.stage = int(block.get("zero_optimization", {}).get("stage", 0))
        self.scale = loss_scale(train.dtype, block, world)
        clips = own is not None or self.scale is not None  # the optimizer itself
        config = {
            "steps_per_print": 2**31,
            **{k: v for k, v in block.items() if k != "fp16"},
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "train_micro_batch_size_per_gpu": max(1, train.batch_size // (world.size * self.accumulate)),
            "gradient_clipping": 0.0 if clips else train.clip_norm or 0.0,
        }
        if self.scale is not None and self.stage == 3:  # in pieces, a step could be half skipped
            config["zero_optimization"] = {**block["zero_optimization"], "sub_group_size": 2**60}
        os.environ["LOCAL_RANK"] = os.environ.get("LOCAL_RANK", "0")  # it insists; devices are chosen by Ray
        self.module = module
        self.master = self.stage > 0  # weights have a float32 master copy elsewhere
        client = own or optimizer(train, module)
        if self.scale is not None:
            self.scale.guard(client, train.clip_norm, sharded=self.stage > 0)
        if self.stage == 3:
            self.twin = copy.deepcopy(module)
            self._clear_twin()
        self.engine: Any = ds.initialize(model=module, optimizer=client, config=config, dist_init_required=False)[0]
        if self.stage == 3:
            self.loose = self._find_loose()
            self._hold_loose()

    def backward(self, loss: Tensor) -> None:
        self.engine.backward(loss if self.scale is None else self.scale.scaled(loss))

    def step(self, lr: float) -> None:
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr
        moves = self.engine.is_gradient_accumulation_boundary()
        self.engine.step()
        if moves and self.scale is not None:
            self.scale.settle()
        if moves and self.stage == 3:
            self._hold_loose()

    @torch.no_grad()
    def project(self, p: nn.Parameter, f: Callable[[Tensor], Tensor]) -> None:
        if not self.master:
            p.copy_(f(p))
            return
        from deepspeed.utils import safe_get_full_fp32_param, safe_set_full_fp32_param, safe_set_local_fp32_param

        if self.stage == 3:
            with self._gathered([p], change=True):
                p.copy_(f(p))  # in float32, the master's value
            safe_set_local_fp32_param(p, cast(Any, p).ds_tensor)
            return
        master = safe_get_full_fp32_param(p)
        assert master is not None, "every learning parameter has a master copy"
        value = f(master).to(p.device)
        safe_set_full_fp32_param(p, value)
        p.copy_(value)

    # --- weights that are cut (stage 3) -----------------------------------------------------------------------------

    @contextmanager
    def whole(self) -> Iterator[nn.Module]:
        if self.stage < 3:
            yield self.module
            return
        with self._gathered(list(self.module.parameters())):
            for p, q in zip(self.module.parameters(), self.twin.parameters(), strict=True):
                q.data = p.detach().clone()
        _copy_buffers(self.module, self.twin)
        try:
            yield self.twin
        finally:
            _copy_buffers(self.twin, self.module)
            self._clear_twin()

    def _clear_twin(self) -> None:
        for q in self.twin.parameters():
            q.data = q.data.new_empty(0)

    @contextmanager
    def _gathered(self, params: list[nn.Parameter], change: bool = False) -> Iterator[None]:
        """Inside, `params` are whole, to read or to `change` (rank 0's values count)."""
        from deepspeed.runtime.zero import GatheredParameters

        with GatheredParameters(params, modifier_rank=0 if change else None):
            yield
        self._hold_loose()

    def _find_loose(self) -> list[Any]:
        """The parameters outside of the nets; no hook is to cut them."""
        nets = {id(p) for net in (self.module.encoder, self.module.decoder) for p in net.parameters()}  # type: ignore[union-attr]
        loose: list[Any] = [p for p in self.module.parameters() if id(p) not in nets]
        for p in loose:
            p.ds_persist = p.is_external_param = True  # the second, while DeepSpeed still records the order of layers
        return loose

    def _hold_loose(self) -> None:
        """Make them whole again."""
        from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus

        cut = [p for p in self.loose if p.ds_status is ZeroParamStatus.NOT_AVAILABLE]
        if cut:
            cut[0].all_gather(param_list=cut)

    # --- state ------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        with self.whole() as module:
            weights = module_state(module)
        scale = {} if self.scale is None else self.scale.state()
        if not self.master:
            return {**weights, **optimizer_state(self.engine.optimizer), **scale}
        masters = {f"master.{i}": m.detach().cpu().clone() for i, m in enumerate(self._masters())}
        with self._slots() as inner:
            return {**weights, **masters, **optimizer_state(inner), **scale}

    def load_state(self, state: dict[str, Tensor]) -> None:
        if self.scale is not None:
            self.scale.load_state(state)
        with self.whole() as module:
            load_module_state(module, state)
            if self.stage == 3:
                self._cut(module)
        if not self.master:
            load_optimizer_state(self.engine.optimizer, state)
            return
        for i, m in enumerate(self._masters()):
            m.data.copy_(state[f"master.{i}"])
        with self._slots() as inner:
            load_optimizer_state(inner, state)

    @torch.no_grad()
    def _cut(self, module: nn.Module) -> None:
        """Take over the weights of a whole module."""
        with self._gathered(list(self.module.parameters()), change=True):
            for p, q in zip(self.module.parameters(), module.parameters(), strict=True):
                p.copy_(q)

    @contextmanager
    def _slots(self) -> Iterator[torch.optim.Optimizer]:
        """The client optimizer, over this rank's partitions: stage 3 takes them out of its groups between steps."""
        inner = self.engine.optimizer.optimizer
        if self.stage == 3:
            inner.param_groups[0]["params"] = self._masters()
        yield inner
        if self.stage == 3:
            inner.param_groups[0]["params"] = []

    def _masters(self) -> list[Tensor]:
        """This rank's float32 partitions, whatever the ZeRO stage calls them."""
        opt = self.engine.optimizer
        for name in ("single_partition_of_fp32_groups", "fp32_partitioned_groups_flat"):
            if hasattr(opt, name):
                return list(getattr(opt, name))
        raise NotImplementedError(f"no known master weights in {type(opt).__name__}")

    def close(self) -> None:
        self.engine.destroy()
        if self.stage == 3:
            from deepspeed.runtime.zero.parameter_offload import FWD_MODULE_STACK

            FWD_MODULE_STACK.clear()  # or the model of every trial stays in memory


def _copy_buffers(source: nn.Module, target: nn.Module) -> None:
    for a, b in zip(source.buffers(), target.buffers(), strict=True):
        b.copy_(a)
