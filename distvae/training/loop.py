"""One rank's half of one trial: epochs, evaluation, checkpoints. Written for one worker; `World` supplies the others.
A trial may be interrupted after any optimizer step: a checkpoint says where in its epoch it stands.

What a step does is spelt out in `Runner.step_on`, and a test holds it, step for step, against a loop written by
hand."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
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
from distvae.training.pace import Pace
from distvae.training.world import World
from distvae.trial import Train, Trial
from distvae.vae import Vae

HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}  # of the nets alone


@dataclass
class Report:
    """What an `advance` brought: new rows, where the trial stands, and how it ended if it did."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    epoch: int = 0
    status: str | None = None  # finished | diverged | stopped; None while it runs
    loss: float | None = None  # mean training loss of the last epoch, nats per example


def make_engine(
    name: str, module: nn.Module, train: Train, world: World, block: dict[str, Any], own: Any = None
) -> Engine:
    """`deepspeed` or `torch`, by name, with an optimizer of its `own` if one is given."""
    if name == "torch":
        return TorchEngine(module, train, world, block, own)
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
        note: Callable[[str], None] = print,  # what the user should know
    ):
        self.note = note
        self.trial, self.world, self.folder, self.checkpoint_s = trial, world or World(), folder, checkpoint_s
        data = load_data(trial.data)
        self.train = data.train
        self.vae = Vae(trial.vae, data.x_shape, seed=trial.seed, dtype=trial.dtype).to(self.world.device)
        self.vae.lean = self.vae.sampled and trial.objective.lean
        self.vae.autocast = HALF.get(trial.train.dtype)
        self.objective = trial.objective.build().to(self.world.device, trial.dtype)
        self.projections = list(self.vae.projections())  # walking the modules costs a tenth of a small net's step
        self.engine = make_engine(engine, self.vae, trial.train, self.world, deepspeed or {})
        self.evaluator = Evaluator(trial, self.vae, self.objective, data.splits(), self.world)
        whole = trial.evaluate.train_examples >= len(data.train)
        self.examples = self.evaluator.examples["train"] if whole else Examples(trial, data.train, self.world.device)
        self.rows: list[dict[str, Any]] = []
        self.epoch = self.step_count = 0
        self.position = 0  # optimizer steps done in the current epoch,
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.world.device)  # and this rank's loss in them
        self.wall_s = 0.0
        self.status: str | None = None
        self._saved_at = time.monotonic()
        self._resume()

    # --- training ---------------------------------------------------------------------------------------------------

    def advance(self, seconds: float = math.inf, *, once: bool = False) -> Report:
        """Train until the trial ends or about `seconds` have passed (at least one optimizer step), or `once` it has been
        evaluated, then report. May stop, and save, within an epoch."""
        report, pace = Report(), Pace(self.world, seconds)
        while self.status is None:
            loss = self.train_epoch(pace)
            if loss is None:
                break
            report.loss = loss
            if due := self.evaluation_due:
                report.rows += self.evaluate()
            if pace.over() or (once and due):
                break
        report.epoch, report.status = self.epoch, self.status
        if self.status is None and self.world.broadcast(time.monotonic() - self._saved_at) >= self.checkpoint_s:
            self.save()
        return report

    def train_epoch(self, pace: Pace | None = None) -> float | None:
        """Train to the end of the current epoch. Returns its mean loss per example, nats; None if `pace` ran out before
        its end."""
        n, size, started = len(self.train), self.trial.train.batch_size, time.monotonic()
        order = philox.permutation(self.trial.data.seed, n, step=self.epoch)
        batches = np.split(order, range(size, n, size))
        self.vae.train()
        while self.position < len(batches):
            self.loss_sum += self.step_on(batches[self.position])
            self.position += 1
            if pace is not None and pace.spent() and self.position < len(batches):
                self.wall_s += time.monotonic() - started
                return None
        loss = self.world.sum(float(self.loss_sum)) / n
        self.epoch, self.position = self.epoch + 1, 0
        self.loss_sum.zero_()
        if not math.isfinite(loss) or (self.engine.scale is not None and self.engine.scale.lost):
            self.status = "diverged"
        self.wall_s += time.monotonic() - started
        return loss

    @property
    def evaluation_due(self) -> bool:
        """At the end of an epoch: does a pass belong here?"""
        last = self.epoch >= self.trial.train.epochs
        return self.status is None and (last or self.epoch % self.trial.evaluate.every == 0)

    def evaluate(self) -> list[dict[str, Any]]:
        """The rows of this epoch, and how the trial stands after them."""
        started = time.monotonic()
        with self.engine.whole() as self.evaluator.vae:
            measured = self.evaluator.rows(epoch=self.epoch, step=self.step_count)
        self.wall_s += time.monotonic() - started
        measured = [{**r, "wall_s": self.wall_s} for r in measured]
        self.rows += measured
        if not all(math.isfinite(r["objective"]) for r in measured):
            self.status = "diverged"
        elif self.epoch >= self.trial.train.epochs:
            self.status = "finished"
        return measured

    def step_on(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """One optimizer step on a global batch of training rows. Returns this rank's summed loss."""
        train, step, n = self.trial.train, self.step_count, len(rows)
        total = torch.zeros((), dtype=torch.float64, device=self.world.device)
        mine, parts = self.world.shard(rows), self.engine.accumulate
        for micro in np.array_split(mine, parts) if parts > 1 else (mine,):
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
        for p, f in self.projections:
            self.engine.project(p, f)
        self.step_count += 1
        return total

    # --- state ------------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Checkpoint now. All ranks together."""
        self._saved_at = time.monotonic()
        if self.folder is None or self.step_count == 0:
            return
        mine = self.engine.state() if self.world.leads or self._sharded else None
        state = {
            "rows": self.rows,
            "step": self.step_count,
            "position": self.position,
            "loss_sum": self.world.sum(float(self.loss_sum)),
            "wall_s": self.wall_s,
            "layout": self._layout,
        }
        checkpoint.write(self.folder, self.epoch, state, mine, self.world)

    def _resume(self) -> None:
        found = checkpoint.read(self.folder, self.world, self.note) if self.folder is not None else None
        if found is None or found[0]["layout"] != self._layout:
            return
        state, tensors = found
        self.engine.load_state(tensors)
        self.rows, self.epoch, self.position = state["rows"], state["epoch"], state.get("position", 0)
        self.step_count, self.wall_s = state["step"], state["wall_s"]
        if self.world.leads:
            self.loss_sum += state.get("loss_sum", 0.0)
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
        """`model.safetensors` of the ended trial. All ranks together."""
        if self.folder is None:
            return
        with self.engine.whole() as vae:
            if self.world.leads:
                checkpoint.write_weights(self.folder, module_state(vae))

    def close(self) -> None:
        self.engine.close()
