"""Trials trained as one stacked model on one device: one stream of batches, K of everything else.

The order of the examples and dynamic binarisation are the data's, the same for all; noise, initial weights, schedules,
learning rates, clipping, checkpoints, rows and ends are each trial's own. A trial gives the numbers it gives alone: the
tests hold it to that, whatever its slot and K. Whoever ends leaves the stack, and the others go on unchanged."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distvae.batch import Batch, Noise
from distvae.data import load as load_data
from distvae.kernels import philox
from distvae.training import checkpoint, memory
from distvae.training.engine import eager, load_module_state, module_state
from distvae.training.evaluate import Evaluator, Examples, joined
from distvae.training.graphs import Inputs, Recorded
from distvae.training.group import Setting, State
from distvae.training.loop import HALF, make_engine
from distvae.training.stack import OneTrial, PerTrial, Stack, padded
from distvae.training.stack_optimizer import StackOptimizer
from distvae.trial import Trial
from distvae.vae import Measured, Vae

LAYOUT = "replicated"  # of a checkpoint's optimizer state: that of a trial trained alone


class CannotStackError(Exception):
    """The trials cannot be trained as one model; nothing has been trained yet."""


def _why(e: RuntimeError) -> str:
    what = "not enough memory" if isinstance(e, torch.OutOfMemoryError) else f"{type(e).__name__}"
    return f"{what}: {str(e).strip().splitlines()[0][:200]}"


class Fused:
    """The trainer of a group that is stacked (`group.Trainer`)."""

    def __init__(self, trials: Sequence[Trial], setting: Setting):
        self.setting, self.device = setting, setting.world.device
        data = load_data(trials[0].data)
        self.data, splits = data.train, data.splits()
        self.states = {t.key: State(t) for t in trials}
        self.ones: dict[str, OneTrial] = {}
        self.slots: dict[str, dict[str, Tensor]] = {}  # optimizer state by `<parameter>.<name>`, of who is not stacked
        for t in trials:
            vae = Vae(t.vae, data.x_shape, seed=t.seed, dtype=t.dtype).to(self.device)
            vae.lean = vae.sampled and t.objective.lean
            vae.autocast = HALF.get(t.train.dtype)
            self.ones[t.key] = OneTrial(vae, t.objective.build().to(self.device, t.dtype))
            self._resume(t)
        first = trials[0]
        shared: dict[str, Examples] = {}
        self.evaluators = {
            t.key: Evaluator(t, self.ones[t.key].vae, self.ones[t.key].objective, splits, setting.world, shared)
            for t in trials
        }
        whole = first.evaluate.train_examples >= len(data.train)
        self.examples = shared["train"] if whole else Examples(first, data.train, self.device)
        self.records = (
            self.device.startswith("cuda") and setting.engine == "torch"
        )  # DeepSpeed's step waits for the host
        self.recorded: dict[int, Recorded] = {}  # by batch size
        self.began = False
        if self.device == "cpu":
            memory.keep()
        self.stack: Stack | None = None
        self.stacked: tuple[str, ...] = ()

    # --- training ---------------------------------------------------------------------------------------------------

    def turn(self, behind: Sequence[str]) -> Sequence[str]:
        return behind

    def train(self, keys: Sequence[str], until: float) -> bool:
        self._form(tuple(keys))
        states = [self.states[k] for k in keys]
        first, n = states[0].trial, len(self.data)
        size, position = first.train.batch_size, states[0].position
        order = philox.permutation(first.data.seed, n, step=states[0].epoch)
        batches = np.split(order, range(size, n, size))
        rows = [torch.from_numpy(b).to(self.device) for b in batches]
        total = torch.tensor([s.loss_sum for s in states], dtype=torch.float64, device=self.device)
        assert self.stack is not None
        self.stack.train()
        while position < len(rows):
            try:
                total += self.step_on(rows[position])
            except RuntimeError as e:
                if self.began:
                    raise
                raise CannotStackError(_why(e)) from e
            self.began = True
            position += 1
            if time.monotonic() >= until and position < len(rows):
                break
        ended = position == len(rows)
        for s, loss in zip(states, total.tolist(), strict=True):
            s.position, s.loss_sum, s.epoch = (0, loss / n, s.epoch + 1) if ended else (position, loss, s.epoch)
        return ended

    def step_on(self, rows: Tensor) -> Tensor:
        """One optimizer step of every stacked trial on one batch. Returns their summed losses `[K]`, nats."""
        states = [self.states[k] for k in self.stacked]
        step, parts = states[0].step, [s.trial for s in states]
        recorded = self.recorded.get(len(rows))
        if recorded is None:
            inputs = Inputs(len(rows), len(parts), parts[0].dtype, self.device)
            recorded = self.recorded[len(rows)] = Recorded(inputs, self._run)
        recorded.inputs.fill(
            rows,
            step,
            [t.objective.factor(step) for t in parts],
            [t.objective.warm(step) for t in parts],
            [t.train.lr * t.train.lr_schedule(step) for t in parts],
        )
        losses = recorded() if self.records else self._run(recorded.inputs)
        for s in states:
            s.step += 1
        return losses

    def _run(self, inputs: Inputs) -> Tensor:
        """The step itself: reads nothing but `inputs`, weights and data."""
        stack, n = self.stack, len(inputs.rows)
        assert stack is not None
        trial = stack.trials[0]
        x, y, ids = self.examples.at(inputs.rows, trial.dtype, inputs.step)
        batch = Batch(
            x=x, y=y, noise=Noise(0, inputs.step, ids), total=n, samples=trial.train.samples, dataset=len(self.data)
        )
        each = PerTrial(self.seeds, inputs.factor, inputs.warm)
        losses = stack.losses(batch, each, trial.objective.draw)
        self.optimizer.lr = list(inputs.lr.unbind(0)) if self.records else inputs.lr.tolist()
        self.engine.backward((losses * (1.0 / n)).sum())
        self.engine.step(0.0)
        stack.project(self.engine)
        return losses.detach().double()

    # --- the stack --------------------------------------------------------------------------------------------------

    def _form(self, keys: tuple[str, ...]) -> None:
        """Make `keys` the stack: who left is written back, who is new comes in."""
        if keys == self.stacked:
            return
        self._dissolve()
        trials = [self.states[k].trial for k in keys]
        self.stack, self.stacked, self.recorded = Stack(trials, [self.ones[k] for k in keys]), keys, {}
        self.optimizer = eager(StackOptimizer)(self.stack.learning, [t.train for t in trials])
        for slot, key in enumerate(keys):
            self._load_slot(slot, self.slots.pop(key, {}))
        seeds = [t.seed for t in trials]
        self.seeds = torch.tensor(seeds, dtype=torch.int64, device=self.device)
        block = self.setting.deepspeed
        self.engine = make_engine(
            self.setting.engine, self.stack, trials[0].train, self.setting.world, block, self.optimizer
        )

    def _dissolve(self) -> None:
        if self.stack is None:
            return
        for slot, key in enumerate(self.stacked):
            if key in self.ones:
                self.stack.write_back(slot, self.ones[key])
                self.slots[key] = self._slot(slot)
        self.engine.close()
        self.stack, self.stacked = None, ()

    def _slot(self, k: int) -> dict[str, Tensor]:
        """The optimizer state of slot k, as that of the trial alone: `<parameter>.<name>`."""
        assert self.stack is not None
        train, found = self.stack.trials[k].train, {}
        for i, name in enumerate(self.stack.learns):
            for slot, values in self.optimizer.slots.items():
                if slot != "momentum_buffer" or train.momentum:
                    found[f"{i}.{slot}"] = self.stack.narrow(k, name, values[i].detach()).cpu().contiguous().clone()
            if self.optimizer.kind != "sgd":
                found[f"{i}.step"] = self.optimizer.steps[i][k].detach().cpu().clone()
        return found

    def _load_slot(self, k: int, slots: dict[str, Tensor]) -> None:
        assert self.stack is not None
        for i, name in enumerate(self.stack.learns):
            for slot, values in self.optimizer.slots.items():
                if (value := slots.get(f"{i}.{slot}")) is not None:
                    values[i][k].copy_(padded(value, self.stack.wide[name]))
            if (step := slots.get(f"{i}.step")) is not None:
                self.optimizer.steps[i][k] = step.to(self.device)

    # --- evaluation -------------------------------------------------------------------------------------------------

    def evaluate(self, keys: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        measured, rows = self._measured(keys), {}
        for key in keys:
            self._pull(key)
            s = self.states[key]
            rows[key] = self.evaluators[key].rows(epoch=s.epoch, step=s.step, measured=measured.get(key))
        return rows

    def _measured(self, keys: Sequence[str]) -> dict[str, dict[str, Measured]]:
        """Every split of every trial, measured together; nothing where trials must be measured one by one."""
        stack, one = self.stack, self.evaluators[keys[0]]
        trial = one.trial
        if stack is None or trial.vae.likelihood.calibrated or len(trial.objective.grid()) > 1:
            return {}
        found: dict[str, dict[str, Measured]] = {key: {} for key in keys}
        size = max(1, one.chunk // len(stack))
        stack.eval()
        for name, split in one.splits.items():
            parts = []
            for start in range(0, len(split), size):
                rows = np.arange(start, min(start + size, len(split)))
                parts.append(stack.measure(one.batch(name, rows, None), self.seeds))
            for key in keys:
                slot = self.stacked.index(key)
                found[key][name] = joined([stack.measured(slot, m) for m in parts])
        return found

    def _pull(self, key: str) -> None:
        """The trial's own model as the stack has it."""
        if self.stack is not None and key in self.stacked:
            self.stack.write_back(self.stacked.index(key), self.ones[key])

    # --- state ------------------------------------------------------------------------------------------------------

    def save(self, key: str) -> None:
        s = self.states[key]
        folder = self.setting.of(s.trial)
        if folder is None or s.step == 0:
            return
        self._pull(key)
        slots = self._slot(self.stacked.index(key)) if key in self.stacked else self.slots.get(key, {})
        tensors = module_state(self.ones[key].vae) | {f"optimizer.{n}": t for n, t in slots.items()}
        state = {"rows": s.rows, "step": s.step, "wall_s": s.wall_s, "layout": LAYOUT}
        state |= {"position": s.position, "loss_sum": s.loss_sum}
        checkpoint.write(folder, s.epoch, state, tensors, self.setting.world)

    def _resume(self, trial: Trial) -> None:
        folder = self.setting.of(trial)
        found = checkpoint.read(folder, self.setting.world) if folder is not None else None
        if found is None or found[0]["layout"] != LAYOUT:
            return
        state, tensors = found
        load_module_state(self.ones[trial.key].vae, tensors)
        self.slots[trial.key] = {
            n.removeprefix("optimizer."): t for n, t in tensors.items() if n.startswith("optimizer.")
        }
        s = self.states[trial.key]
        s.rows, s.epoch, s.step, s.wall_s = state["rows"], state["epoch"], state["step"], state["wall_s"]
        s.position, s.loss_sum = state.get("position", 0), state.get("loss_sum", 0.0)
        if s.epoch >= trial.train.epochs:
            s.status = "finished"

    def write_weights(self, key: str) -> None:
        folder = self.setting.of(self.states[key].trial)
        if folder is not None:
            self._pull(key)
            checkpoint.write_weights(folder, module_state(self.ones[key].vae))

    def drop(self, key: str) -> None:
        del self.ones[key], self.evaluators[key]
        self.slots.pop(key, None)

    def close(self) -> None:
        if self.stack is not None:
            self.engine.close()
        self.stack, self.stacked = None, ()
        if self.device == "cpu":
            memory.give_back()
