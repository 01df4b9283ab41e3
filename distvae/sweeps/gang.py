"""A group of trials on Ray: a class Trainable that owns a gang of rank actors in its own placement group, reused from
group to group.

Bundle 0 holds the Trainable (0.1 CPU: it only waits), bundle i + 1 rank i. The processes are started and DeepSpeed is
imported once; `reset_config` swaps the group. Rank 0 writes each trial's checkpoints and commits its rows, so a trial
is finished exactly when its file is in the ledger, whoever dies afterwards. Ray's own checkpoints are not used: on a
retry, or under a new driver, a gang looks in `OUT/checkpoints/<key>` and goes on from there."""

from __future__ import annotations

import functools
import os
import traceback
from typing import Any

import ray
from ray import tune
from ray.actor import exit_actor
from ray.util.placement_group import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from distvae import files
from distvae.operate.stops import asked
from distvae.results import ledger
from distvae.store.errors import StoreError, UnwrittenError
from distvae.store.lease import OutLockedError
from distvae.sweeps.evaluations import Evaluations
from distvae.sweeps.rank import Rank, log
from distvae.training.scores import LAST

REPORT_S = (
    1.5  # a running trial reports about this often (under Tune's schedulers, each evaluation), and stops where it is
)
HEAD_CPU = 0.1


@functools.cache
def placement(workers: int, threads: int, gpus: float) -> tune.PlacementGroupFactory:
    """0.1 CPU for the Trainable and threads - 0.1 for each rank: two one-worker trials, or one two-worker trial, fit
    two cores. One for all groups: Tune keeps each group's to the end."""
    rank = {"CPU": threads - HEAD_CPU, **({"GPU": gpus} if gpus else {})}
    return tune.PlacementGroupFactory([{"CPU": HEAD_CPU}] + [rank] * workers, strategy="PACK")


class Gang(tune.Trainable):
    """Trains the groups it is handed, one after the other. Its config: `job` (what all groups share, see `driver.py`) and
    `task` (one group: id, members (each key, config_json, attempt, committed_epoch), stacked, and the keys of the
    members that ended earlier)."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        job = config["job"]
        return placement(job["workers"], job["threads"], job["gpus"])

    def setup(self, config: dict[str, Any]) -> None:
        job = config["job"]
        self.ranks = self._recruit(job)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._leave()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        try:
            if self.task is not None:
                self._all("begin", self.task)
                self.task = None
            report = self._advance() if self.evaluations is None else self._evaluation(self.evaluations)
        except Exception as e:
            if not (why := _place(e)):
                self._log(event="error", traceback=traceback.format_exc())
                raise
            self.left = {}  # and no line of a log there: to a place that does not answer it takes a minute to fail
            report = {"trials": {}, "notes": [], "device": "", "epoch": 0, "score": LAST}
            return {**report, **why, "done": True}  # to try again would not help
        return {**report, "done": not self.left and (self.evaluations is None or self.evaluations.over())}

    def cleanup(self) -> None:
        self._leave()
        for rank in self.ranks:
            ray.kill(rank)
        exit_actor()  # now: Tune waits for an actor that ends in its own time, 5 s

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Tune pauses the group: another gang may go on with it, or nobody. Our own checkpoints are the record."""
        ray.get([r.save.remote(pausing=True) for r in self.ranks])
        self.left = {}

    def load_checkpoint(self, checkpoint: Any) -> None:
        return None

    def _recruit(self, job: dict[str, Any]) -> list[Any]:
        size, group = job["workers"], get_current_placement_group()
        assert group is not None, "Tune places every Gang in a group"
        ranks = [
            Rank.options(
                num_cpus=job["threads"] - HEAD_CPU,
                num_gpus=job["gpus"],
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=i + 1),
            ).remote(i, size, job)
            for i in range(size)
        ]
        address = ray.get(ranks[0].open_store.remote())
        ray.get([r.join.remote(address) for r in ranks])
        return ranks

    def _begin(self, config: dict[str, Any]) -> None:
        """Hand the group to the ranks at the first step: Tune retries what raises there, and not what raises before."""
        self.task: dict[str, Any] | None = config["task"]
        self.left = {m["key"]: m["attempt"] for m in config["task"]["members"]}  # that have not ended
        self.out = files.at(config["job"]["out"])
        files.guard(self.out)
        self.evaluations = self._evaluations(config)
        self._log(event="start", group=config["task"]["id"], pid=os.getpid())

    def _evaluations(self, config: dict[str, Any]) -> Evaluations | None:
        """What Tune's scheduler is told, if one decides; with what the group's ended trials measured."""
        if config["job"]["metric"] is None:
            return None
        found = Evaluations(config["job"]["metric"], [*config["task"]["ended"], *self.left])
        for key in config["task"]["ended"]:
            self._recall(found, key)
        return found

    def _recall(self, evaluations: Evaluations, key: str) -> None:
        """A trial that ended before, from the ledger."""
        past = ledger.history(self.out, key)
        if past is not None:
            evaluations.add(key, past.rows, max((r["epoch"] for r in past.rows), default=0), _said(past.status))

    def _advance(self, *, once: bool = False) -> dict[str, Any]:
        stops = asked()
        report = ray.get([r.advance.remote(REPORT_S, once=once, stops=stops) for r in self.ranks])[0]
        for key, told in report["trials"].items():
            if told["status"] is not None:
                self.left.pop(key, None)
        return report

    def _evaluation(self, evaluations: Evaluations) -> dict[str, Any]:
        """Train to the next evaluation that all seeds have: a scheduler decides on each."""
        trials: dict[str, dict[str, Any]] = {}
        notes: list[str] = []
        device = ""
        while (due := evaluations.next()) is None and not evaluations.over():
            report = self._advance(once=True)
            notes += report["notes"]
            device = report["device"]
            for key, told in report["trials"].items():
                before = trials.get(key, {"rows": [], "raised": False})
                trials[key] = {
                    **told,
                    "rows": before["rows"] + told["rows"],
                    "raised": before["raised"] or told["raised"],
                }
                if (
                    told["status"] == "finished" and not told["rows"]
                ):  # committed by one that died before it could say so
                    self._recall(evaluations, key)
                else:
                    evaluations.add(key, told["rows"], told["epoch"], _said(told["status"]))
        epoch, score = due or (evaluations.told, LAST)
        return {"trials": trials, "notes": notes, "device": device, "epoch": epoch, "score": score}

    def _log(self, **event: Any) -> None:
        for key, attempt in self.left.items():
            log(self.out, key, attempt=attempt, **event)

    def _leave(self) -> None:
        """Let go of the group; save first those of its trials that have not ended."""
        if self.left and self.task is None:
            try:
                self._all("save")
            except Exception:
                self._log(event="not saved", traceback=traceback.format_exc())

    def _all(self, method: str, *args: Any) -> list[Any]:
        return ray.get([getattr(r, method).remote(*args) for r in self.ranks])


def _place(e: BaseException) -> dict[str, str]:
    """What is wrong with OUT, if that is what a rank raised: `unwritten`, it is full or away, or `lost`, it is somebody
    else's by now."""
    found = getattr(e, "cause", None) or e  # of Ray's error for what an actor raised
    if isinstance(found, OutLockedError):
        return {"lost": str(found)}
    return {"unwritten": str(found)} if isinstance(found, UnwrittenError | StoreError) else {}


def _said(status: str | None) -> str | None:
    """For Tune's scheduler: one seed of several that was stopped, was stopped by a person, which says as little of its
    configuration as a failure does."""
    return "failed" if status == "stopped" else status
