"""One launch of Ray Tune over the trials that are left, and who may interrupt it: Ctrl-C and SIGTERM, people at other
terminals (`operate`), a Ray that is lost, another sweep that has taken OUT over."""

from __future__ import annotations

import importlib.util
import math
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from distvae import files
from distvae.operate import kept, ray_log
from distvae.operate.desk import NOT_TRAINING, Desk
from distvae.results import ledger
from distvae.results.provenance import git_sha
from distvae.store import s3
from distvae.store.errors import StoreError, UnwrittenError
from distvae.sweeps import cluster, head, measure, searching
from distvae.sweeps.book import Book
from distvae.sweeps.groups import most, partition
from distvae.sweeps.lock import OutLockedError
from distvae.sweeps.progress import Display
from distvae.sweeps.remaining import group_task
from distvae.sweeps.schedulers import HyperBand, recall
from distvae.sweeps.tree import ConfigError
from distvae.training import checkpoint
from distvae.training.halving import Halving
from distvae.trial import as_data

STOPPING, STOPPED, LATER = "stops within seconds", "is stopped", "stops when its turn comes"
RETRIES = 1  # a group that raises, or whose worker dies, gets one more go


class Driver:
    """Trains what `book` says is left."""

    def __init__(self, book: Book, shown: Display, address: str | None, desk: Desk):
        self.book, self.out, self.say = book, book.out, book.say
        self.shown, self.address, self.hold, self.draining = shown, address, desk.hold, desk.draining
        self.desk, desk.drain = desk, self.drain
        self.stopping: set[str] = set()  # trials that a person stops
        self.stops: Any = None  # the actor that tells the gangs whom a person stops

    def run(self, more: int = 0) -> None:
        """Train what is left, and as many suggestions `more`."""
        self.book.tracker.open()
        try:
            if self.book.tasks or more > 0 or self._unmeasured():
                with (
                    self._signals(),
                    ray_log.apart(self.out, self.say) as noise,
                    cluster.connect(self.address, self._cpus(), env=self._environment(), lost=self._headless) as ray,
                ):
                    noise.listen()
                    with head.watched(ray.local, self._headless):
                        if self.book.tasks or more > 0:
                            self._fit(ray)
                        self._measure(ray)
        finally:
            for key in list(self.book.progress.running):
                self.book.tracker.end(key, "interrupted")
            lost = self.book.tracker.close(60.0, "KILLED" if self.book.outcome.interrupted else "FINISHED")
            if lost:
                self.book.outcome.tracked = False
                self.book.outcome.notes.append(
                    f"MLflow did not take {lost} events in time; nothing is lost: `distvae sync {self.out}` brings them"
                )

    def _unmeasured(self) -> list[measure.Task]:
        return measure.tasks(self.out, self.book.study.trials, self.book.study.metrics)

    def _measure(self, ray: cluster.Cluster) -> None:
        """`metrics:` of what has ended; weights that were kept for them alone go."""
        todo = [] if self.draining.is_set() else self._unmeasured()
        if not todo:
            return
        measuring = self.shown.progress = measure.Measuring(len(todo))
        for line in measure.beginning(todo, self.book.study.metrics):
            self.say(line)

        def measured(task: measure.Task, rows: list[dict[str, Any]]) -> None:
            self.book.tracker.rows(task.trial.key, rows)
            if self.book.study.resources.keep == "none" and task.trial.key not in measuring.failed:
                checkpoint.prune(self.out / "checkpoints" / task.trial.key, "none")

        measure.run(
            ray,
            self.out,
            todo,
            self.book.study.resources,
            measuring,
            stop=self.draining,
            measured=measured,
            hold=self.hold,
        )
        self.book.outcome.notes += measure.told(self.out, measuring)
        self.book.outcome.unmeasured = len(measuring.failed)

    def _cpus(self) -> int | None:
        """HyperBand's paused groups would count against a number of groups at a time, so its cores are limited."""
        r, hyperband = self.book.study.resources, isinstance(self.book.study.search.scheduler, HyperBand)
        return min(cluster.cores(), r.concurrency * r.workers * r.threads) if r.concurrency and hyperband else None

    def _fit(self, ray: cluster.Cluster) -> None:
        from ray import tune
        from ray.tune.search import ConcurrencyLimiter

        from distvae.sweeps.gang import Gang
        from distvae.sweeps.handing import Groups
        from distvae.sweeps.watch import Drain, Watch

        if self.draining.is_set():
            return
        r, local = self.book.study.resources, ray.local
        per_trial = r.workers * r.threads
        if local and per_trial > max(1, cluster.cores()):
            raise ResourcesError(
                f"a trial needs {per_trial} cores (resources.workers {r.workers} x threads {r.threads}) and this machine "
                f"has {cluster.cores()}: lower them, or give --address of a larger Ray cluster"
            )
        concurrency = r.concurrency or (max(1, cluster.cores() // per_trial) if local else None)
        groups = partition(self.book.study, list(self.book.trials.values()), ray.slots(r))
        scheduler = self.book.study.search.scheduler
        self.book.progress.foreseen = isinstance(scheduler, Halving)
        self.book.progress.epochs = sum(g.epochs(self.book.study) for g in groups)
        if self.book.study.search.tuned and r.fuse != "off":
            self.say(
                f"{self.book.study.search.tuned} is Ray Tune's: one configuration at a time, not stacked (fuse: off)"
            )
        ahead = concurrency or max(16, math.ceil(1.1 * ray.cpus))
        if isinstance(scheduler, HyperBand):  # it pauses groups, and a bracket is made of those that have come
            concurrency, ahead = None, max(1, len(groups))
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(ahead)
        search: Any = Groups(group_task(g, self.book.tasks) for g in groups)
        if self.book.study.source is not None:
            search, concurrency = self._suggestions(), ray.slots(r)
        tuner = tune.Tuner(
            Gang,
            param_space={"job": self._job(local)},
            tune_config=tune.TuneConfig(
                reuse_actors=True,
                scheduler=self._scheduler(),
                search_alg=ConcurrencyLimiter(search, max_concurrent=concurrency) if concurrency else search,
                num_samples=-1,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(ray.scratch),
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # it saves to pause, and only then
                stop=Drain(self.draining),
                callbacks=[Watch(self.book, self.serve)],
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
        if refusal := getattr(search, "refusal", None):
            raise ConfigError([f"search.algorithm: {refusal}"])

    def _suggestions(self) -> Any:
        """Tune's searcher, if the study is a search."""
        from distvae.sweeps.suggest import Suggestions, optuna_search

        study, algorithm = self.book.study, self.book.study.search.algorithm
        assert study.source is not None and algorithm is not None
        configurations = searching.Configurations(study.source)
        inner, sampler = optuna_search(
            algorithm, study.search.seed, configurations, [v for _, v, _ in self.book.suggestions]
        )
        return Suggestions(
            algorithm,
            configurations,
            inner=inner,
            at=sampler.at,
            history=self.book.history,
            planned=self.book.planned,
            task=self.book.seeds,
            settle=self.book.settle,
            known=self.book.suggestions,
            skip=study.search.nonsense == "skip",
        )

    def _scheduler(self) -> Any:
        """Tune's own, if one decides; told of what ended in earlier runs."""
        part = self.book.study.search.scheduler
        if part is None or isinstance(part, Halving):
            return None
        trials = self.book.study.trials or (self.book.study.source.examples() if self.book.study.source else ())
        scheduler = part.build(max(t.train.epochs for t in trials))
        if not isinstance(part, HyperBand):
            past: dict[str, dict[str, Any]] = {}
            for t in self.book.study.trials:
                past.setdefault(t.config_key, {})[t.key] = (
                    None if t.key in self.book.tasks else ledger.history(self.out, t.key)
                )
            recall(scheduler, part.metric, [seeds for seeds in past.values() if None not in seeds.values()])
        return scheduler

    def _job(self, local: bool) -> dict[str, Any]:
        engine, r, scheduler = self.book.study.engine, self.book.study.resources, self.book.study.search.scheduler
        halving = isinstance(scheduler, Halving)
        if engine == "deepspeed" and local and importlib.util.find_spec("deepspeed") is None:
            engine = "torch"
            self.say("DeepSpeed is not installed here: trials are trained by engine: torch, with equal rows")
        return {
            "out": str(self.out),
            "sweep": self.book.study.name,
            "engine": engine,
            "deepspeed": self.book.study.deepspeed,
            "workers": r.workers,
            "threads": r.threads,
            "gpus": r.gpus,
            "checkpoint_s": r.checkpoint_s,
            "most": most(self.book.study),
            "keep": "weights" if r.keep == "none" and self.book.study.metrics else r.keep,
            "halving": as_data(scheduler) if halving else None,
            "metric": scheduler.metric if scheduler is not None and not halving else None,
            "local": local,
            "cwd": os.getcwd(),
            "lease": self.hold.number,
            "git_sha": git_sha(),
        }

    def drain(self, by: str) -> None:
        """As the first Ctrl-C does."""
        if not self.draining.is_set():
            self.book.outcome.interrupted, self.book.outcome.interrupted_by = True, f"distvae stop --all ({by})"
            self.draining.set()
            self.say(f"stopping, as {by} asked: running trials save and stop; the same command goes on from there")

    def serve(self) -> None:
        """Tune's loop comes by, ten times a second."""
        self.desk.serve(self.stop)

    def stop(self, keys: Sequence[str]) -> dict[str, str]:
        """Trials that a person stops: those that run end at their next report, those that wait end here."""
        from distvae.operate import stops

        left = [key for key in keys if key in self.book.tasks and key not in self.book.ended]
        if left:
            self.stopping |= set(left)  # those that wait too: their group may be starting now
            self.stops = stops.ask(self.stopping, self.stops)
        told = {key: "has ended already" if key in self.book.trials else "is not left to run" for key in keys}
        for key in left:
            told[key] = STOPPING if key in self.book.progress.running else LATER
            if key not in self.book.progress.running:
                try:
                    self.book.commit(key, "stopped", kept.rows(self.out, key), by="distvae stop")
                except Exception as e:  # its group, when its turn comes, stops it
                    if isinstance(e, UnwrittenError | StoreError | OutLockedError):
                        self.book.unwritten(e)
                    self.say(f"trial {key}: {type(e).__name__}: {e}")
                    continue
                told[key] = STOPPED
                self.book.tracker.start(self.book.trials[key])
                self.book.end(key, "stopped")
            self.say(f"trial {key} ({self.book.trials[key].label}) {told[key]}, as asked")
        return told

    def lost(self, why: str) -> None:
        """Another sweep has taken OUT over: nothing more is committed, and what runs stops."""
        self.draining.set()
        self.say(f"{why}: stopping, nothing more is committed")

    def _headless(self, why: str) -> None:
        """Ray is lost, and with it this process: Ray would end it in a minute, and calls into it do not return till then."""
        why = f"{why}: what is committed and saved stays; run the same command to go on"
        self.say(why)
        for key in list(self.book.progress.running):
            self.book.tracker.end(key, "interrupted")
        self.book.tracker.close(5.0, "KILLED")
        self.desk.leave(4, why)
        os._exit(4)  # the reaper ends the rest

    def _environment(self) -> dict[str, str]:
        """What workers on other nodes need to reach OUT."""
        return s3.environment() if files.is_remote(self.out) else {}

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
            self.book.outcome.interrupted = True
            self.say(
                "stopping: running trials save and stop; the same command goes on from there (Ctrl-C again: stop now)"
            )

        old = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for s, h in old.items():
                signal.signal(s, h)


class ResourcesError(Exception):
    """The machine or cluster cannot hold a trial (exit code 4)."""
