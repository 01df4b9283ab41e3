"""A group: trials that train together in one process, and in lockstep where there are several, so that their order of
examples is shared and halving can compare them at the same epoch. Those that fit are stacked (`fused.py`), the others
take turns (`Serial`). A member's rows, checkpoint and end are its own, and do not depend on who trained beside it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from distvae.training.halving import Halving
from distvae.training.loop import Report, Runner
from distvae.training.pace import Pace
from distvae.training.world import World
from distvae.trial import Trial


@dataclass(frozen=True)
class Setting:
    """How the trials of a sweep are trained: nothing of it changes their numbers."""

    world: World = field(default_factory=World)
    engine: str = "torch"
    deepspeed: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None  # OUT/checkpoints; None keeps nothing
    checkpoint_s: float = 30.0
    most: int = 64  # trials in a stack
    note: Callable[[str], None] = print  # what the user should know
    failed: Callable[[str, Exception], None] | None = None  # told of a member's exception, which else is raised

    def runner(self, trial: Trial) -> Runner:
        return Runner(
            trial,
            world=self.world,
            engine=self.engine,
            deepspeed=self.deepspeed,
            folder=self.of(trial),
            checkpoint_s=self.checkpoint_s,
            note=self.note,
        )

    def of(self, trial: Trial) -> Path | None:
        """The trial's checkpoint folder."""
        return None if self.folder is None else self.folder / trial.key


@dataclass(frozen=True)
class Ended:
    """A member of the plan's group that has ended earlier: halving ranks it still."""

    config_key: str
    status: str
    rows: Sequence[Mapping[str, Any]]


class Group(Protocol):
    """What trains a group."""

    def advance(self, seconds: float = math.inf, *, once: bool = False) -> dict[str, Report]:
        """Train for about `seconds`, or until any is evaluated `once`; what is new, by trial key."""
        ...

    def rows(self, key: str) -> list[dict[str, Any]]:
        """Every row of a member so far."""
        ...

    def stop(self, key: str) -> None:
        """A member ends where it is, with the rows it has: the next `advance` reports it."""
        ...

    def at(self, key: str) -> tuple[int, int]:
        """Where a member stands: epochs done, and optimizer steps done in the next."""
        ...

    def save(self, key: str | None = None) -> None:
        """Checkpoint one member, or all that have not ended."""
        ...

    def write_weights(self, key: str) -> None: ...

    def drop(self, key: str) -> None:
        """Forget a member that has ended."""
        ...

    def close(self) -> None: ...


def open_group(
    trials: Sequence[Trial],
    setting: Setting,
    *,
    stacked: bool = False,
    halving: Halving | None = None,
    ended: Sequence[Ended] = (),
) -> Group:
    """`stacked`: as one model with a trial axis (they must be of one `Trial.fusion_group`); where that turns out to be
    impossible they take turns, and the setting's note says why."""
    if len(trials) == 1 and halving is None:
        return Alone(trials[0], setting)
    if stacked:
        from distvae.training.fused import Fused

        return Lockstep(trials, Fused(trials, setting), setting, halving, ended)
    return Lockstep(trials, Serial(trials, setting), setting, halving, ended)


class Alone:
    """A trial by itself, on any number of workers. What it raises is raised."""

    def __init__(self, trial: Trial, setting: Setting):
        self.key, self.runner = trial.key, setting.runner(trial)

    def advance(self, seconds: float = math.inf, *, once: bool = False) -> dict[str, Report]:
        return {self.key: self.runner.advance(seconds, once=once)}

    def rows(self, key: str) -> list[dict[str, Any]]:
        return self.runner.rows

    def stop(self, key: str) -> None:
        self.runner.status = self.runner.status or "stopped"

    def at(self, key: str) -> tuple[int, int]:
        return self.runner.epoch, self.runner.position

    def save(self, key: str | None = None) -> None:
        self.runner.save()

    def write_weights(self, key: str) -> None:
        self.runner.write_weights()

    def drop(self, key: str) -> None:
        pass

    def close(self) -> None:
        self.runner.close()


@dataclass
class State:
    """Where a member stands."""

    trial: Trial
    epoch: int = 0
    position: int = 0  # optimizer steps into the next epoch
    step: int = 0
    loss_sum: float = 0.0  # over the examples of that epoch so far
    wall_s: float = 0.0  # of a group, its share
    rows: list[dict[str, Any]] = field(default_factory=list)
    status: str | None = None

    @property
    def at(self) -> tuple[int, int]:
        return self.epoch, self.position


