"""One rank's half of one trial: epochs, evaluation, checkpoints. Written for one worker; `World` supplies the others.

What a step does is spelt out in `Runner.step_on`, and a test holds it, step for step, against a loop written by
hand."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from distvae.batch import Batch, Noise
from distvae.data import load as load_data
from distvae.kernels import philox
from distvae.training import checkpoint
from distvae.training.engine import Engine, TorchEngine, module_state
from distvae.training.evaluate import Evaluator, Examples
from distvae.training.world import World
from distvae.trial import Train, Trial
from distvae.vae import Vae


@dataclass
class Report:
    """What an `advance` brought: new rows, where the trial stands, and how it ended if it did."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    epoch: int = 0
    status: str | None = None  # finished | diverged; None while it runs
    loss: float | None = None  # mean training loss of the last epoch, nats per example


def make_engine(
    name: str, module: nn.Module, train: Train, world: World, block: dict[str, Any], own: Any = None
) -> Engine:
    """`deepspeed` or `torch`, by name, with an optimizer of its `own` if one is given."""
    if name == "torch":
        return TorchEngine(module, train, world, int(block.get("gradient_accumulation_steps", 1)), own)
    from distvae.training.deepspeed_engine import DeepSpeedEngine

    return DeepSpeedEngine(module, train, world, block, own)


class Runner:
    """Trains one trial. `folder` is its checkpoint directory; None keeps nothing. A sound checkpoint there is
    resumed."""

    def __init__(
        self,
        trial: Trial,
        *,
        world: World | None = None,
        engine: str = "torch",
        deepspeed: dict[str, Any] | None = None,
        folder: Path | None = None,
        checkpoint_s: float = 30.0,
    ):
        self.trial, self.world, self.folder, self.checkpoint_s = trial, world or World(), folder, checkpoint_s
        data = load_data(trial.data)
        self.train = data.train
        self.vae = Vae(trial.vae, data.x_shape, seed=trial.seed, dtype=trial.dtype).to(self.world.device)
        self.vae.lean = self.vae.sampled and trial.objective.lean
        self.vae.autocast = torch.bfloat16 if trial.train.dtype == "bfloat16" else None
        self.objective = trial.objective.build().to(self.world.device, trial.dtype)
        self.engine = make_engine(engine, self.vae, trial.train, self.world, deepspeed or {})
        self.evaluator = Evaluator(trial, self.vae, self.objective, data.splits(), self.world)
        whole = trial.evaluate.train_examples >= len(data.train)
        self.examples = self.evaluator.examples["train"] if whole else Examples(trial, data.train, self.world.device)
        self.rows: list[dict[str, Any]] = []
        self.epoch = self.step_count = 0
        self.wall_s = 0.0
        self.status: str | None = None
        self._saved_at = time.monotonic()
        self._resume()

    # --- training ---------------------------------------------------------------------------------------------------

    def advance(self, seconds: float = math.inf) -> Report:
        """Train whole epochs until the trial ends or `seconds` have passed (at least one epoch), then report."""
        report, began = Report(), time.monotonic()
        while self.status is None:
            started = time.monotonic()
            report.loss = self.train_epoch()
            self.epoch += 1
            last = self.epoch >= self.trial.train.epochs
            self.wall_s += time.monotonic() - started
            if not math.isfinite(report.loss):
                self.status = "diverged"
            elif last or self.epoch % self.trial.evaluate.every == 0:
                measured = self.evaluate()
                report.rows += measured
                if not all(math.isfinite(r["objective"]) for r in measured):
                    self.status = "diverged"
                elif last:
                    self.status = "finished"
            if self.world.broadcast(time.monotonic() - began) >= seconds:
                break
        self.rows += report.rows
        report.epoch, report.status = self.epoch, self.status
        if self.status is None and self.world.broadcast(time.monotonic() - self._saved_at) >= self.checkpoint_s:
            self.save()
        return report

    def train_epoch(self) -> float:
        """One pass over the training examples. Returns the mean loss per example, nats."""
        n = len(self.train)
        order = philox.permutation(self.trial.data.seed, n, step=self.epoch)
        size = self.trial.train.batch_size
        self.vae.train()
        total = torch.zeros((), dtype=torch.float64, device=self.world.device)
        for rows in np.split(order, range(size, n, size)):
            total += self.step_on(rows)
        return self.world.sum(float(total)) / n

    def step_on(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """One optimizer step on a global batch of training rows. Returns this rank's summed loss."""
        train, step, n = self.trial.train, self.step_count, len(rows)
        total = torch.zeros((), dtype=torch.float64, device=self.world.device)
        for micro in np.array_split(self.world.shard(rows), self.engine.accumulate):
            x, y, ids = self.examples.at(micro, self.vae.dtype, step)
            noise = Noise(self.trial.seed, step, ids)
            batch = Batch(
                x=x,
                y=y,
                noise=noise,
                total=n,
                samples=train.samples,
                warm=self.trial.objective.warm(step),
                step=step,
                gather=self.world.gatherer(n),
                beta=self.trial.objective.draw(noise, x),
                dataset=len(self.train),
            )
            loss = self.objective(self.vae(batch), batch).sum()
            self.engine.backward(loss * (self.world.size * self.engine.accumulate / n))
            self.engine.step(train.lr * train.lr_schedule(step))
            total += loss.detach()
        for p, f in self.vae.projections():
            self.engine.project(p, f)
        self.step_count += 1
        return total

    def evaluate(self) -> list[dict[str, Any]]:
        started = time.monotonic()
        rows = self.evaluator.rows(epoch=self.epoch, step=self.step_count)
        self.wall_s += time.monotonic() - started
        return [{**r, "wall_s": self.wall_s} for r in rows]

    # --- state ------------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Checkpoint now. All ranks together."""
        self._saved_at = time.monotonic()
        if self.folder is None or self.epoch == 0:
            return
        mine = self.engine.state() if self.world.leads or self._sharded else None
        state = {"rows": self.rows, "step": self.step_count, "wall_s": self.wall_s, "layout": self._layout}
        checkpoint.write(self.folder, self.epoch, state, mine, self.world)

    def _resume(self) -> None:
        found = checkpoint.read(self.folder, self.world) if self.folder is not None else None
        if found is None or found[0]["layout"] != self._layout:
            return
        state, tensors = found
        self.engine.load_state(tensors)
        self.rows, self.epoch = state["rows"], state["epoch"]
        self.step_count, self.wall_s = state["step"], state["wall_s"]
        if self.epoch >= self.trial.train.epochs:
            self.status = "finished"

    @property
    def _sharded(self) -> bool:
        return getattr(self.engine, "stage", 0) > 0

    @property
    def _layout(self) -> str:
        """Optimizer states of one layout are interchangeable: replicated ones at any number of workers."""
        return f"zero{self.engine.stage}x{self.world.size}" if self._sharded else "replicated"  # type: ignore[attr-defined]

    def write_weights(self) -> None:
        """`model.safetensors` of the ended trial, and no more checkpoints than asked for."""
        if self.folder is not None and self.world.leads:
            checkpoint.write_weights(self.folder, module_state(self.vae))

    def close(self) -> None:
        self.engine.close()
