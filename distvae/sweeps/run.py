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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distvae import files
from distvae.kernels import backend
from distvae.operate import again, console, kept, ray_log, verdict
from distvae.operate.desk import NOT_TRAINING, Desk
from distvae.results import ledger, rows
from distvae.results.provenance import git_sha
from distvae.store import s3
from distvae.store.errors import StoreError, UnwrittenError
from distvae.study import Study
from distvae.sweeps import cluster, head, measure, overhead, searching
from distvae.sweeps.groups import GroupPlan, most, partition
from distvae.sweeps.lock import OutLockedError, hold_out
from distvae.sweeps.plan import write_plan
from distvae.sweeps.progress import Display, Progress
from distvae.sweeps.schedulers import HyperBand, recall
from distvae.sweeps.tree import ConfigError
from distvae.training import checkpoint
from distvae.training.halving import Halving
from distvae.trial import Trial, as_data

STOPPING, STOPPED, LATER = "stops within seconds", "is stopped", "stops when its turn comes"
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
    interrupted_by: str = "Ctrl-C or a signal"
    left: int = 0  # trials of the plan that have neither ended for good nor failed
    unasked: int = 0  # suggestions that a search had still to make
    notes: list[str] = field(default_factory=list)
    unmeasured: int = 0  # trials of which a metric could not be measured: it raised
    ran: list[str] = field(default_factory=list)  # trials that ended in this run
    unwritten: str = ""  # why OUT could not be written; what had not been committed by then is run by the next launch
    tracked: bool = True  # did MLflow take everything?
    first: tuple[float, float] | None = None  # `overhead.mark` when the first group started,
    last: tuple[float, float] | None = None  # and when the last trial ended

    def count(self, status: str) -> int:
        return sum(s == status for s in self.status.values())

    @property
    def exit_code(self) -> int:
        return verdict.exit_code(self)


def is_over(trial: Trial, status: str, epoch: int) -> bool:
    """Is a trial whose last attempt ended so never run again?"""
    return status in ("diverged", "stopped") or (status == "finished" and epoch >= trial.train.epochs)


def remaining(
    study: Study, ended: dict[str, Any], again: Mapping[str, int] | None = None
) -> list[tuple[Trial, dict[str, Any]]]:
    """The trials left to run, with their tasks: no end committed, a failed one, one planned for more epochs than it has, or
    one whose attempts up to `again[key]` do not count."""
    todo = []
    for trial in study.trials:
        past = ended.get(trial.key)
        counts = past is not None and past.attempt > (again or {}).get(trial.key, -1)
        if past is not None and counts and is_over(trial, past.status, past.epoch):
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


