"""A real SLURM, of Debian's packages (`slurm-wlm`), on the machines of a `Lan`: its controller on the first, a slurmd on
each. It preempts by partition, with the user's signal first, and lets a job that went back to the queue out of it soon."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from machines import Lan, environment, wait_for

TOOLS = ("slurmctld", "slurmd", "sbatch", "munged")
DAEMONS = ("slurmctld", "slurmscriptd", "slurmd", "munged")
CONF = """
ClusterName=lan
SlurmctldHost=node1({ctld})
AuthInfo=socket=/tmp/munge/socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation=/tmp/slurmctld
SlurmdSpoolDir=/tmp/slurmd
SlurmctldPidFile=/tmp/slurmctld.pid
SlurmdPidFile=/tmp/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MinJobAge=3600
SlurmctldParameters=preempt_send_user_signal
SchedulerParameters=bf_interval=5,sched_interval=5
{nodes}
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime=120
PartitionName=high Nodes=ALL PriorityTier=9
"""


def skip_without() -> None:
    missing = [tool for tool in TOOLS if shutil.which(tool, path=PATH) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)}: Debian's slurm-wlm and munge")


PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"


class RealSlurm:
    """`with RealSlurm(lan, folder, cpus) as slurm:`; `folder` is seen by all machines."""

    def __init__(self, lan: Lan, folder: Path, cpus: int):
        self.lan, self.folder = lan, folder
        self.daemons: list[subprocess.Popen] = []
        self.conf = folder / "slurm.conf"
        nodes = [f"NodeName={m.name} NodeAddr={m.address} CPUs={cpus} RealMemory=4000" for m in lan.machines]
        self.conf.write_text(CONF.format(ctld=lan[0].address, nodes="\n".join(nodes)))
        hosts, key = folder / "hosts", folder / "munge.key"
        hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{m.address} {m.name}\n" for m in lan.machines))
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        self.env = dict(environment(SLURM_CONF=str(self.conf), PATH=PATH))
        for m in lan.machines:
            m.run("mount", "--bind", hosts, "/etc/hosts")
            m.run("mkdir", "-m", "755", "/tmp/munge", "/tmp/slurmctld", "/tmp/slurmd")
            files = [f"--{name}-file=/tmp/munge/{name}" for name in ("pid", "log", "seed")]
            self._daemon(m, "munged", "--force", "-F", "-S", "/tmp/munge/socket", f"--key-file={key}", *files)
            wait_for(lambda m=m: m.run("test", "-S", "/tmp/munge/socket", check=False).returncode == 0, 30)
        self._daemon(lan[0], "slurmctld", "-D")
        for m in lan.machines:
            self._daemon(m, "slurmd", "-D", "-N", m.name)

    def _daemon(self, machine, *words: str) -> None:
        with open(self.folder / f"{machine.name}-{words[0]}.log", "wb") as log:
            self.daemons.append(machine.start(words, stdout=log, stderr=log, env=self.env))

    def run(self, *words: object, cwd: Path | None = None) -> str:
        """A command on the first node; its stdout."""
        done = self.lan[0].run(*words, env=self.env, cwd=cwd or self.folder, check=False)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}{self.text()}"
        return done.stdout

    def wait_for_nodes(self) -> None:
        idle = len(self.lan.machines)

        def up() -> bool:
            done = self.lan[0].run("sinfo", "-h", "-p", "low", "-N", "-o", "%T", env=self.env, check=False)
            return done.stdout.split().count("idle") == idle

        wait_for(up, 60, sorted(self.folder.glob("*.log")))

    def submit(self, *words: object, cwd: Path) -> int:
        """`sbatch words`: the job's number."""
        return int(self.run("sbatch", "--parsable", *words, cwd=cwd).split(";")[0])

    def job(self, number: int) -> dict[str, str]:
        """What `scontrol show job` says of it."""
        words = self.run("scontrol", "-o", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def state(self, number: int) -> str:
        return self.job(number)["JobState"]

    def until(self, number: int, *states: str, seconds: float) -> None:
        wait_for(lambda: self.state(number) in states, seconds, sorted(self.folder.glob("*.log")))

    def text(self) -> str:
        return "\n".join(f"== {p.name}\n{p.read_text()[-2000:]}" for p in sorted(self.folder.glob("*.log")))

    def __enter__(self) -> RealSlurm:
        self.wait_for_nodes()
        return self

    def __exit__(self, *exc: object) -> None:
        for p in self.daemons:  # what brought them there: they themselves end with their machines
            p.kill()
            p.wait(20)
