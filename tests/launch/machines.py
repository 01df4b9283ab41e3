"""Machines made of this one: each with its own network, processes and /tmp, and the same files otherwise.

A `Lan` joins them by a bridge; its cables can be cut. Needs root, util-linux and iproute2 (`skip_without()`); nothing of it
outlives the process that made it, however that ends. `ray stop` on such a machine ends that machine's Ray alone."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Self

import psutil
import pytest

ROOT = Path(__file__).parents[2]
_numbers = itertools.count()
# The first process of a machine: it ends with its maker, and everything on the machine ends with it.
INIT = """
import os, signal, subprocess, sys
def run(line, *fds): subprocess.run(line.split(), check=True, pass_fds=fds)
kept = {path: os.open(path, os.O_PATH) for path in sys.argv[1:]} # of /tmp, and seen in all machines
for line in ("mount --make-rprivate /", "mount -t proc proc /proc", "mount -t tmpfs -o mode=1777 tmpfs /tmp", "ip link set lo up"):
    run(line)
for path, fd in kept.items():
    os.makedirs(path)
    run(f"mount -c --bind /proc/self/fd/{fd} {path}", fd)
signal.signal(signal.SIGCHLD, signal.SIG_IGN) # orphans of the machine are its children: nobody waits for them
print("up", flush=True)
sys.stdin.read()
"""


class Machine:
    """One of them. `address` is in the Lan's network, if it is on one; `shared`: folders below /tmp that stay visible."""

    def __init__(self, name: str, address: str = "", shared: Sequence[Path] = ()):
        self.name, self.address = name, address
        self.outer = subprocess.Popen(
            [
                "unshare",
                "--net",
                "--pid",
                "--mount",
                "--uts",
                "--fork",
                "--kill-child",
                sys.executable,
                "-c",
                INIT,
                *map(str, shared),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.outer.stdout is not None
        assert self.outer.stdout.readline() == "up\n"
        (self.init,) = psutil.Process(self.outer.pid).children()
        self.run("hostname", name)

    def command(self, *words: object, cwd: Path = ROOT) -> list[str]:
        """What runs `words` on it. A process that enters a machine is in its root folder, whatever Popen's `cwd` says."""
        words = ("env", "-C", cwd, *words)
        return ["nsenter", "-t", str(self.init.pid), "-n", "-p", "-m", "-u", "--", *map(str, words)]

    def popen(self, *words: object, cwd: Path = ROOT, **kwargs: Any) -> subprocess.Popen:
        return subprocess.Popen(self.command(*words, cwd=cwd), **kwargs)

    def start(self, words: Sequence[object], **kwargs: Any) -> subprocess.Popen:
        """`words` in a session of its own, as an init system would start it."""
        return self.popen(*words, stdin=subprocess.DEVNULL, start_new_session=True, **kwargs)

    def run(self, *words: object, timeout: float = 60, **kwargs: Any) -> subprocess.CompletedProcess:
        kwargs = {"capture_output": True, "text": True, "check": True, **kwargs}
        cwd = kwargs.pop("cwd", ROOT)
        return subprocess.run(self.command(*words, cwd=cwd), timeout=timeout, **kwargs)

    def processes(self, word: str = "") -> list[psutil.Process]:
        """What runs on it, but for the first process; with `word` in the command line."""
        inside = os.stat(f"/proc/{self.init.pid}/ns/pid").st_ino
        found = []
        for p in psutil.process_iter():
            try:
                mine = os.stat(f"/proc/{p.pid}/ns/pid").st_ino == inside and p.pid != self.init.pid
                if mine and p.status() != psutil.STATUS_ZOMBIE and word in " ".join(p.cmdline()):
                    found.append(p)
            except (OSError, psutil.Error):
                continue
        return found

    def down(self) -> None:
        """Power off: every process of it is killed at once."""
        if self.init.is_running():
            self.init.kill()
        assert self.outer.stdin is not None and self.outer.stdout is not None
        self.outer.stdin.close()
        self.outer.stdout.close()
        self.outer.wait(20)


class Lan:
    """`count` machines on a network of their own, 10.77.N.1, 10.77.N.2, ..., which all see the folders `shared`."""

    def __init__(self, count: int, *shared: Path):
        number = next(_numbers)
        self.tag = f"dv{os.getpid() % 10**6}{number}"
        self.network = f"10.{77 + number}.{os.getpid() % 250}"
        self.machines: list[Machine] = []
        places = [*shared, ROOT, Path(sys.prefix)]  # what the machines run lies there
        self.shared = [p for p in places if p.resolve().is_relative_to("/tmp")]
        try:
            self.switch = Machine("switch")
            self.switch.run("ip", "link", "add", "lan", "type", "bridge")
            self.switch.run("ip", "link", "set", "lan", "up")
            for i in range(1, count + 1):
                self._add(i)
        except BaseException:
            self.__exit__()
            raise

    def _add(self, i: int) -> None:
        machine = Machine(f"node{i}", f"{self.network}.{i}", self.shared)
        self.machines.append(machine)
        port = f"port{i}"
        # made in the switch's network, so that nothing of it is ever in ours
        ends = f"{port} type veth peer name eth0 netns {machine.init.pid}".split()
        inside = ["nsenter", "-t", str(self.switch.init.pid), "-n", "--"]
        subprocess.run([*inside, "ip", "link", "add", *ends], check=True, capture_output=True, timeout=60)
        self.switch.run("ip", "link", "set", port, "master", "lan", "up")
        machine.run("ip", "address", "add", f"{machine.address}/24", "dev", "eth0")
        machine.run("ip", "link", "set", "eth0", "up")
        machine.run("ip", "route", "add", "default", "via", f"{self.network}.254")  # nobody: but addresses have a route

    def cut(self, i: int) -> None:
        """Pull machine `i`'s cable (counted from 0)."""
        self.switch.run("ip", "link", "set", f"port{i + 1}", "down")

    def mend(self, i: int) -> None:
        self.switch.run("ip", "link", "set", f"port{i + 1}", "up")

    def __getitem__(self, i: int) -> Machine:
        return self.machines[i]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for machine in [*self.machines, *([self.switch] if hasattr(self, "switch") else [])]:
            machine.down()


@cache
def why_not() -> str:
    """Why there are no such machines here; empty where there are."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "machines need Linux and root"
    for tool in ("unshare", "nsenter", "ip", "mount"):
        if shutil.which(tool) is None:
            return f"machines need {tool}"
    try:
        with Lan(1) as lan:
            lan[0].run("ip", "address")
    except (subprocess.SubprocessError, OSError, AssertionError) as e:
        return f"machines cannot be made here: {e}"
    return ""


def skip_without() -> None:
    if why := why_not():
        pytest.skip(why)


def environment(**more: str) -> Mapping[str, str]:
    """Ours, without what ties a process to another Ray."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "SLURM_"))} | more


def wait_for(what, seconds: float, told: Sequence[Path] = ()) -> None:
    """Until `what()`; else fails, with the end of the files `told`."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            pytest.fail("\n".join([f"nothing after {seconds} s", *(p.read_text()[-3000:] for p in told)]))
        time.sleep(0.2)