def sweep(
    study: Study,
    out: Path,
    *,
    address: str | None = None,
    display: bool = True,
    closing: Callable[[Outcome], None] = lambda outcome: None,
) -> Outcome:
    """Run (or resume) `study` into `out`. Idempotent: what has ended is never run again. `closing` is called at the end,
    while OUT is still ours.

    Raises OutLockedError if another sweep owns `out`, KernelsUnavailable if DISTVAE_KERNELS asks for what is not here."""
    backend.require()
    with hold_out(out) as hold:
        ended, damaged = ledger.scan(out)
        marked = again.read(out)
        suggestions = searching.known(out, searching.Configurations(study.source)) if study.source else []
        if study.source:
            study = replace(study, trials=searching.distinct(suggestions))
        write_plan(out, study, keep=set(ended), suggested=searching.by_config(suggestions))
        todo = remaining(study, ended, marked)
        more = study.search.algorithm.trials - len(suggestions) if study.search.algorithm else 0
        outcome = Outcome(out, len(study.trials))
        outcome.notes += damaged
        progress = Progress(total=len(study.trials), skipped=len(study.trials) - len(todo))
        progress.epochs = sum(t.train.epochs for t, _ in todo)
        busy = bool(todo) or more > 0 or bool(measure.tasks(out, study.trials, study.metrics))
        console.begin(out)
        shown = Display(progress, shown=display and busy, record=lambda line: console.tell(out, line))
        with Desk(out, study.name, progress, shown, hold) as desk:
            with shown:
                for line in damaged:
                    shown.say(line)
                driver = _Driver(study, out, todo, outcome, progress, shown, address, desk)
                driver.past, driver.suggestions = ended, suggestions
                hold.when_lost(driver.lost)
                try:
                    driver.run(more)
                except Exception:
                    hold.check()  # who woke up to a Ray that has given everything up need not read of that
                    raise
            if outcome.unwritten and files.is_remote(out) and not hold.is_lost:
                raise StoreError(outcome.unwritten)  # what is left to do here would only wait for it, minutes
            hold.check()
            study = driver.study
            outcome.planned = len(study.trials)
            latest, _ = ledger.scan(out)
            outcome.status = {t.key: latest[t.key].status for t in study.trials if t.key in latest}
            left = [t for t, _ in remaining(study, latest, marked) if outcome.status.get(t.key) != "failed"]
            outcome.left = len(left)
            if study.search.algorithm:
                outcome.unasked = max(0, study.search.algorithm.trials - len(driver.suggestions))
            desk.phase = "exporting"
            closing(outcome)
            desk.close(outcome.exit_code, verdict.why(outcome))
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
        shown: Display,
        address: str | None,
        desk: Desk,
    ):
        self.study, self.out, self.outcome = study, out.absolute(), outcome
        self.progress, self.shown, self.say, self.address = progress, shown, shown.say, address
        self.trials = {t.key: t for t, _ in todo}
        self.tasks = {task["key"]: task for _, task in todo}
        self.ended: set[str] = set()  # trials whose end we heard of
        self.rows: dict[str, dict[Any, dict[str, Any]]] = {}  # of those that Tune's scheduler may stop
        self.device = ""
        self.past: dict[str, Any] = {}  # key -> how it ended before this run
        self.suggestions: list[searching.Known] = []
        self.hold = desk.hold
        self.draining = desk.draining
        self.desk, desk.drain = desk, self.drain
        self.stopping: set[str] = set()  # trials that a person stops
        self.stops: Any = None  # the actor that tells the gangs whom a person stops
        self.tracker = self._tracker()

    def run(self, more: int = 0) -> None:
        """Train what is left, and as many suggestions `more`."""
        self.tracker.open()
        try:
            if self.tasks or more > 0 or self._unmeasured():
                with (
                    self._signals(),
                    ray_log.apart(self.out, self.say) as noise,
                    cluster.connect(self.address, self._cpus(), env=self._environment()) as ray,
                ):
                    noise.listen()
                    with head.watched(ray.local, self._headless):
                        if self.tasks or more > 0:
                            self._fit(ray)
                        self._measure(ray)
        finally:
            for key in list(self.progress.running):
                self.tracker.end(key, "interrupted")
            lost = self.tracker.close(60.0, "KILLED" if self.outcome.interrupted else "FINISHED")
            if lost:
                self.outcome.tracked = False
                self.outcome.notes.append(
                    f"MLflow did not take {lost} events; nothing is lost: run `distvae sync {self.out}` when it is back"
                )

    def _unmeasured(self) -> list[measure.Task]:
        return measure.tasks(self.out, self.study.trials, self.study.metrics)

    def _measure(self, ray: cluster.Cluster) -> None:
        """`metrics:` of what has ended; weights that were kept for them alone go."""
        todo = [] if self.draining.is_set() else self._unmeasured()
        if not todo:
            return
        measuring = self.shown.progress = measure.Measuring(len(todo))
        for line in measure.beginning(todo, self.study.metrics):
            self.say(line)

        def measured(task: measure.Task, rows: list[dict[str, Any]]) -> None:
            self.tracker.rows(task.trial.key, rows)
            if self.study.resources.keep == "none" and task.trial.key not in measuring.failed:
                checkpoint.prune(self.out / "checkpoints" / task.trial.key, "none")

        measure.run(
            ray, self.out, todo, self.study.resources, measuring, stop=self.draining, measured=measured, hold=self.hold
        )
        self.outcome.notes += measure.told(self.out, measuring)
        self.outcome.unmeasured = len(measuring.failed)

    def _cpus(self) -> int | None:
        """HyperBand's paused groups would count against a number of groups at a time, so its cores are limited."""
        r, hyperband = self.study.resources, isinstance(self.study.search.scheduler, HyperBand)
        return min(cluster.cores(), r.concurrency * r.workers * r.threads) if r.concurrency and hyperband else None

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
        self.progress.foreseen = isinstance(scheduler, Halving)
        self.progress.epochs = sum(g.epochs(self.study) for g in groups)
        if self.study.search.tuned and r.fuse != "off":
            self.say(f"{self.study.search.tuned} is Ray Tune's: one configuration at a time, not stacked (fuse: off)")
        ahead = concurrency
        if isinstance(scheduler, HyperBand):  # it pauses groups, and a bracket is made of those that have come
            concurrency, ahead = None, len(groups)
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(ahead or "auto")
        space: dict[str, Any] = {"job": self._job(local)}
        config = tune.TuneConfig(reuse_actors=True, scheduler=self._scheduler())
        suggests = self._search(ray.slots(r)) if self.study.source else None
        if suggests is None:
            space["task"] = tune.grid_search([group_task(g, self.tasks) for g in groups])
            config.max_concurrent_trials = concurrency
        else:
            config.search_alg, config.num_samples = suggests, -1
        tuner = tune.Tuner(
            tune.with_resources(Gang, placement(r.workers, r.threads, r.gpus)),
            param_space=space,
            tune_config=config,
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(ray.scratch),
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # it saves to pause, and only then
                stop=Drain(self.draining),
                callbacks=[Watch(self)],
                verbose=0,
                log_to_file=False,
            ),
        )
        self.desk.phase, self.desk.serving = "training", True
        try:
            tuner.fit()
        finally:
            self.desk.serving, self.stops = False, None
            self.desk.serve(lambda keys: dict.fromkeys(keys, NOT_TRAINING))
        if suggests is not None and suggests.searcher.refusal is not None:
            raise ConfigError([f"search.algorithm: {suggests.searcher.refusal}"])

    def _search(self, concurrency: int) -> Any:
        """Tune's searcher: so many configurations at a time."""
        from ray.tune.search import ConcurrencyLimiter

        from distvae.sweeps.suggest import Suggestions, optuna_search

        study, algorithm = self.study, self.study.search.algorithm
        assert study.source is not None and algorithm is not None
        configurations = searching.Configurations(study.source)
        inner, sampler = optuna_search(
            algorithm, study.search.seed, configurations, [v for _, v, _ in self.suggestions]
        )
        search = Suggestions(
            algorithm,
            configurations,
            inner=inner,
            at=sampler.at,
            history=self._history,
            planned=self._planned,
            task=self._seeds,
            settle=self._settle,
            known=self.suggestions,
            skip=study.search.nonsense == "skip",
        )
        return ConcurrencyLimiter(search, max_concurrent=concurrency)

    def _history(self, trial: Trial) -> ledger.History | None:
        """Of a trial that is never run again."""
        if trial.key in self.tasks and trial.key not in self.ended:
            return None
        found = ledger.history(self.out, trial.key)
        last = max((r["epoch"] for r in found.rows), default=0) if found else 0
        return found if found and is_over(trial, found.status, last) else None

    def _planned(self, number: int, values: Mapping[str, Any], trials: Sequence[Trial]) -> None:
        """A new suggestion: into the plan before anything else."""
        self.suggestions.append((number, values, trials))
        before = {t.key for t in self.study.trials}
        self.study = replace(self.study, trials=searching.distinct(self.suggestions))
        write_plan(self.out, self.study, keep=set(self.past), suggested=searching.by_config(self.suggestions))
        new = remaining(replace(self.study, trials=tuple(t for t in trials if t.key not in before)), self.past)
        self.trials |= {t.key: t for t, _ in new}
        self.tasks |= {task["key"]: task for _, task in new}
        self.progress.total = len(self.study.trials)
        self.progress.skipped += len(self.study.trials) - len(before) - len(new)
        self.progress.epochs += sum(t.train.epochs for t, _ in new)

    def _seeds(self, trials: Sequence[Trial]) -> dict[str, Any]:
        left = tuple(t for t in trials if t.key in self.tasks and t.key not in self.ended)
        return group_task(GroupPlan(left, False, None, tuple(t for t in trials if t not in left)), self.tasks)

    def _settle(self, trials: Sequence[Trial]) -> None:
        self.completed({"members": [self.tasks[t.key] for t in trials if t.key in self.tasks]})

    def _scheduler(self) -> Any:
        """Tune's own, if one decides; told of what ended in earlier runs."""
        part = self.study.search.scheduler
        if part is None or isinstance(part, Halving):
            return None
        trials = self.study.trials or (self.study.source.examples() if self.study.source else ())
        scheduler = part.build(max(t.train.epochs for t in trials))
        if not isinstance(part, HyperBand):
            past: dict[str, dict[str, Any]] = {}
            for t in self.study.trials:
                past.setdefault(t.config_key, {})[t.key] = (
                    None if t.key in self.tasks else ledger.history(self.out, t.key)
                )
            recall(scheduler, part.metric, [seeds for seeds in past.values() if None not in seeds.values()])
        return scheduler

    def _job(self, local: bool) -> dict[str, Any]:
        engine, r, scheduler = self.study.engine, self.study.resources, self.study.search.scheduler
        halving = isinstance(scheduler, Halving)
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
            "most": most(self.study),
            "keep": "weights" if r.keep == "none" and self.study.metrics else r.keep,
            "halving": as_data(scheduler) if halving else None,
            "metric": scheduler.metric if scheduler is not None and not halving else None,
            "local": local,
            "cwd": os.getcwd(),
            "lease": self.hold.number,
            "git_sha": git_sha(),
        }

    # --- what Tune tells us -----------------------------------------------------------------------------------------

    def started(self, task: dict[str, Any]) -> None:
        self.outcome.first = self.outcome.first or overhead.mark()
        for key in self._left(task):
            self.progress.running.setdefault(key, (0, self.trials[key].train.epochs))
            self.tracker.start(self.trials[key])

    def reported(self, result: dict[str, Any]) -> None:
        if why := result.get("unwritten"):
            self._unwritten(why)
        if why := result.get("lost"):
            self.hold.lose(why)
        for note in result["notes"]:
            if note not in self.outcome.notes:
                self.outcome.notes.append(note)
                self.say(note)
        for key, told in result["trials"].items():
            trial = self.trials[key]
            if key in self.ended:  # its process died before it could say that it had
                continue
            self.device = result.get("device", self.device)
            if self.study.search.tuned:
                self.rows.setdefault(key, {}).update({(r["epoch"], r["split"], r["point"]): r for r in told["rows"]})
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

    def completed(self, task: dict[str, Any]) -> None:
        """Tune is done with the group: its trials have ended, or save because we drain, or else its scheduler stopped
        them: then their ends are committed here, and the gang finds them in the ledger."""
        for key in () if self.draining.is_set() else self._left(task):
            try:
                self._commit(key, "stopped", list(self.rows.get(key, {}).values()))
                checkpoint.prune(self.out / "checkpoints" / key, self.study.resources.keep)
            except (UnwrittenError, StoreError, OutLockedError) as e:
                self._unwritten(e)
                continue
            self._end(key, "stopped")

    def failed(self, task: dict[str, Any]) -> None:
        """Tune gave the group up after its retry: the ends that are not committed are committed here, for its process
        may be dead."""
        for key in self._left(task):
            try:
                committed = ledger.end(self.out, key, self.tasks[key]["attempt"])
                if committed is None:
                    self._commit(key, "failed", [])
            except (UnwrittenError, StoreError, OutLockedError) as e:
                self._unwritten(e)
                continue
            self._end(key, committed.status if committed else "failed")

    def _commit(self, key: str, status: str, measured: list[dict[str, Any]], **more: str) -> None:
        """Of what has no process to commit it, or one that does not know of its end."""
        from distvae.sweeps.rank import log

        self.hold.check()
        task = self.tasks[key]
        table = rows.table(
            self.trials[key],
            [r for r in measured if r["epoch"] > task["committed_epoch"]],
            sweep=self.study.name,
            status=status,
            attempt=task["attempt"],
            device=self.device if measured else "",
            git_sha=git_sha(),
        )
        ledger.commit(self.out, table)
        log(self.out, key, event="end", status=status, attempt=task["attempt"], **more)

    def drain(self, by: str) -> None:
        """As the first Ctrl-C does."""
        if not self.draining.is_set():
            self.outcome.interrupted, self.outcome.interrupted_by = True, f"distvae stop --all ({by})"
            self.draining.set()
            self.say(f"stopping, as {by} asked: running trials save and stop; the same command goes on from there")

    def serve(self) -> None:
        """Tune's loop comes by, ten times a second."""
        self.desk.serve(self.stop)

    def stop(self, keys: Sequence[str]) -> dict[str, str]:
        """Trials that a person stops: those that run end at their next report, those that wait end here."""
        from distvae.operate import stops

        left = [key for key in keys if key in self.tasks and key not in self.ended]
        if left:
            self.stopping |= set(left)  # those that wait too: their group may be starting now
            self.stops = stops.ask(self.stopping, self.stops)
        told = {key: "has ended already" if key in self.trials else "is not left to run" for key in keys}
        for key in left:
            told[key] = STOPPING if key in self.progress.running else LATER
            if key not in self.progress.running:
                try:
                    self._commit(key, "stopped", kept.rows(self.out, key), by="distvae stop")
                except Exception as e:  # its group, when its turn comes, stops it
                    if isinstance(e, UnwrittenError | StoreError | OutLockedError):
                        self._unwritten(e)
                    self.say(f"trial {key}: {type(e).__name__}: {e}")
                    continue
                told[key] = STOPPED
                self.tracker.start(self.trials[key])
                self._end(key, "stopped")
            self.say(f"trial {key} ({self.trials[key].label}) {told[key]}, as asked")
        return told

    def lost(self, why: str) -> None:
        """Another sweep has taken OUT over: nothing more is committed, and what runs stops."""
        self.draining.set()
        self.say(f"{why}: stopping, nothing more is committed")

    def _unwritten(self, why: str | Exception) -> None:
        """OUT cannot be written. What runs saves if it can, and stops: it could commit nothing."""
        self.draining.set()
        if isinstance(why, OutLockedError):
            self.hold.lose(str(why))
        elif not self.outcome.unwritten:
            if files.is_remote(self.out):
                s3.give_up()
            stays = "" if "what is committed stays" in str(why) else " (what is committed stays)"
            self.outcome.unwritten = f"{why}{stays}"
            self.say(f"{why}{stays}; stopping")

    def _headless(self, why: str) -> None:
        """Ray is lost, and with it this process: Ray would end it in a minute, and calls into it do not return till then."""
        why = f"{why}: what is committed and saved stays; run the same command to go on"
        self.say(why)
        for key in list(self.progress.running):
            self.tracker.end(key, "interrupted")
        self.tracker.close(5.0, "KILLED")
        self.desk.leave(4, why)
        os._exit(4)  # the reaper ends the rest

    def _environment(self) -> dict[str, str]:
        """What workers on other nodes need to reach OUT."""
        return s3.environment() if files.is_remote(self.out) else {}

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
