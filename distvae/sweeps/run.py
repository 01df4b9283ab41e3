"""The driver of a sweep: plan, skip what has ended, train the rest on Ray Tune, export.

The ledger decides what is left to do, never Tune: a trial with a committed end is not planned again, a failed one
always is. Tune schedules, places and retries groups of trials (`groups.py`); its own state is thrown away. The first
Ctrl-C (or SIGTERM) drains: running trials save and stop. A second one stops hard."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distvae.kernels import backend
from distvae.results import ledger, rows
from distvae.results.provenance import git_sha
from distvae.study import Study
from distvae.sweeps import cluster, overhead
from distvae.sweeps.groups import GroupPlan, partition
from distvae.sweeps.lock import hold_out
from distvae.sweeps.plan import write_plan
from distvae.sweeps.progress import Display, Progress
from distvae.trial import Trial, as_data

RETRIES = 1  # a group that raises, or whose worker dies, gets one more go


@dataclass
class Outcome:
    """How a sweep ended."""

    out: Path
    planned: int
    status: dict[str, str] = field(
        default_factory=dict
    )  # trial key -> finished | stopped | diverged | failed, of the plan
    interrupted: bool = False
    notes: list[str] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)  # trials that ended in this run
    first: tuple[float, float] | None = None  # `overhead.mark` when the first group started,
    last: tuple[float, float] | None = None  # and when the last trial ended

    def count(self, status: str) -> int:
        return sum(s == status for s in self.status.values())

    @property
    def exit_code(self) -> int:
        return 130 if self.interrupted else 3 if self.count("failed") else 0


def remaining(study: Study, ended: dict[str, Any]) -> list[tuple[Trial, dict[str, Any]]]:
    """The trials left to run, with their tasks: no end committed, a failed one, or one planned for more epochs than it
    has."""
    todo = []
    for trial in study.trials:
        past = ended.get(trial.key)
        if past is not None and past.status in ("diverged", "stopped"):
            continue
        if past is not None and past.status == "finished" and past.epoch >= trial.train.epochs:
            continue
        task = {
            "key": trial.key,
            "config_json": json.dumps(trial.config()),
            "attempt": 0 if past is None else past.attempt + 1,
            "committed_epoch": 0 if past is None else past.epoch,
        }
        todo.append((trial, task))
    return todo


def group_task(group: GroupPlan, tasks: dict[str, Any]) -> dict[str, Any]:
    """What a gang is handed: the tasks of a group's trials, by key, and how they are trained."""
    return {
        "id": group.trials[0].key,
        "members": [tasks[t.key] for t in group.trials],
        "stacked": group.stacked,
        "ended": [t.key for t in group.ended],
    }


def sweep(study: Study, out: Path, *, address: str | None = None, display: bool = True) -> Outcome:
    """Run (or resume) `study` into `out`. Idempotent: what has ended is never run again.

    Raises OutLockedError if another sweep owns `out`, KernelsUnavailable if DISTVAE_KERNELS asks for what is not here."""
    backend.require()
    with hold_out(out):
        ended, damaged = ledger.scan(out)
        write_plan(out, study, keep=set(ended))
        todo = remaining(study, ended)
        outcome = Outcome(out, len(study.trials))
        outcome.notes += damaged
        progress = Progress(total=len(study.trials), skipped=len(study.trials) - len(todo))
        progress.epochs = sum(t.train.epochs for t, _ in todo)
        with Display(progress, shown=display and bool(todo)) as shown:
            for line in damaged:
                shown.say(line)
            _Driver(study, out, todo, outcome, progress, shown.say, address).run()
        latest, _ = ledger.scan(out)
        outcome.status = {t.key: latest[t.key].status for t in study.trials if t.key in latest}
        return outcome


