"""Measuring trials that have ended, from their kept weights: at a sweep's end (`metrics:` in its YAML) and by
`distvae eval`. One Ray task a trial; what has been measured is not measured again, and what an interruption cuts off is
measured by the next run."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distvae import files
from distvae.results import ledger, measurements
from distvae.store.errors import StoreError, UnwrittenError
from distvae.store.lease import OutLockedError
from distvae.sweeps.progress import duration
from distvae.trial import Trial

if TYPE_CHECKING:
    from distvae.metrics.menu import Metric
    from distvae.study import Resources, Study
    from distvae.sweeps.cluster import Cluster
    from distvae.sweeps.lock import Hold


@dataclass(frozen=True)
class Task:
    """One trial to measure, at its last epoch."""

    trial: Trial
    epoch: int
    step: int
    metrics: tuple[Metric, ...]


@dataclass
class Measuring:
    """How far it is, as `Display` shows it, and how it ended."""

    total: int
    ended: int = 0
    began: float = field(default_factory=time.monotonic)
    failed: dict[str, str] = field(default_factory=dict)  # trial key -> what it raised, in a line
    why: dict[str, int] = field(default_factory=dict)  # why a value is null -> of how many trials

    def eta_s(self) -> float | None:
        return (time.monotonic() - self.began) * (self.total - self.ended) / self.ended if self.ended else None

    def line(self) -> str:
        eta = self.eta_s()
        told = f"{self.ended}/{self.total} measured" + (f" · {len(self.failed)} failed" if self.failed else "")
        return f"{told} · ETA {duration(eta) if eta is not None else '...'}"

    def details(self) -> list[str]:
        return []


def beginning(todo: Sequence[Task], metrics: Sequence[Metric]) -> list[str]:
    """Lines for a person before it starts: `measuring iw_nll, fid of 12 trials`, and what a first use does."""
    firsts: dict[str, list[str]] = {}
    for m in metrics:
        if what := m.first():
            firsts.setdefault(what, []).append(m.type)
    return [
        f"measuring {', '.join(m.type for m in metrics)} of {len(todo)} trials",
        *(f"the first use of {', '.join(types)} {what}" for what, types in firsts.items()),
    ]


def tasks(out: Path, trials: Sequence[Trial], metrics: Sequence[Metric], *, again: bool = False) -> list[Task]:
    """What is left to measure: of trials that finished, or were stopped, whose weights are kept."""
    if not metrics:
        return []
    ended, _ = ledger.scan(out, mend=False)
    table = ledger.load(out, {t.key for t in trials}).select(["trial_key", "epoch", "step", "split", "n_examples"])
    splits: dict[str, set[str]] = {}
    steps: dict[str, int] = {}
    for row in table.to_pylist():
        past = ended.get(row["trial_key"])
        if past is not None and row["epoch"] == past.epoch and row["n_examples"]:
            splits.setdefault(row["trial_key"], set()).add(row["split"])
            steps[row["trial_key"]] = row["step"]
    found = []
    over = [t for t in trials if t.key in ended and ended[t.key].status in ("finished", "stopped")]
    kept = files.each(over, lambda t: has_weights(out, t), remote=files.is_remote(out))
    for t in [t for t, has in zip(over, kept, strict=True) if has]:
        past = ended[t.key]
        left = list(metrics) if again else measurements.missing(out, t, past.epoch, metrics, splits.get(t.key, set()))
        if left:
            found.append(Task(t, past.epoch, steps.get(t.key, 0), tuple(left)))
    return found


def has_weights(out: Path, trial: Trial) -> bool:
    from distvae.training.checkpoint import WEIGHTS

    return (out / "checkpoints" / trial.key / WEIGHTS).is_file()


def run(
    ray: Cluster,
    out: Path,
    todo: Sequence[Task],
    resources: Resources,
    measuring: Measuring,
    *,
    stop: threading.Event,
    measured: Callable[[Task, list[dict[str, Any]]], None],
    hold: Hold,
) -> None:
    """Measure `todo`, as many at a time as fit; `measured(task, rows)` after each that left a file. Returns early if `stop`
    is set: what runs is cut off, and leaves nothing. Raises UnwrittenError, StoreError, OutLockedError: OUT is at fault."""
    import ray as r

    from distvae.sweeps.measurer import measure

    remote = measure.options(num_cpus=resources.threads, num_gpus=resources.gpus)
    device = "cuda" if resources.gpus else "cpu"
    left, running, place = list(reversed(todo)), {}, (str(out), hold.number)
    most = ray.slots(resources)
    while (left or running) and not stop.is_set():
        while left and len(running) < most:
            task = left.pop()
            ref = remote.remote(place, task.trial.config(), task.metrics, task.epoch, resources.threads, device)
            running[ref] = task
        ready, _ = r.wait(list(running), num_returns=1, timeout=0.5)
        for ref in ready:
            task = running.pop(ref)
            measuring.ended += 1
            try:
                answer: dict[str, Any] = r.get(ref)
            except Exception as e:  # its process died, or it could not commit
                cause = getattr(e, "cause", None)
                if isinstance(cause, UnwrittenError | StoreError | OutLockedError):
                    for other in running:
                        r.cancel(other, force=True)
                    raise cause from None
                answer = {"failed": f"{type(e).__name__}: {str(e).splitlines()[0][:160]}", "why": {}, "rows": []}
            for why in answer["why"].values():
                measuring.why[why] = measuring.why.get(why, 0) + 1
            if answer["failed"]:
                measuring.failed[task.trial.key] = answer["failed"]
            if answer["rows"]:
                measured(task, [_as_row(task, r) for r in answer["rows"]])
    for ref in running:
        r.cancel(ref, force=True)


def one(
    out: Path, trial: Trial, metrics: Sequence[Metric], epoch: int, *, device: str = "cpu"
) -> tuple[measurements.Measurement, list[str]]:
    """Measure one trial, here. Returns the values and, of each metric that raised, its traceback: the others stand."""
    from distvae.api import kept_model
    from distvae.metrics.subject import Subject

    found = measurements.Measurement(trial.key, epoch)
    raised: dict[str, str] = {}
    for point, beta in enumerate(trial.objective.grid()):
        subject = Subject(trial, kept_model(out, trial), beta=beta, device=device)
        for m in metrics:
            if m.type in raised:
                continue
            columns = m.columns(trial)
            try:
                why = m.why_not(subject)
                for split in m.splits:
                    if subject.has(split):
                        found.add(m, columns, split, point, {} if why else m.measure(subject, split))
                if why:
                    found.why[m.type] = why
            except Exception:
                raised[m.type] = f"{m.type}: {traceback.format_exc()}"
    return found, list(raised.values())


def _as_row(task: Task, values: dict[str, Any]) -> dict[str, Any]:
    """Measured values with what marks a row of the curve, for MLflow."""
    beta, conditioning = task.trial.objective.grid()[values["point"]], task.trial.vae.conditioning
    told = {} if conditioning is None else {"beta": beta, "conditioning": conditioning.type}
    return {**values, "step": task.step, **told}


def told(out: Path, measuring: Measuring) -> list[str]:
    """Lines for a person: what is null and why, what raised and where its log is."""
    lines = [f"not measured, {n} times: {why}" for why, n in measuring.why.items()]
    for key, what in list(measuring.failed.items())[:5]:
        lines.append(f"trial {key} could not be measured: {what} (its log: {out / 'logs' / key}.jsonl)")
    if len(measuring.failed) > 5:
        lines.append(f"and {len(measuring.failed) - 5} more")
    return lines


def evaluate(
    out: Path, trials: Sequence[Trial], study: Study, *, again: bool, address: str | None, say: Callable[[str], None]
) -> Measuring:
    """`distvae eval`: measure `study.metrics` of `trials`, then bring MLflow and the curve up to date. Ctrl-C cuts off
    what runs. Raises OutLockedError if OUT is being swept."""
    from distvae.results.tracking import Tracker
    from distvae.store import s3
    from distvae.sweeps import cluster
    from distvae.sweeps.lock import hold_out
    from distvae.sweeps.progress import Display

    with hold_out(out) as hold:
        todo = tasks(out, trials, study.metrics, again=again)
        measuring = Measuring(len(todo))
        if not todo:
            return measuring
        for line in beginning(todo, study.metrics):
            say(line)
        tracker = Tracker(study.tracking.uri, out=out, sweep=study.name, resolved=study.resolved, log=say)
        tracker.open()
        stop = threading.Event()
        hold.when_lost(lambda why: stop.set())
        try:
            env = s3.environment() if files.is_remote(out) else {}
            with Display(measuring), cluster.connect(address, env=env) as ray:
                run(
                    ray, out.absolute(), todo, study.resources, measuring, stop=stop,
                    measured=lambda task, rows: tracker.rows(task.trial.key, rows), hold=hold,
                )  # fmt: skip
            hold.check()
        finally:
            ledger.export(out)
            if lost := tracker.close(60.0):
                say(f"MLflow did not take {lost} events in time; nothing is lost: `distvae sync {out}` brings them")
        return measuring
