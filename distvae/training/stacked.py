"""One stack in training: K trials, their optimizer, their engine, and the step that moves them all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from distvae.batch import Batch, Noise
from distvae.training.engine import eager
from distvae.training.evaluate import Examples
from distvae.training.graphs import Inputs, Recorded
from distvae.training.group import Setting
from distvae.training.loop import make_engine
from distvae.training.stack import OneTrial, PerTrial, Stack, padded
from distvae.training.stack_optimizer import StackOptimizer
from distvae.trial import Trial

Slots = dict[str, Tensor]  # optimizer state of one trial, `<parameter>.<name>`


class Stacked:
    """The trials `keys`, from the state of their own models `ones` and optimizers `slots`."""

    def __init__(
        self,
        keys: tuple[str, ...],
        trials: Sequence[Trial],
        ones: Sequence[OneTrial],
        slots: Sequence[Slots],
        examples: Examples,
        dataset: int,
        setting: Setting,
    ):
        self.keys, self.trials, self.examples, self.dataset = keys, trials, examples, dataset
        self.device = setting.world.device
        self.stack = Stack(trials, ones)
        self.optimizer = eager(StackOptimizer)(self.stack.learning, [t.train for t in trials])
        for k, mine in enumerate(slots):
            self._load(k, mine)
        self.seeds = torch.tensor([t.seed for t in trials], dtype=torch.int64, device=self.device)
        train, block = trials[0].train, setting.deepspeed
        self.engine = make_engine(setting.engine, self.stack, train, setting.world, block, self.optimizer)
        self.records = self.device != "cpu" and setting.engine == "torch"  # DeepSpeed's step waits for the host
        self.recorded: dict[int, Recorded] = {}  # by batch size

    def step(self, rows: Tensor, step: int) -> Tensor:
        """Optimizer step number `step` on rows of the training examples. Returns the summed losses `[K]`, nats."""
        recorded = self.recorded.get(len(rows))
        if recorded is None:
            inputs = Inputs(len(rows), len(self.keys), self.trials[0].dtype, self.device)
            recorded = self.recorded[len(rows)] = Recorded(inputs, self._run)
        lr = [t.train.lr * t.train.lr_schedule(step) for t in self.trials]
        factor, warm = zip(*((t.objective.factor(step), t.objective.warm(step)) for t in self.trials), strict=True)
        recorded.inputs.fill(rows, step, factor, warm, lr)
        self.optimizer.lr = list(recorded.inputs.lr.unbind(0)) if self.records else lr
        return recorded() if self.records else self._run(recorded.inputs)

    def _run(self, inputs: Inputs) -> Tensor:
        """The step itself: reads nothing but `inputs`, weights and data."""
        n, trial = len(inputs.rows), self.trials[0]
        x, y, ids = self.examples.at(inputs.rows, trial.dtype, inputs.step)
        noise, samples = Noise(0, inputs.step, ids), trial.train.samples
        batch = Batch(x=x, y=y, noise=noise, total=n, samples=samples, dataset=self.dataset)
        losses = self.stack.losses(batch, PerTrial(self.seeds, inputs.factor, inputs.warm), trial.objective.draw)
        self.engine.backward((losses * (1.0 / n)).sum())
        self.engine.step(0.0)
        self.stack.project(self.engine)
        return losses.detach().double()

    def slots(self, k: int) -> Slots:
        """The optimizer state of slot k, as that of the trial alone."""
        found: Slots = {}
        for i, name in enumerate(self.stack.learns):
            for slot, values in self.optimizer.slots.items():
                if slot != "momentum_buffer" or self.trials[k].train.momentum:
                    found[f"{i}.{slot}"] = self.stack.narrow(k, name, values[i].detach()).cpu().contiguous().clone()
            if self.optimizer.kind != "sgd":
                found[f"{i}.step"] = self.optimizer.steps[i][k].detach().cpu().clone()
        return found

    def _load(self, k: int, slots: Slots) -> None:
        for i, name in enumerate(self.stack.learns):
            for slot, values in self.optimizer.slots.items():
                if (value := slots.get(f"{i}.{slot}")) is not None:
                    values[i][k].copy_(padded(value.to(self.device), self.stack.wide[name]))
            if (step := slots.get(f"{i}.step")) is not None:
                self.optimizer.steps[i][k] = step.to(self.device)

    def close(self) -> None:
        self.engine.close()
