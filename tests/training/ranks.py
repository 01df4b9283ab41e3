"""Runs trials on several gloo ranks in processes of their own, below Ray."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from distvae.config import trial_from_data
from distvae.training.group import Setting, open_group
from distvae.training.loop import Runner
from distvae.training.world import meet, part_ways


def train_on(size: int, jobs: list[dict], tmp: Path) -> list[list[dict]]:
    """Rows of each job, trained by `size` ranks. A job is {trial, engine, deepspeed}; with `folder`, its weights are
    left there (`stack` instead of `trial`: stacked, and the rows of each), and with `stops` it is dropped after so many steps, again and again, and taken up from its checkpoint."""
    (tmp / "jobs.json").write_text(json.dumps(jobs))
    store = tmp / f"store{size}"
    ranks = [
        subprocess.Popen([sys.executable, __file__, str(r), str(size), str(tmp), str(store)], stderr=subprocess.PIPE)
        for r in range(size)
    ]
    errors = [p.communicate(timeout=1700)[1].decode() for p in ranks]
    assert all(p.returncode == 0 for p in ranks), "\n".join(errors)
    return json.loads((tmp / f"rows{size}.json").read_text())


def main(rank: int, size: int, tmp: Path, store: str) -> None:
    torch.set_num_threads(1)
    world = meet(rank, size, store=dist.FileStore(store, size))
    rows = []
    for job in json.loads((tmp / "jobs.json").read_text()):
        if "stack" in job:
            rows.append(stacked(job, world))
            continue
        runner = run(job, world)
        while runner.status is None:
            runner = run(job, world)
        rows.append(runner.rows)
    if rank == 0:
        (tmp / f"rows{size}.json").write_text(json.dumps(rows))
    part_ways()


def stacked(job: dict, world) -> list[list[dict]]:
    """Rows of each trial of `stack`, trained as one."""
    trials = [trial_from_data(t) for t in job["stack"]]
    setting = Setting(world=world, engine=job["engine"], deepspeed=job.get("deepspeed") or {}, note=_no_note)
    news = open_group(trials, setting, stacked=True).advance(math.inf)
    return [news[t.key].rows for t in trials]


def _no_note(text: str) -> None:
    raise AssertionError(text)


def run(job: dict, world) -> Runner:
    """The job, to its end or to its next stop."""
    folder = Path(job["folder"]) if "folder" in job else None
    runner = Runner(
        trial_from_data(job["trial"]),
        world=world,
        engine=job["engine"],
        deepspeed=job.get("deepspeed"),
        folder=folder,
    )
    if "stops" in job:
        for _ in range(job["stops"]):
            if runner.status is None:
                runner.advance(0)
        if runner.status is None:
            runner.save()
    else:
        runner.advance()
    if runner.status is not None:
        runner.write_weights()
    runner.close()
    return runner


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
    sys.stderr.flush()
    os._exit(0)  # gloo's threads may still run when the interpreter goes, which ends the process with an abort
