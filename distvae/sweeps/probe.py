"""One rank of a probe: a process as the sweep's workers are (engine, threads, priority, imports), that opens a group,
trains a few steps, evaluates and commits a trial to a scratch folder, and says what each took.

Protocol: a JSON line in (first the job, then a group each), a JSON line out (rank 0: measurements, all: "ready")."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from distvae.sweeps import memory

WARM, LEAST = 1, 2  # steps before the clock starts, and the fewest that are timed
SHORT_S, LONG_S = 0.15, 1.0  # seconds of steps
AGAIN_S = 0.05  # an evaluation shorter than this is taken twice: the first pays for what is made once
NICENESS = "RAY_worker_niceness"
ROWS = 4096  # of a split that are evaluated; the time is scaled to all


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A group on one worker. Seconds by the clock, `cpu` of this process's processor time."""

    stacked: bool
    why: str | None  # a stack turned out to be impossible
    members: int  # trained together: 1 where they take turns
    data_s: float  # to load the data, the first time
    open_s: float  # to make the models and engine, one step included
    open_cpu_s: float
    step_s: float  # an optimizer step of all members
    step_cpu_s: float
    evaluate_s: float  # a whole evaluation of all members
    evaluate_cpu_s: float
    commit_s: float  # to commit one trial
    steps: int  # timed
    timed_s: float  # opening, steps and evaluation, as they were timed
    timed_cpu_s: float
    idle_bytes: int  # of the worker and its data before the group
    memory_bytes: int  # that the group adds
    gpu_bytes: int


def measure(trials: list[Any], stacked: bool, setting: Any, out: Path, keep: str, steps_s: float) -> Measured:
    """Open, train and evaluate the group of `trials`. All ranks together."""
    from distvae.data import load as load_data

    device = setting.world.device
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    load_data(trials[0].data)
    data_s = time.perf_counter() - began
    memory.reset_peak()
    before, began = memory.resident(), _now()
    trainer, keys, why = _opened(trials, stacked, setting)
    _wait(device)
    opened = _since(began)
    try:
        for _ in range(WARM):
            trainer.train(keys, 0.0)
        _wait(device)
        steps, trained = _steps(trainer, keys, setting.world, min(LONG_S, max(SHORT_S, steps_s)))
        whole, evaluated, rows = _evaluation(trainer, keys, device)
        commit_s = _commit(trainer, trials[0], rows[keys[0]], out, keep) if setting.world.leads else 0.0
        gpu = torch.cuda.max_memory_allocated() if device.startswith("cuda") else 0
        return Measured(
            stacked=stacked and why is None,
            why=why,
            members=len(keys),
            data_s=data_s,
            open_s=opened[0],
            open_cpu_s=opened[1],
            step_s=trained[0] / steps,
            step_cpu_s=trained[1] / steps,
            evaluate_s=evaluated[0] * whole,
            evaluate_cpu_s=evaluated[1] * whole,
            commit_s=commit_s,
            steps=steps,
            timed_s=opened[0] + trained[0] + evaluated[0],
            timed_cpu_s=opened[1] + trained[1] + evaluated[1],
            idle_bytes=before,
            memory_bytes=max(0, memory.peak() - before),
            gpu_bytes=gpu,
        )
    finally:
        trainer.close()


def _opened(trials: list[Any], stacked: bool, setting: Any) -> tuple[Any, list[str], str | None]:
    """(what trains it, one step done; who trains at a time; why it is not stacked, if it was to be)."""
    from distvae.training.fused import CannotStackError, Fused
    from distvae.training.group import Serial

    why = None
    if stacked:
        trainer = Fused(trials, setting)
        keys = list(trainer.turn([t.key for t in trials]))
        try:
            trainer.train(keys, 0.0)
            return trainer, keys, None
        except CannotStackError as e:
            why = str(e)
            trainer.close()
    trainer, keys = Serial(trials[:1], setting), [trials[0].key]
    trainer.train(keys, 0.0)
    return trainer, keys, why


def _now() -> tuple[float, float]:
    """(the clock, processor time of this process), s."""
    return time.perf_counter(), time.process_time()


def _since(began: tuple[float, float]) -> tuple[float, float]:
    clock, cpu = _now()
    return clock - began[0], cpu - began[1]


def _steps(trainer: Any, keys: list[str], world: Any, seconds: float) -> tuple[int, tuple[float, float]]:
    """(steps timed, what they took)."""
    state = trainer.states[keys[0]]
    first, began, until = state.step, _now(), time.monotonic() + seconds
    while True:
        trainer.train(keys, until)
        done = trainer.states[keys[0]].step - first
        if world.broadcast(until - time.monotonic() if done >= LEAST else 1.0) <= 0:
            break
    _wait(world.device)
    return done, _since(began)


