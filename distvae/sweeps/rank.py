"""One rank of a gang. In a file of its own: a rank's process does not import Ray Tune (1.1 s)."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import ray


@ray.remote
class Rank:
    """One rank of a gang: a process that runs its half of trial after trial. It never speaks to MLflow."""

    def __init__(self, rank: int, size: int, job: dict[str, Any]):
        self.rank, self.size, self.job = rank, size, job
        if os.path.isdir(job["cwd"]):  # a relative data.root means the same here as where the sweep was started
            os.chdir(job["cwd"])
        self.store: Any = None
        self.runner: Any = None

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
        self.engine, self.note = self.job["engine"], None
        if self.engine == "deepspeed":
            try:
                from distvae.training.deepspeed_engine import import_deepspeed

                import_deepspeed()
            except Exception as e:
                self.engine, self.note = "torch", f"DeepSpeed cannot be imported ({e}): trained by engine: torch"

    def begin(self, task: dict[str, Any]) -> None:
        """Take up a trial, from its checkpoint if there is one."""
        from distvae.results import ledger
        from distvae.sweeps.plan import trial_from_json
        from distvae.training.loop import Runner

        self._drop()
        self.task, self.trial = task, trial_from_json(task["config_json"])
        self.folder = Path(self.job["out"]) / "checkpoints" / task["key"]
        self.committed = ledger.path(Path(self.job["out"]), task["key"], task["attempt"])
        if self.committed.exists():  # it ended, and whoever was to hear of it died
            return
        self.runner = Runner(
            self.trial,
            world=self.world,
            engine=self.engine,
            deepspeed=self.job["deepspeed"],
            folder=self.folder,
            checkpoint_s=self.job["checkpoint_s"],
        )
        self.fresh = list(self.runner.rows)  # rows of an earlier driver, told again

    def advance(self, seconds: float) -> dict[str, Any]:
        """Train for about `seconds`; on the trial's end commit its rows. Rank 0's answer counts."""
        if self.runner is None:
            return self._already()
        report = self.runner.advance(seconds)
        rows, self.fresh = self.fresh + report.rows, []
        if report.status is not None:
            self._end(report.status)
        if self.rank:
            return {}
        return {"rows": rows, "epoch": report.epoch, "status": report.status, "note": self.note}

    def _already(self) -> dict[str, Any]:
        import pyarrow.parquet as pq

        row = pq.read_table(self.committed, columns=["status", "epoch"]).to_pylist()[-1]
        return {"rows": [], "epoch": row["epoch"], "status": row["status"], "note": None}

    def _end(self, status: str) -> None:
        from distvae.results import ledger, rows
        from distvae.training import checkpoint

        if self.job["keep"] == "all":
            self.runner.save()  # the last epoch, so that a longer run can extend it
        if self.job["keep"] != "none":
            self.runner.write_weights()
        if self.rank == 0:
            new = [r for r in self.runner.rows if r["epoch"] > self.task["committed_epoch"]]
            table = rows.table(
                self.trial,
                new,
                sweep=self.job["sweep"],
                status=status,
                attempt=self.task["attempt"],
                device=self.world.device,
                git_sha=self.job["git_sha"],
            )
            ledger.commit(Path(self.job["out"]), table)
            log(Path(self.job["out"]), self.task["key"], event="end", status=status, epoch=self.runner.epoch)
            checkpoint.prune(self.folder, self.job["keep"])
        self._drop()

    def save(self) -> None:
        if self.runner is not None:
            self.runner.save()

    def _drop(self) -> None:
        if self.runner is not None:
            self.runner.close()
        self.runner = None


def log(out: Path, key: str, **event: Any) -> None:
    """One line of OUT/logs/<key>.jsonl."""
    folder = out / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"{key}.jsonl", "a") as f:
        f.write(json.dumps({"unix_s": round(time.time(), 3), **event}) + "\n")
