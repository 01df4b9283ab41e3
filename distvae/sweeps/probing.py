"""Runs a probe: as many gangs at once as the sweep will have groups, so that what they take from each other (cores,
memory bandwidth, a GPU) is in the figures. Each gang answers for one kind of group after another (`probe.py`). Their
processes can be started before the groups are known: they import meanwhile."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from distvae.study import Study
from distvae.sweeps.groups import GroupPlan, most

# of probing, once a worker is warm and has the data: kinds that are left then are scaled from those probed
BUDGET_S = 5.0
START_S = 300.0  # for all workers to be up
ROUNDS_S = 2.0  # of steps in it: fewer kinds are probed for longer

Team = list[subprocess.Popen[str]]  # the ranks of a gang


@dataclass
class Probes:
    """What came of it: answers of `probe.Worker` by the number of the kind, one from each gang that had it."""

    found: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)
    engine: str = ""
    broken: str | None = None  # why no worker could be started


def probe(teams: Sequence[Team], kinds: Sequence[GroupPlan], gangs: int) -> Probes:
    """Probe a group of each kind, in this order while time allows, on `gangs` of the teams; all of them end."""
    _end(teams[gangs:])
    results, lock = Probes(), threading.Lock()
    turns = list(range(len(kinds)))
    turns += turns[: -len(turns) % gangs]  # every gang is busy to the end, as in the sweep
    steps_s = ROUNDS_S * gangs / len(turns)
    waiting = iter(turns)
    ready = threading.Barrier(gangs)
    deadline = [math.inf]

    def serve(team: Team) -> None:
        try:
            results.engine = _heard(team)["engine"]
            ready.wait(timeout=START_S)
            while time.monotonic() < deadline[0]:
                with lock:
                    turn = next(waiting, None)
                if turn is None:
                    return
                group = kinds[turn]
                trials = [json.dumps(t.config()) for t in group.trials]
                _tell(team, {"trials": trials, "stacked": group.stacked, "steps_s": steps_s})
                answer = _heard(team)
                with lock:
                    deadline[0] = min(deadline[0], time.monotonic() + BUDGET_S)
                    if "error" in answer:
                        results.errors[turn] = answer["error"]
                    else:
                        results.found.setdefault(turn, []).append(answer)
        except (OSError, ValueError, threading.BrokenBarrierError) as e:
            ready.abort()
            results.broken = f"{type(e).__name__}: {e}"

    threads = [threading.Thread(target=serve, args=(team,), daemon=True) for team in teams[:gangs]]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    _end(teams)  # what comes next, a small sweep perhaps, has the machine to itself
    return results


@contextmanager
def started(study: Study, gangs: int) -> Iterator[list[Team]]:
    """The gangs' processes; ended with the block."""
    from torch.distributed import TCPStore

    r = study.resources
    stores: list[TCPStore] = []
    teams: list[Team] = []
    scratch = tempfile.mkdtemp(prefix="dv-probe-")
    try:
        for gang in range(gangs):
            port = 0
            if r.workers > 1:
                stores.append(TCPStore("127.0.0.1", 0, r.workers, is_master=True, wait_for_workers=False))
                port = stores[-1].port
            team: Team = []
            teams.append(team)
            for rank in range(r.workers):
                job = {
                    "rank": rank,
                    "size": r.workers,
                    "port": port,
                    "threads": r.threads,
                    "gpus": r.gpus,
                    "engine": study.engine,
                    "deepspeed": study.deepspeed,
                    "most": most(study),
                    "keep": r.keep,
                    "out": os.path.join(scratch, str(gang)),
                }
                team.append(_process(r.threads, int((gang * r.workers + rank) * r.gpus) if r.gpus else None))
                _tell(team[-1:], job)
        yield teams
    finally:
        _end(teams)
        shutil.rmtree(scratch, ignore_errors=True)


def _end(teams: Sequence[Team]) -> None:
    for team in teams:
        while team:
            process = team.pop()
            process.kill()
            process.communicate()


def _process(threads: int, gpu: int | None) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    if gpu is not None:
        seen = [d for d in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if d]
        environment["CUDA_VISIBLE_DEVICES"] = seen[gpu] if gpu < len(seen) else str(gpu)
    return subprocess.Popen(
        [sys.executable, "-m", "distvae.sweeps.probe"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )


def _tell(team: Sequence[subprocess.Popen[str]], message: dict[str, Any]) -> None:
    for process in team:
        assert process.stdin is not None
        process.stdin.write(json.dumps(message) + "\n")
        process.stdin.flush()


def _heard(team: Sequence[subprocess.Popen[str]]) -> dict[str, Any]:
    """Rank 0's answer, when all have answered. Raises ValueError if one is dead."""
    answers = []
    for process in team:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise ValueError("a worker of the probe died")
        answers.append(json.loads(line))
    return answers[0]
