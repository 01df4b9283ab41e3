"""One rank of a gang. In a file of its own: a rank's process does not import Ray Tune (1.1 s)."""

from __future__ import annotations

import contextlib
import json
import os
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from distvae import files
from distvae.store import lease
from distvae.store.errors import StoreError, UnwrittenError
from distvae.store.lease import OutLockedError


@ray.remote
class Rank:
    """One rank of a gang: a process that runs its half of group after group. It never speaks to MLflow."""

    def __init__(self, rank: int, size: int, job: dict[str, Any]):
        self.rank, self.size, self.job = rank, size, job
        if os.path.isdir(job["cwd"]):  # a relative data.root means the same here as where the sweep was started
            os.chdir(job["cwd"])
        self.out = files.at(job["out"])
        files.guard(self.out)
        self.checked = 0.0  # when this sweep was last seen to own OUT
        self.store: Any = None
        self.group: Any = None

    def open_store(self) -> tuple[str, int] | None:
        """Rank 0 opens the gang's meeting place on a port the system picks. A gang of one needs none."""
        import torch

        torch.set_num_threads(self.job["threads"])
        if self.size == 1:
            return None
        from torch.distributed import TCPStore

        host = "127.0.0.1" if self.job["local"] else ray.util.get_node_ip_address()
        self.store = TCPStore(host, 0, self.size, is_master=True, wait_for_workers=False)
        return host, self.store.port

    def join(self, address: tuple[str, int] | None) -> None:
        import torch

        torch.set_num_threads(self.job["threads"])
        if self.job["local"]:
            os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        from distvae.training.world import meet

        if address is not None and self.store is None:
            from torch.distributed import TCPStore

            self.store = TCPStore(*address, self.size, is_master=False)
        device = "cuda" if self.job["gpus"] else "cpu"
        self.world = meet(self.rank, self.size, device=device, store=self.store)
        self.engine, self.notes = self.job["engine"], list[str]()
        from distvae.kernels import backend, cpu

        if device == "cpu" and backend.choice() == "auto" and (why := cpu.unavailable()):
            self.notes.append(f"the compiled kernels are not here ({why}): torch does their work, slower")
        if self.engine == "deepspeed":
            try:
                from distvae.training.deepspeed_engine import import_deepspeed

                import_deepspeed()
            except Exception as e:
                self.engine = "torch"
                self.notes.append(f"DeepSpeed cannot be imported ({e}): trained by engine: torch")

    def begin(self, task: dict[str, Any]) -> None:
        """Take up a group, each trial from its checkpoint if there is one."""
        from distvae.results import ledger
        from distvae.sweeps.plan import trial_from_json
        from distvae.training.group import Setting, open_group
        from distvae.training.halving import Halving

        self._drop()
        self.members = {m["key"]: m for m in task["members"]}
        self.trials = {key: trial_from_json(m["config_json"]) for key, m in self.members.items()}
        self.ended = ledger.ends(self.out, {key: m["attempt"] for key, m in self.members.items()})
        # whoever was to hear of those that have, died
        self.due: dict[str, tuple[str, int]] = {}  # status and epoch of what has ended and is not committed
        self.asked: set[str] = set()  # members that a person stops
        self.raised: dict[str, int] = {}  # exceptions of a member by itself
        self.dropped = set(self.ended)  # members that the group has no more
        self.alone = len(self.members) == 1 or self.world.size > 1  # what a member raises, the group does
        left = [t for key, t in self.trials.items() if key not in self.ended]
        if not left:
            return
        setting = Setting(
            world=self.world,
            engine=self.engine,
            deepspeed=self.job["deepspeed"],
            folder=self.out / "checkpoints",
            checkpoint_s=self.job["checkpoint_s"],
            most=self.job["most"],
            note=self.notes.append,
            failed=None if self.alone else self._failed,
        )
        halving = Halving(**self.job["halving"]) if self.job["halving"] else None
        before = _ended(self.out, [*task["ended"], *self.ended]) if halving else []
        stacked = task["stacked"] and len(left) > 1
        self.group = open_group(left, setting, stacked=stacked, halving=halving, ended=before)
        for key in (t.key for t in left if self.rank == 0):
            epoch, position = self.group.at(key)
            log(self.out, key, event="begin", attempt=self.members[key]["attempt"], epoch=epoch, position=position)
        self.fresh = {t.key: list(self.group.rows(t.key)) for t in left}  # rows of an earlier driver, told again

    def advance(self, seconds: float, *, once: bool = False, stops: Sequence[str] = ()) -> dict[str, Any]:
        """Train for about `seconds`, or until any trial is evaluated `once`; commit the rows of each trial that ends. Members
        among `stops` end where they are. Rank 0's answer counts."""
        self._check()
        raised = dict(self.raised)
        for key in stops:
            if key in self.members and key not in self.dropped and key not in self.due:
                self.asked.add(key)
                self.group.stop(key)
        told = {key: _told([], e.epoch, e.status) for key, e in self.ended.items()}
        self.ended = {}
        for key, report in self.group.advance(seconds, once=once).items() if self.group is not None else ():
            told[key] = _told(self.fresh.pop(key, []) + report.rows, report.epoch, None)
            if report.status is not None:
                self.due[key] = report.status, report.epoch
        for key, (status, epoch) in list(self.due.items()):
            told.setdefault(key, _told([], epoch, None))["status"] = self._end(key, status, epoch)
        for key in self.raised:
            if self.raised[key] > raised.get(key, 0) and key in told:
                told[key]["raised"] = True
        notes, self.notes = self.notes, []
        return {} if self.rank else {"trials": told, "notes": notes, "device": self.world.device}

    def save(self, *, pausing: bool = False) -> None:
        """Before the group is let go; `pausing`: another gang may go on with it, or it ends here. A member whose end is
        committed was stopped by Tune's scheduler: it keeps what an ended trial keeps."""
        if self.group is None:
            return
        for key in sorted(self.members.keys() - self.dropped):  # the same order on every rank
            stopped = self._is_committed(key)
            if not stopped:
                self.group.save(key)
            if stopped or pausing:
                self._keep(key)
            if self._is_committed(key):
                self._prune(key)
        if pausing:
            self._drop()

    def _is_committed(self, key: str) -> bool:
        from distvae.results import ledger

        mine = self.rank == 0 and ledger.end(self.out, key, self.members[key]["attempt"]) is not None
        return bool(self.world.broadcast(float(mine)))

    def _end(self, key: str, status: str, epoch: int) -> str | None:
        """Commit a member's end. What that raises is the member's own: one more go, then it has failed."""
        try:
            if status != "failed":
                self._keep(key)
            self._commit(key, status, epoch)
        except (UnwrittenError, StoreError, OutLockedError):
            raise  # the place is at fault, not the trial
        except Exception as e:
            if self.alone:
                raise
            self._failed(key, e)
            if status == "failed":
                raise
            return self._end(key, "failed", epoch) if self.raised[key] > 1 else None
        del self.due[key]
        self.group.drop(key)
        self.dropped.add(key)
        return status

    def _keep(self, key: str) -> None:
        if self._keeps(key) == "all":
            self.group.save(key)  # the last epoch, so that a longer run can extend it
        if self.job["keep"] != "none":
            self.group.write_weights(key)

    def _commit(self, key: str, status: str, epoch: int) -> None:
        from distvae.results import ledger, rows

        if self.rank:
            return
        lease.check(self.out, self.job.get("lease"))
        member = self.members[key]
        measured = [] if status == "failed" else self.group.rows(key)
        table = rows.table(
            self.trials[key],
            [r for r in measured if r["epoch"] > member["committed_epoch"]],
            sweep=self.job["sweep"],
            status=status,
            attempt=member["attempt"],
            device=self.world.device,
            git_sha=self.job["git_sha"],
        )
        ledger.commit(self.out, table)
        by = {"by": "distvae stop"} if key in self.asked and status == "stopped" else {}
        log(self.out, key, event="end", status=status, epoch=epoch, **by)
        if status != "failed":
            self._prune(key)

    def _check(self) -> None:
        """Now and then: raises OutLockedError if another sweep has taken OUT over, on every rank."""
        if self.job.get("lease") is None:
            return
        gone = False
        if self.rank == 0 and time.monotonic() - self.checked > lease.BEAT_S:
            with contextlib.suppress(StoreError):  # the commit will tell
                gone = lease.lost(self.out, self.job["lease"])
            self.checked = time.monotonic()
        if self.world.broadcast(float(gone)):
            lease.check(self.out, self.job["lease"])

    def _prune(self, key: str) -> None:
        from distvae.training import checkpoint

        if self.rank == 0:
            checkpoint.prune(self.out / "checkpoints" / key, self._keeps(key))

    def _keeps(self, key: str) -> str:
        """What stays of a member that ends; of one that a person stopped all, so that `retry` goes on from there."""
        return "all" if key in self.asked and self.job["keep"] != "none" else self.job["keep"]

    def _failed(self, key: str, e: Exception) -> None:
        self.raised[key] = self.raised.get(key, 0) + 1
        text = "".join(traceback.format_exception(e))
        log(self.out, key, event="error", attempt=self.members[key]["attempt"], traceback=text)

    def _drop(self) -> None:
        if self.group is not None:
            self.group.close()
        self.group = None


def _told(rows: list[dict[str, Any]], epoch: int, status: str | None) -> dict[str, Any]:
    return {"rows": rows, "epoch": epoch, "status": status, "raised": False}


def _ended(out: Path, keys: list[str]) -> list[Any]:
    """What halving knows of the group's trials that ended earlier."""
    from distvae.results import ledger
    from distvae.results.curves import trial_status
    from distvae.training.group import Ended

    table = ledger.load(out, set(keys)) if keys else None
    if table is None:
        return []
    found: dict[str, list[dict[str, Any]]] = {}
    for row in table.select(["trial_key", "config_key", "epoch", "split", "elbo_nats", "objective"]).to_pylist():
        found.setdefault(row["trial_key"], []).append(row)
    status = trial_status(table)
    return [Ended(rows[0]["config_key"], status[key], rows) for key, rows in found.items()]


def log(out: Path, key: str, **event: Any) -> None:
    """One line of OUT/logs/<key>.jsonl. A log that cannot be written ends no trial: what cannot be committed is told
    of, and of the same place."""
    line = json.dumps({"unix_s": round(time.time(), 3), **event}) + "\n"
    with contextlib.suppress(UnwrittenError, StoreError):
        files.append(out / "logs" / f"{key}.jsonl", line)