class _Driver:
    """One launch of Tune over the trials that are left."""

    def __init__(
        self,
        study: Study,
        out: Path,
        todo: list[tuple[Trial, dict[str, Any]]],
        outcome: Outcome,
        progress: Progress,
        say: Callable[[str], None],
        address: str | None,
    ):
        self.study, self.out, self.outcome = study, out.absolute(), outcome
        self.progress, self.say, self.address = progress, say, address
        self.trials = {t.key: t for t, _ in todo}
        self.tasks = {task["key"]: task for _, task in todo}
        self.ended: set[str] = set()  # trials whose end we heard of
        self.draining = threading.Event()
        self.tracker = self._tracker()

    def run(self) -> None:
        self.tracker.open()
        try:
            if self.tasks:
                with self._signals(), cluster.connect(self.address) as ray:
                    self._fit(ray)
        finally:
            for key in list(self.progress.running):
                self.tracker.end(key, "interrupted")
            lost = self.tracker.close(60.0, "KILLED" if self.outcome.interrupted else "FINISHED")
            if lost:
                self.outcome.notes.append(
                    f"MLflow did not take {lost} events; nothing is lost: run `distvae sync {self.out}` when it is back"
                )

    def _fit(self, ray: cluster.Cluster) -> None:
        from ray import tune

        from distvae.sweeps.gang import Gang, placement
        from distvae.sweeps.watch import Drain, Watch

        if self.draining.is_set():
            return
        r, local = self.study.resources, ray.local
        per_trial = r.workers * r.threads
        if local and per_trial > max(1, cluster.cores()):
            raise ResourcesError(
                f"a trial needs {per_trial} cores (resources.workers {r.workers} x threads {r.threads}) and this machine "
                f"has {cluster.cores()}: lower them, or give --address of a larger Ray cluster"
            )
        concurrency = r.concurrency or (max(1, cluster.cores() // per_trial) if local else None)
        groups = partition(self.study, list(self.trials.values()), ray.slots(r))
        scheduler = self.study.search.scheduler
        self.progress.foreseen = scheduler is not None and scheduler.type == "halving"
        self.progress.epochs = sum(g.epochs(self.study) for g in groups)
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(concurrency or "auto")
        tuner = tune.Tuner(
            tune.with_resources(Gang, placement(r.workers, r.threads, r.gpus)),
            param_space={
                "job": self._job(local),
                "task": tune.grid_search([group_task(g, self.tasks) for g in groups]),
            },
            tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=concurrency),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(ray.scratch),
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                stop=Drain(self.draining),
                callbacks=[Watch(self)],
                verbose=0,
                log_to_file=False,
            ),
        )
        tuner.fit()

    def _job(self, local: bool) -> dict[str, Any]:
        engine, r, scheduler = self.study.engine, self.study.resources, self.study.search.scheduler
        if engine == "deepspeed" and local and importlib.util.find_spec("deepspeed") is None:
            engine = "torch"
            self.say("DeepSpeed is not installed here: trials are trained by engine: torch, with equal rows")
        return {
            "out": str(self.out),
            "sweep": self.study.name,
            "engine": engine,
            "deepspeed": self.study.deepspeed,
            "workers": r.workers,
            "threads": r.threads,
            "gpus": r.gpus,
            "checkpoint_s": r.checkpoint_s,
            "keep": r.keep,
            "halving": as_data(scheduler) if scheduler is not None and scheduler.type == "halving" else None,
            "local": local,
            "cwd": os.getcwd(),
            "git_sha": git_sha(),
        }

    # --- what Tune tells us -----------------------------------------------------------------------------------------

    def started(self, task: dict[str, Any]) -> None:
        self.outcome.first = self.outcome.first or overhead.mark()
        for key in self._left(task):
            self.progress.running.setdefault(key, (0, self.trials[key].train.epochs))
            self.tracker.start(self.trials[key])

    def reported(self, result: dict[str, Any]) -> None:
        for note in result["notes"]:
            if note not in self.outcome.notes:
                self.outcome.notes.append(note)
                self.say(note)
        for key, told in result["trials"].items():
            trial = self.trials[key]
            if key in self.ended:  # its process died before it could say that it had
                continue
            self.progress.report(key, told["epoch"], trial.train.epochs, told["rows"], trial.label)
            self.tracker.rows(key, told["rows"])
            if told["raised"] and told["status"] != "failed":
                self._again(key)
            if told["status"] is not None:
                self._end(key, told["status"])

    def retried(self, task: dict[str, Any]) -> None:
        left = self._left(task)
        if len(left) == 1:
            self._again(left[0])
        elif left:
            one_by_one = f"the {len(left)} trials of the group of {left[0]} are tried again, one by one"
            self.say(f"{one_by_one}: see {self.out / 'logs' / left[0]}.jsonl")

    def failed(self, task: dict[str, Any]) -> None:
        """Tune gave the group up after its retry: the ends that are not committed are committed here, for its process
        may be dead."""
        from distvae.sweeps.rank import log

        for key in self._left(task):
            trial, attempt = self.trials[key], self.tasks[key]["attempt"]
            committed = ledger.end(self.out, key, attempt)
            if committed is None:
                log(self.out, key, event="failed", attempt=attempt)
                sweep, sha = self.study.name, git_sha()
                table = rows.table(trial, [], sweep=sweep, status="failed", attempt=attempt, device="", git_sha=sha)
                ledger.commit(self.out, table)
            self._end(key, committed.status if committed else "failed")

    def _left(self, task: dict[str, Any]) -> list[str]:
        return [m["key"] for m in task["members"] if m["key"] not in self.ended]

    def _again(self, key: str) -> None:
        self.say(f"trial {key} ({self.trials[key].label}) is tried again: see {self.out / 'logs' / key}.jsonl")

    def _end(self, key: str, status: str) -> None:
        self.ended.add(key)
        self.outcome.ran.append(key)
        self.outcome.last = overhead.mark()
        self.progress.end(key, status)
        self.tracker.end(key, status)
        if status == "failed":
            label, log = self.trials[key].label, self.out / "logs" / f"{key}.jsonl"
            self.say(f"trial {key} ({label}) failed twice: see {log}; the sweep goes on")

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """First SIGINT or SIGTERM: drain. Second: stop now."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(signum: int, frame: Any) -> None:
            if self.draining.is_set():
                os._exit(130)  # the reaper ends the rest
            self.draining.set()
            self.outcome.interrupted = True
            self.say(
                "stopping: running trials save and stop; the same command goes on from there (Ctrl-C again: stop now)"
            )

        old = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for s, h in old.items():
                signal.signal(s, h)

    def _tracker(self) -> Any:
        from distvae.results.tracking import Tracker

        return Tracker(
            self.study.tracking.uri,
            out=self.out,
            sweep=self.study.name,
            resolved=self.study.resolved,
            log=self.say,
        )


class ResourcesError(Exception):
    """The machine or cluster cannot hold a trial (exit code 4)."""
