"""What is known of a sweep's trials while they are trained: who is left, who has ended and how, as Tune and the ledger tell
it; and what then goes to the terminal, to MLflow and, where no process of a trial can commit its end, into the ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from distvae import files
from distvae.operate.desk import Desk
from distvae.results import compaction, ledger, rows
from distvae.results.provenance import git_sha
from distvae.results.tracking import Tracker
from distvae.store import s3
from distvae.store.errors import StoreError, UnwrittenError
from distvae.study import Study
from distvae.sweeps import overhead, searching
from distvae.sweeps.groups import GroupPlan
from distvae.sweeps.lock import OutLockedError
from distvae.sweeps.outcome import Outcome
from distvae.sweeps.plan import write_plan
from distvae.sweeps.progress import Progress
from distvae.sweeps.remaining import group_task, is_over, remaining
from distvae.training import checkpoint
from distvae.trial import Trial


class Book:
    """Of one launch: `todo` are the trials that are left, with their tasks."""

    def __init__(
        self,
        study: Study,
        out: Path,
        todo: list[tuple[Trial, dict[str, Any]]],
        outcome: Outcome,
        progress: Progress,
        say: Callable[[str], None],
        desk: Desk,
    ):
        self.study, self.out, self.outcome = study, out.absolute(), outcome
        self.progress, self.say, self.hold, self.draining = progress, say, desk.hold, desk.draining
        self.trials = {t.key: t for t, _ in todo}
        self.tasks = {task["key"]: task for _, task in todo}
        self.ended: dict[str, str] = {}  # trials whose end we heard of: how they ended
        self.over: dict[str, str] = {}  # those of `ended` whose group is over,
        self.packed = 0  # and how many of their files have gone into packs
        self.rows: dict[str, dict[Any, dict[str, Any]]] = {}  # of those that Tune's scheduler may stop
        self.device = ""
        self.past: dict[str, ledger.Ended] = {}  # how trials ended before this run
        self.suggestions: list[searching.Known] = []
        self.tracker = Tracker(study.tracking.uri, out=self.out, sweep=study.name, resolved=study.resolved, log=say)

    # --- what Tune tells us -----------------------------------------------------------------------------------------

    def started(self, task: dict[str, Any]) -> None:
        self.outcome.first = self.outcome.first or overhead.mark()
        for key in self.left(task):
            self.progress.running.setdefault(key, (0, self.trials[key].train.epochs))
            self.tracker.start(self.trials[key])

    def reported(self, result: dict[str, Any]) -> None:
        if why := result.get("unwritten"):
            self.unwritten(why)
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
                self.end(key, told["status"])

    def retried(self, task: dict[str, Any]) -> None:
        left = self.left(task)
        if len(left) == 1:
            self._again(left[0])
        elif left:
            one_by_one = f"the {len(left)} trials of the group of {left[0]} are tried again, one by one"
            self.say(f"{one_by_one}: see {self.out / 'logs' / left[0]}.jsonl")

    def completed(self, task: dict[str, Any]) -> None:
        """Tune is done with the group: its trials have ended, or save because we drain, or else its scheduler stopped
        them: then their ends are committed here, and the gang finds them in the ledger."""
        for key in () if self.draining.is_set() else self.left(task):
            try:
                self.commit(key, "stopped", list(self.rows.get(key, {}).values()))
                checkpoint.prune(self.out / "checkpoints" / key, self.study.resources.keep)
            except (UnwrittenError, StoreError, OutLockedError) as e:
                self.unwritten(e)
                continue
            self.end(key, "stopped")
        self._over(task)

    def failed(self, task: dict[str, Any]) -> None:
        """Tune gave the group up after its retry: the ends that are not committed are committed here, for its process
        may be dead."""
        for key in self.left(task):
            try:
                committed = ledger.end(self.out, key, self.tasks[key]["attempt"])
                if committed is None:
                    self.commit(key, "failed", [])
            except (UnwrittenError, StoreError, OutLockedError) as e:
                self.unwritten(e)
                continue
            self.end(key, committed.status if committed else "failed")
        self._over(task)

    def _over(self, task: dict[str, Any]) -> None:
        """Nothing of the group runs any more; now and then what lies by itself is packed."""
        self.over |= {m["key"]: self.ended[m["key"]] for m in task["members"] if m["key"] in self.ended}
        if len(self.over) - self.packed >= ledger.MANY and not self.hold.is_lost and not self.outcome.unwritten:
            self.packed += compaction.tidy(self.out, self.over, self.outcome.notes, running=True)

    # --- what its searcher asks and tells ---------------------------------------------------------------------------

    def history(self, trial: Trial) -> ledger.History | None:
        """Of a trial that is never run again."""
        if trial.key in self.tasks and trial.key not in self.ended:
            return None
        found = ledger.history(self.out, trial.key)
        last = max((r["epoch"] for r in found.rows), default=0) if found else 0
        return found if found and is_over(trial, found.status, last) else None

    def planned(self, number: int, values: Mapping[str, Any], trials: Sequence[Trial]) -> None:
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

    def seeds(self, trials: Sequence[Trial]) -> dict[str, Any]:
        left = tuple(t for t in trials if t.key in self.tasks and t.key not in self.ended)
        return group_task(GroupPlan(left, False, None, tuple(t for t in trials if t not in left)), self.tasks)

    def settle(self, trials: Sequence[Trial]) -> None:
        self.completed({"members": [self.tasks[t.key] for t in trials if t.key in self.tasks]})

    # --- what becomes of a trial --------------------------------------------------------------------------------------

    def commit(self, key: str, status: str, measured: list[dict[str, Any]], **more: str) -> None:
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

    def unwritten(self, why: str | Exception) -> None:
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

    def left(self, task: dict[str, Any]) -> list[str]:
        return [m["key"] for m in task["members"] if m["key"] not in self.ended]

    def _again(self, key: str) -> None:
        self.say(f"trial {key} ({self.trials[key].label}) is tried again: see {self.out / 'logs' / key}.jsonl")

    def end(self, key: str, status: str) -> None:
        self.ended[key] = status
        self.outcome.ran.append(key)
        self.outcome.last = overhead.mark()
        self.progress.end(key, status)
        self.tracker.end(key, status)
        if status == "failed":
            label, log = self.trials[key].label, self.out / "logs" / f"{key}.jsonl"
            self.say(f"trial {key} ({label}) failed twice: see {log}; the sweep goes on")
