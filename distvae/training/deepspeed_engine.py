"""Each trial is a DeepSpeed engine. What DeepSpeed does on its own accord is turned off: it compiles nothing at run
time (its shared-memory op takes 68 s to build and its default Adam 134 s; we pass a torch optimizer), unpickles
nothing (its `load_checkpoint` would) and imports no MLflow.

The user's `deepspeed:` block passes through; batch size, optimizer and clipping come from `train:`, their one home."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from distvae.training.engine import load_module_state, load_optimizer_state, module_state, optimizer, optimizer_state
from distvae.training.world import World
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
    several that are stacked. The process group exists already (`world.meet`)."""

    def __init__(
        self,
        module: nn.Module,
        train: Train,
        world: World,
        block: dict[str, Any],
        own: torch.optim.Optimizer | None = None,
    ):
        ds = import_deepspeed()
        self.accumulate = int(block.get("gradient_accumulation_steps", 1))
        self.stage = int(block.get("zero_optimization", {}).get("stage", 0))
        config = {
            "steps_per_print": 2**31,
            "zero_allow_untested_optimizer": True,
            **block,
            "train_micro_batch_size_per_gpu": max(1, train.batch_size // (world.size * self.accumulate)),
            "gradient_clipping": 0.0 if own is not None else train.clip_norm or 0.0,
        }
        os.environ["LOCAL_RANK"] = os.environ.get("LOCAL_RANK", "0")  # it insists; devices are chosen by Ray
        self.module = module
        self.master = self.stage > 0  # weights have a float32 master copy elsewhere
        self.engine: Any = ds.initialize(
            model=module, optimizer=own or optimizer(train, module), config=config, dist_init_required=False
        )[0]

    def backward(self, loss: Tensor) -> None:
        self.engine.backward(loss)

    def step(self, lr: float) -> None:
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr
        self.engine.step()

    @torch.no_grad()
    def project(self, p: nn.Parameter, f: Callable[[Tensor], Tensor]) -> None:
        if not self.master:
            p.copy_(f(p))
            return
        from deepspeed.utils import safe_get_full_fp32_param, safe_set_full_fp32_param

        master = safe_get_full_fp32_param(p)
        assert master is not None, "every learning parameter has a master copy"
        value = f(master)
        safe_set_full_fp32_param(p, value)
        p.copy_(value)

    def state(self) -> dict[str, Tensor]:
        if not self.master:
            return {**module_state(self.module), **optimizer_state(self.engine.optimizer)}
        masters = {f"master.{i}": m.detach().cpu().clone() for i, m in enumerate(self._masters())}
        return {**module_state(self.module), **masters, **optimizer_state(self.engine.optimizer.optimizer)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        load_module_state(self.module, state)
        if not self.master:
            load_optimizer_state(self.engine.optimizer, state)
            return
        for i, m in enumerate(self._masters()):
            m.data.copy_(state[f"master.{i}"])
        load_optimizer_state(self.engine.optimizer.optimizer, state)

    def _masters(self) -> list[Tensor]:
        """This rank's float32 partitions, whatever the ZeRO stage calls them."""
        opt = self.engine.optimizer
        for name in ("single_partition_of_fp32_groups", "fp32_groups_flat_partition"):
            if hasattr(opt, name):
                return list(getattr(opt, name))
        raise NotImplementedError(f"no known master weights in {type(opt).__name__}")

    def close(self) -> None:
        self.engine.destroy()
