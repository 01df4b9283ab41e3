"""A SLURM of one job, as far as a batch script sees it: its environment, `srun`, `scontrol`, and signals to the script.

`srun` leaves its command in a file and waits (with `--overlap` it does not); whoever plays slurmd (`Slurm.work`) starts it
on every node."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SRUN = """#!{python}
import json, os, sys, time
from pathlib import Path
words = sys.argv[1:]
first = next(i for i, w in enumerate(words) if not w.startswith("--"))
spool = Path(os.environ["FAKE_SLURM"])
if "--overlap" in words:
    (spool / "beside").write_text(json.dumps(words[first:]))
    sys.exit(0)
(spool / "step.new").write_text(json.dumps({{"options": words[:first], "command": words[first:], "env": dict(os.environ)}}))
(spool / "step.new").rename(spool / "step")
while not (spool / "code").exists():
    time.sleep(0.05)
sys.exit(int((spool / "code").read_text()))
"""
SCONTROL = """#!/bin/sh
case "$1 $2" in
"show hostnames") tr , '\\n' < "$FAKE_SLURM/nodes" ;;
requeue*) echo "$2" >> "$FAKE_SLURM/requeued" ;;
*) exit 1 ;;
esac
"""
Start = Callable[..., subprocess.Popen]


class Slurm:
    """`start[i](words, **popen)` runs a command on node i; the first is the batch host."""

    def __init__(self, folder: Path, nodes: list[str], start: list[Start]):
        self.spool, self.nodes, self.start = folder / "spool", nodes, start
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name, text in (("srun", SRUN.format(python=sys.executable)), ("scontrol", SCONTROL)):
            (self.bin / name).write_text(text)
            (self.bin / name).chmod(0o755)
        self.tasks: list[subprocess.Popen] = []
        self.others: list[subprocess.Popen] = []
        self.runs = 0

    @property
    def log(self) -> Path:
        return self.spool / "out"

    @property
    def requeued(self) -> bool:
        return (self.spool / "requeued").exists()

    def submit(self, script: Path, cwd: Path, **env: str) -> None:
        self.runs += 1
        self.spool = self.spool.with_name(f"spool{self.runs}")
        self.spool.mkdir()
        (self.spool / "nodes").write_text(",".join(self.nodes) + "\n")
        ours = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "SLURM_"))}
        path = f"{self.bin}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        slurm = {
            "SLURM_JOB_ID": str(100 + self.runs),
            "SLURM_JOB_NUM_NODES": str(len(self.nodes)),
            "SLURM_JOB_NODELIST": ",".join(self.nodes),
            "FAKE_SLURM": str(self.spool),
        }
        self.tasks = []
        self.cwd = cwd
        self.env = ours | slurm | {"PATH": path} | env
        with open(self.log, "wb") as log:
            self.batch = self.start[0](["bash", str(script)], stdout=log, stderr=log, cwd=cwd, env=self.env)

    def work(self) -> None:
        """What slurmd does: start the step's tasks, and say when they are over."""
        step = self.spool / "step"
        if step.exists() and not self.tasks:
            told: dict[str, Any] = json.loads(step.read_text())
            for i, start in enumerate(self.start):
                with open(self.spool / f"task{i}", "wb") as log:
                    self.tasks.append(start(told["command"], stdout=log, stderr=log, cwd=self.cwd, env=told["env"]))
        beside = self.spool / "beside"  # a short step beside the first, on every node
        if beside.exists():
            words = json.loads(beside.read_text())
            beside.unlink()
            for start in self.start:
                self.others.append(start(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self.env))
        if self.tasks and all(t.poll() is not None for t in self.tasks) and not (self.spool / "code").exists():
            (self.spool / "code.new").write_text(str(max(t.returncode for t in self.tasks)))
            (self.spool / "code.new").rename(self.spool / "code")

    def until(self, what: Callable[[], Any], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not what():
            self.work()
            assert time.monotonic() < deadline, f"nothing after {seconds} s:\n{self.text()}"
            time.sleep(0.05)

    def end(self, seconds: float) -> int:
        self.until(lambda: self.batch.poll() is not None, seconds)
        return self.batch.returncode

    def signal(self, sig: signal.Signals, pid: int | None = None) -> None:
        os.kill(pid or self.batch.pid, sig)

    def close(self) -> None:
        """What is left of the job ends: a node without its cable does not hear that it is over."""
        for p in [self.batch, *self.tasks, *self.others]:
            if p.poll() is None:
                os.killpg(p.pid, signal.SIGKILL)
            p.wait(20)

    def text(self) -> str:
        return "\n".join(
            f"== {p.name}\n{p.read_text()[:9000]}" for p in sorted(self.spool.glob("*")) if p.name[:3] in ("out", "tas")
        )
