"""What is left when a driver dies in the middle of a sweep, without Ray: real signals, the real reaper, and a process
that stands for the cluster. test_nothing_is_lost.py has the same with Ray."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

DRIVER = """
import subprocess, sys, time
from pathlib import Path
from distvae.config import loads
from distvae.operate.desk import Desk
from distvae.sweeps import cluster
from distvae.sweeps.book import Book
from distvae.sweeps.driver import Driver
from distvae.sweeps.outcome import Outcome
from distvae.sweeps.progress import Progress

out, temp = map(Path, sys.argv[1:])
class Shown:
    say = staticmethod(lambda text: print(text, flush=True))

desk = Desk(out, "s", Progress(1), Shown())
book = Book(loads("seeds: 1"), out, [], Outcome(out, 1), Progress(1), Shown.say, desk)
driver = Driver(book, Shown(), None, desk)
with driver._signals(), cluster._reaped(str(temp)):
    settings = cluster._local_settings(str(temp))
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env=settings)
    print(child.pid, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def driver(tmp_path):
    """(the process of a driver, the process of its cluster, its scratch folder)"""
    temp = tmp_path / "dv"
    temp.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, tmp_path / "out", temp],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    cluster = psutil.Process(int(process.stdout.readline()))
    yield process, cluster, temp
    for p in (process, cluster):
        if p.is_running() if isinstance(p, psutil.Process) else p.poll() is None:
            p.kill()
    process.stdout.close()


def gone(cluster, temp, seconds=20.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        alive = cluster.is_running() and cluster.status() != psutil.STATUS_ZOMBIE
        if not alive and not temp.exists():
            return True
        time.sleep(0.05)
    return False


def test_the_first_ctrl_c_drains_and_the_second_stops_hard(driver):
    process, cluster, temp = driver
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline().startswith("stopping: running trials save and stop")
    assert process.poll() is None and cluster.is_running()
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert time.monotonic() - started < 15
    assert gone(cluster, temp)


def test_kill_9_leaves_nothing(driver):
    process, cluster, temp = driver
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(20) == -signal.SIGKILL
    assert gone(cluster, temp)
