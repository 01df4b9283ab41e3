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

from distvae.data import load as load_data
from distvae.kernels import philox
from distvae.training import checkpoint, memory
from distvae.training.engine import load_module_state, module_state
from distvae.training.evaluate import Evaluator, Examples, joined
from distvae.training.group import Setting, State
from distvae.training.loop import HALF
from distvae.training.stack import OneTrial
from distvae.training.stacked import Stacked
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
        self.began = False
        self.stacks: dict[tuple[str, ...], Stacked] = {}
        if self.device == "cpu":
            memory.keep()

    # --- training ---------------------------------------------------------------------------------------------------

    def turn(self, behind: Sequence[str]) -> Sequence[str]:
        return behind[: self.setting.most]

    def train(self, keys: Sequence[str], until: float) -> bool:
        stacked, states = self._form(tuple(keys)), [self.states[k] for k in keys]
        first, n = states[0].trial, len(self.data)
        size, position = first.train.batch_size, states[0].position
        order = philox.permutation(first.data.seed, n, step=states[0].epoch)
        rows = torch.from_numpy(order).to(self.device).split(size)
        total = torch.tensor([s.loss_sum for s in states], dtype=torch.float64, device=self.device)
        stacked.stack.train()
        while position < len(rows):
            try:
                total += self.step_on(stacked, rows[position])
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

    def step_on(self, stacked: Stacked, rows: Tensor) -> Tensor:
        """One optimizer step of a stack on one batch. Returns its trials' summed losses `[K]`, nats."""
        states = [self.states[k] for k in stacked.keys]
        losses = stacked.step(rows, states[0].step)
        for s in states:
            s.step += 1
        return losses

    def _form(self, keys: tuple[str, ...]) -> Stacked:
        """The stack of `keys`. Others that hold one of them are written back first."""
        if keys not in self.stacks:
            for other in [o for o in self.stacks if set(o) & set(keys)]:
                self._dissolve(other)
            trials, ones = [self.states[k].trial for k in keys], [self.ones[k] for k in keys]
            slots = [self.slots.pop(k, {}) for k in keys]
            self.stacks[keys] = Stacked(keys, trials, ones, slots, self.examples, len(self.data), self.setting)
        return self.stacks[keys]

    def _dissolve(self, keys: tuple[str, ...]) -> None:
        stacked = self.stacks.pop(keys)
        for slot, key in enumerate(keys):
            if key in self.ones:
                stacked.stack.write_back(slot, self.ones[key])
                self.slots[key] = stacked.slots(slot)
        stacked.close()

    def _where(self, key: str) -> tuple[Stacked, int] | None:
        """The stack that holds a trial, and its slot."""
        return next(((s, keys.index(key)) for keys, s in self.stacks.items() if key in keys), None)

    # --- evaluation -------------------------------------------------------------------------------------------------

    def evaluate(self, keys: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        stacked = self.stacks.get(tuple(keys))
        measured = {} if stacked is None else self._measured(stacked)
        rows = {}
        for key in keys:
            self._pull(key)
            s = self.states[key]
            rows[key] = self.evaluators[key].rows(epoch=s.epoch, step=s.step, measured=measured.get(key))
            if found := self._where(key):
                found[0].stack.read_buffers(found[1], self.ones[key])
        return rows

    def _measured(self, stacked: Stacked) -> dict[str, dict[str, Measured]]:
        """Every split of every trial, measured together; nothing where trials must be measured one by one."""
        stack, one = stacked.stack, self.evaluators[stacked.keys[0]]
        if one.trial.vae.likelihood.calibrated or len(one.trial.objective.grid()) > 1:
            return {}
        found: dict[str, dict[str, Measured]] = {key: {} for key in stacked.keys}
        size = max(1, one.chunk // len(stack))
        stack.eval()
        for name, split in one.splits.items():
            chunks = np.split(np.arange(len(split)), range(size, len(split), size))
            parts = [stack.measure(one.batch(name, rows, None), stacked.seeds) for rows in chunks]
            for slot, key in enumerate(stacked.keys):
                found[key][name] = joined([stack.measured(slot, m) for m in parts])
        return found

    def _pull(self, key: str) -> None:
        """The trial's own model as its stack has it."""
        if found := self._where(key):
            stacked, slot = found
            stacked.stack.write_back(slot, self.ones[key])

    # --- state ------------------------------------------------------------------------------------------------------

    def save(self, key: str) -> None:
        s = self.states[key]
        folder = self.setting.of(s.trial)
        if folder is None or s.step == 0:
            return
        self._pull(key)
        found = self._where(key)
        slots = found[0].slots(found[1]) if found else self.slots.get(key, {})
        tensors = module_state(self.ones[key].vae) | {f"optimizer.{n}": t for n, t in slots.items()}
        state = {"rows": s.rows, "step": s.step, "wall_s": s.wall_s, "layout": LAYOUT}
        state |= {"position": s.position, "loss_sum": s.loss_sum}
        checkpoint.write(folder, s.epoch, state, tensors, self.setting.world)

    def _resume(self, trial: Trial) -> None:
        folder = self.setting.of(trial)
        note = self.setting.note
        found = checkpoint.read(folder, self.setting.world, note) if folder is not None else None
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
        for stacked in self.stacks.values():
            stacked.close()
        self.stacks = {}
        if self.device == "cpu":
            memory.give_back()