class Trainer(Protocol):
    """What a `Lockstep` drives. It holds the weights of every member that has not ended."""

    states: dict[str, State]

    def turn(self, behind: Sequence[str]) -> Sequence[str]:
        """Which of the members furthest behind train next."""
        ...

    def train(self, keys: Sequence[str], until: float) -> bool:
        """Train them to the end of their epoch (True) or until `time.monotonic()` passes `until` (False), moving their
        `epoch`, `position`, `step`, `loss_sum`."""
        ...

    def evaluate(self, keys: Sequence[str]) -> dict[str, list[dict[str, Any]]]: ...

    def save(self, key: str) -> None: ...

    def write_weights(self, key: str) -> None: ...

    def drop(self, key: str) -> None:
        """Forget a member that has ended."""
        ...

    def close(self) -> None: ...


class Lockstep:
    """Members of a group, epoch by epoch: those furthest behind first, so that all meet at every rung."""

    def __init__(
        self,
        trials: Sequence[Trial],
        trainer: Trainer,
        setting: Setting,
        halving: Halving | None,
        ended: Sequence[Ended],
    ):
        self.trainer, self.setting, self.halving, self.ended = trainer, setting, halving, ended
        self.states = trainer.states
        self.rungs = halving.rungs(trials[0].train.epochs) if halving else []
        self.decided: set[int] = set()
        self.told: set[str] = set()  # members whose end was reported
        self._saved_at = time.monotonic()

    def advance(self, seconds: float = math.inf, *, once: bool = False) -> dict[str, Report]:
        news: dict[str, Report] = {}
        until = time.monotonic() + seconds
        self._halve()
        while alive := self._alive():
            first = min(self.states[k].at for k in alive)
            keys = list(self.trainer.turn([k for k in alive if self.states[k].at == first]))
            began = time.monotonic()
            whole = self._train(keys, until)
            if whole is None:
                continue
            self._share(keys, began)
            if whole:
                self._epoch_ended(keys, news)
                self._halve()
            evaluated = once and any(report.rows for report in news.values())
            if evaluated or self.setting.world.broadcast(time.monotonic() - until) >= 0:
                break
        for key, s in self.states.items():
            if key not in self.told:
                report = news.setdefault(key, Report())
                report.epoch, report.status = s.epoch, s.status
                self.told |= {key} if s.status else set()
        if self.setting.world.broadcast(time.monotonic() - self._saved_at) >= self.setting.checkpoint_s:
            self.save()
        return news

    def _train(self, keys: Sequence[str], until: float) -> bool | None:
        """None: the stack cannot be, and its trials take turns from here."""
        from distvae.training.fused import CannotStackError

        try:
            return self.trainer.train(keys, until)
        except CannotStackError as e:
            trials = [self.states[k].trial for k in self.states]
            self.setting.note(f"{len(trials)} trials cannot be stacked ({e}): they are trained one after the other")
            self.trainer.close()
            self.trainer = Serial(trials, self.setting)
            self.states = self.trainer.states
            return None

    def _alive(self) -> list[str]:
        return [k for k, s in self.states.items() if s.status is None]

    def _share(self, keys: Sequence[str], began: float) -> None:
        for key in keys:
            self.states[key].wall_s += (time.monotonic() - began) / len(keys)

    def _epoch_ended(self, keys: Sequence[str], news: dict[str, Report]) -> None:
        due = []
        for key in keys:
            s = self.states[key]
            loss = s.loss_sum
            report = news.setdefault(key, Report())
            report.loss, s.loss_sum = loss, 0.0
            if not math.isfinite(loss):
                s.status = "diverged"
            elif s.epoch >= s.trial.train.epochs or s.epoch % s.trial.evaluate.every == 0 or s.epoch in self.rungs:
                due.append(key)
        began = time.monotonic()
        measured = self.trainer.evaluate(due) if due else {}
        self._share(due, began)
        for key, rows in measured.items():
            s, report = self.states[key], news[key]
            rows = [{**r, "wall_s": s.wall_s} for r in rows]
            s.rows += rows
            report.rows += rows
            if not all(math.isfinite(r["objective"]) for r in rows):
                s.status = "diverged"
            elif s.epoch >= s.trial.train.epochs:
                s.status = "finished"

    # --- halving ----------------------------------------------------------------------------------------------------

    def _halve(self) -> None:
        """Decide every rung that all living members have reached."""
        alive = self._alive()
        for rung in self.rungs if alive else []:
            if rung in self.decided or any(self.states[k].epoch < rung for k in alive):
                continue
            self.decided.add(rung)
            assert self.halving is not None
            stops = self.halving.stops(self._scores(rung))
            for key in alive:
                if self.states[key].epoch == rung and self.states[key].trial.config_key in stops:
                    self.states[key].status = "stopped"

    def _scores(self, rung: int) -> dict[str, list[float]]:
        """What every configuration's seeds scored at a rung; those of which none reached it are left out."""
        scores: dict[str, list[float]] = {}
        members = [(s.trial.config_key, s.rows, s.status) for s in self.states.values()]
        for config, rows, status in [*members, *((e.config_key, e.rows, e.status) for e in self.ended)]:
            assert self.halving is not None
            score = self.halving.score(rows, rung)
            if score is None and status == "diverged":
                score = math.nan
            if score is not None:
                scores.setdefault(config, []).append(score)
        return {c: some for c, some in scores.items() if not all(map(math.isnan, some))}

    # --- state ------------------------------------------------------------------------------------------------------

    def rows(self, key: str) -> list[dict[str, Any]]:
        return self.states[key].rows

    def stop(self, key: str) -> None:
        self.states[key].status = self.states[key].status or "stopped"

    def at(self, key: str) -> tuple[int, int]:
        return self.states[key].at

    def save(self, key: str | None = None) -> None:
        self._saved_at = time.monotonic()
        for one in self._alive() if key is None else [key]:
            self.trainer.save(one)

    def write_weights(self, key: str) -> None:
        self.trainer.write_weights(key)

    def drop(self, key: str) -> None:
        self.trainer.drop(key)

    def close(self) -> None:
        self.trainer.close()