def _evaluation(
    trainer: Any, keys: list[str], device: str
) -> tuple[float, tuple[float, float], dict[str, list[dict[str, Any]]]]:
    """(how many times as long a whole one is, what this one took, the rows of the members)."""
    evaluators = _evaluators(trainer)
    whole = sum(map(len, evaluators[0].splits.values()))
    for e in evaluators:
        e.splits = {name: s.first(ROWS) for name, s in e.splits.items()}
    part = sum(map(len, evaluators[0].splits.values()))
    for _ in range(2):
        began = _now()
        rows = trainer.evaluate(keys)
        _wait(device)
        took = _since(began)
        if took[0] > AGAIN_S:
            break
    return whole / part, took, rows


def _evaluators(trainer: Any) -> list[Any]:
    return (
        list(trainer.evaluators.values())
        if hasattr(trainer, "evaluators")
        else [r.evaluator for r in trainer.runners.values()]
    )


def _commit(trainer: Any, trial: Any, measured: list[dict[str, Any]], out: Path, keep: str) -> float:
    """Seconds to commit the end of one trial, as `Rank` does."""
    from distvae.results import ledger, rows
    from distvae.training import checkpoint

    began = time.perf_counter()
    if keep == "all":
        trainer.save(trial.key)
    if keep != "none":
        trainer.write_weights(trial.key)
    table = rows.table(trial, measured, sweep="probe", status="finished", attempt=0, device="", git_sha="")
    ledger.path(out, trial.key, 0).unlink(missing_ok=True)
    ledger.commit(out, table)
    checkpoint.prune(out / "checkpoints" / trial.key, keep)
    return time.perf_counter() - began


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize()


# --- the process -----------------------------------------------------------------------------------------------------


class Worker:
    """A rank. `job`: rank, size, port, threads, gpus, engine, deepspeed, most, keep, out."""

    def __init__(self, job: dict[str, Any]):
        import torch
        import torch.distributed as dist

        from distvae.training.group import Setting
        from distvae.training.world import meet

        torch.set_num_threads(job["threads"])
        size, engine, store = job["size"], job["engine"], None
        if size > 1:
            os.environ["GLOO_SOCKET_IFNAME"] = "lo"
            store = dist.TCPStore("127.0.0.1", job["port"], size, is_master=False)
        world = meet(job["rank"], size, device="cuda" if job["gpus"] else "cpu", store=store)
        if engine == "deepspeed":
            try:
                from distvae.training.deepspeed_engine import import_deepspeed

                import_deepspeed()
            except Exception:
                engine = "torch"
        import distvae.results.ledger
        import distvae.training.fused  # noqa: F401

        self.job, self.out = job, Path(job["out"])
        self.setting = Setting(
            world=world,
            engine=engine,
            deepspeed=job["deepspeed"],
            folder=self.out / "checkpoints",
            most=job["most"],
            note=_ignore,
        )
        self.first_s = 0.0  # what the first group costs more than the same group the second time
        self.warm = False
        self.ready = {"engine": engine, "memory_bytes": memory.resident()}

    def answer(self, task: dict[str, Any]) -> dict[str, Any]:
        from distvae.sweeps.plan import trial_from_json

        trials = [trial_from_json(text) for text in task["trials"]]
        try:
            first = None if self.warm else self._measure(trials, {**task, "steps_s": 0.0})
            found = self._measure(trials, task)
        except Exception as e:
            return {"error": f"{type(e).__name__}: {str(e).strip().splitlines()[0][:200] if str(e) else ''}"}
        if first is not None:
            self.warm = True
            gc.freeze()  # what is imported by now: else every `reset_peak` goes through it, 0.3 s
            self.first_s = max(0.0, first.open_s + first.commit_s - found.open_s - found.commit_s)
            return {**asdict(found), "data_s": first.data_s, "first_s": self.first_s}
        return {**asdict(found), "first_s": self.first_s}

    def _measure(self, trials: list[Any], task: dict[str, Any]) -> Measured:
        return measure(trials, task["stacked"], self.setting, self.out, self.job["keep"], task["steps_s"])


def _ignore(note: str) -> None:
    pass


def serve(lines: IO[str], answers: IO[str]) -> None:
    """Answer every line, the first by a Worker that is ready."""
    worker = Worker(json.loads(next(lines)))
    print(json.dumps(worker.ready), file=answers, flush=True)
    for line in lines:
        print(json.dumps(worker.answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    with contextlib.suppress(OSError, AttributeError):
        os.nice(int(os.environ.get(NICENESS, "15")))  # as Ray's workers are
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    sys.stdout = sys.stderr
    serve(sys.stdin, answers)
