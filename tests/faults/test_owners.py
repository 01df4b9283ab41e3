"""Eight launches at once on one OUT: one owns it, the others are told so; a dead owner's lock is taken over."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import threading
import time

import pytest
from driver import Sweep
from faulted import before, config, holds, same_command_again

from distvae.sweeps.lock import OutLockedError, hold_out

pytestmark = pytest.mark.timeout(600)
LAUNCHES = 8


def test_a_dead_owner_is_not_named(tmp_path, tell):
    """a launch between another's taking of the lock and its writing of its name over a dead owner's"""
    dead = subprocess.Popen(["true"])
    dead.wait()

    def sign(pid):
        lock.write_text(json.dumps({"pid": pid, "host": socket.gethostname()}))

    lock = tmp_path / ".lock"
    sign(dead.pid)
    with open(lock) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        later = threading.Timer(0.3, sign, [os.getpid()])
        later.start()
        with pytest.raises(OutLockedError, match=f"process {os.getpid()} on"), hold_out(tmp_path):
            pass
        later.join()
    tell(outcome="refused, and the owner that lives is named")


@pytest.mark.slow
def test_eight_at_once(tmp_path, clean, tell):
    """eight simultaneous launches on one OUT"""
    path, out = config(tmp_path), tmp_path / "out"
    sweeps = [Sweep(path, out, log=tmp_path / f"{i}.stderr") for i in range(LAUNCHES)]
    try:
        deadline = time.monotonic() + 120
        while sum(s.process.poll() is None for s in sweeps) > 1:
            assert time.monotonic() < deadline, [s.text() for s in sweeps]
            time.sleep(0.2)
        (owner,) = [s for s in sweeps if s.process.poll() is None]
        others = [s for s in sweeps if s is not owner]
        assert [s.process.returncode for s in others] == [5] * (LAUNCHES - 1), [s.text() for s in others]
        assert all(f"process {owner.process.pid} on" in s.text() for s in others)
        owner.wait_for(lambda: before(out).saved)
        then = before(out)
        owner.end(signal.SIGKILL)
        assert owner.all_gone(), owner.survivors()
    finally:
        for s in sweeps:
            s.__exit__()
    same_command_again(path, out)
    held = holds(path, out, then, clean.rows)
    tell(outcome=f"one owner, {LAUNCHES - 1} refused with exit 5; the owner was killed and its lock taken over; {held}")