class Serial:
    """Members that take turns, each with an engine of its own. What one raises is its own: it goes on from its checkpoint,
    and fails the second time; the others go on."""

    def __init__(self, trials: Sequence[Trial], setting: Setting):
        self.setting = setting
        self.runners: dict[str, Runner] = {}
        self.states = {t.key: State(t) for t in trials}
        self.raised: set[str] = set()
        for key in self.states:
            self._open(key)

    def turn(self, behind: Sequence[str]) -> Sequence[str]:
        return behind[:1]

    def train(self, keys: Sequence[str], until: float) -> bool:
        (key,) = keys
        with self._by_itself(key):
            runner, state = self.runners[key], self.states[key]
            loss = runner.train_epoch(Pace(self.setting.world, until - time.monotonic()))
            state.epoch, state.position, state.step = runner.epoch, runner.position, runner.step_count
            if loss is not None:
                state.loss_sum = math.nan if runner.status == "diverged" else loss
            return loss is not None
        return False

    def evaluate(self, keys: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        measured = {}
        for key in keys:
            with self._by_itself(key):
                measured[key] = self.runners[key].evaluate()
        return measured

    def save(self, key: str) -> None:
        with self._by_itself(key):
            runner, state = self.runners[key], self.states[key]
            runner.rows, runner.wall_s = list(state.rows), state.wall_s
            runner.save()

    def write_weights(self, key: str) -> None:
        self.runners[key].write_weights()

    def drop(self, key: str) -> None:
        if key in self.runners:
            self.runners.pop(key).close()

    def close(self) -> None:
        for key in list(self.runners):
            self.drop(key)

    def _open(self, key: str) -> None:
        """From the member's checkpoint, if there is one."""
        self.drop(key)
        with self._by_itself(key):
            runner = self.runners[key] = self.setting.runner(self.states[key].trial)
            self.states[key] = State(
                runner.trial,
                epoch=runner.epoch,
                position=runner.position,
                step=runner.step_count,
                wall_s=runner.wall_s,
                rows=list(runner.rows),
                status=runner.status,
            )

    @contextmanager
    def _by_itself(self, key: str) -> Iterator[None]:
        try:
            yield
        except Exception as e:
            if self.setting.failed is None or self.states[key].status or _of_the_process(e):
                raise
            self.setting.failed(key, e)
            if key in self.raised:
                self.states[key].status = "failed"
            else:
                self.raised.add(key)
                self._open(key)


def _of_the_process(e: Exception) -> bool:
    """After an error of the device, all that the process does on it raises."""
    return isinstance(e, getattr(torch, "AcceleratorError", ())) or "CUDA error" in str(e)
