"""Processes that die or are told to stop: the driver, a worker, Ray's head, Ctrl-C once and twice, SIGTERM as SLURM sends it."""

import contextlib
import signal
import time

import psutil
import pytest
from faulted import before, cannot, config, contents, holds, running, same_command_again

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def struck(tmp_path, clean, when, strike):
    """A sweep, `strike(sweep)` at the moment, its exit code, and what had been saved then."""
    path, out = config(tmp_path), tmp_path / "out"
    with running(path, out, when, clean) as sweep:
        then = before(out)
        code = strike(sweep)
        assert sweep.all_gone(), sweep.survivors()
        said = sweep.text()
    return path, out, then, code, said


def test_driver_killed(tmp_path, clean, when, tell):
    """driver `kill -9`"""
    path, out, then, code, _ = struck(tmp_path, clean, when, lambda s: s.end(signal.SIGKILL))
    assert code == -signal.SIGKILL
    same_command_again(path, out)
    tell(outcome=holds(path, out, then, clean.rows))


def named(sweep, name):
    """A living process of the sweep's Ray."""
    sweep.look()
    for p in sweep.family:
        with contextlib.suppress(psutil.Error):
            if p.is_running() and p.cmdline() and name in p.cmdline()[0]:
                return p
    return None


def kill(sweep, name, *, once="ray::"):
    """Kill a process of the sweep's Ray, once there is one and one called `once`; it may be too late for that."""
    while sweep.process.poll() is None:
        if named(sweep, once) and (found := named(sweep, name)):
            with contextlib.suppress(psutil.NoSuchProcess):
                found.kill()
                return
        time.sleep(0.05)
    cannot(f"the sweep was over, and its {name} gone")


def test_worker_killed(tmp_path, clean, when, tell):
    """worker `kill -9`: the sweep itself goes on"""
    path, out = config(tmp_path), tmp_path / "out"
    with running(path, out, when, clean) as sweep:
        kill(sweep, "ray::Rank")
        then = before(out)
        assert sweep.end(timeout=240) == 0, sweep.text()
        assert sweep.all_gone(), sweep.survivors()
    files = contents(out)
    same_command_again(path, out)
    assert contents(out) == files
    tell(outcome=holds(path, out, then, clean.rows))


def test_head_lost(tmp_path, clean, when, tell):
    """Ray head loss (its GCS killed)

    Once Ray is up: a driver that is registering with it then is ended by Ray's own C++, with exit 1 after a minute."""

    def strike(sweep):
        kill(sweep, "gcs_server")
        return sweep.end(timeout=120)

    path, out, then, code, said = struck(tmp_path, clean, when, strike)
    assert code == 4, said
    assert "Ray" in said and "same command" in said and "Traceback" not in said
    same_command_again(path, out)
    tell(outcome=f"exit 4; {holds(path, out, then, clean.rows)}")


# In the end there is no Ray to lose, and no worker some time before
test_head_lost.phases = test_worker_killed.phases = (
    ("starting", 0.08, 1.0),
    ("training", 0.0, 0.4),
    ("training", 0.4, 0.8),
)


# What a sweep says last: one that is asked to stop after it ends as what it did, and not before
COMPLETE = "complete: 4 of 4 trials ended (4 finished)"


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_asked_to_stop(tmp_path, clean, when, sig, tell):
    """asked to stop"""
    complete = []

    def strike(sweep):
        complete.append(COMPLETE in sweep.text())
        return sweep.end(sig)

    path, out, then, code, said = struck(tmp_path, clean, when, strike)
    assert code == 130 or (code == 0 and complete == [True]), said
    assert "Traceback" not in said
    kept = contents(out)
    same_command_again(path, out)
    assert contents(out).items() >= kept.items()
    name = "Ctrl-C once" if sig == signal.SIGINT else "SIGTERM (as SLURM sends it)"
    tell(fault=name, outcome=f"exit {code}; {holds(path, out, then, clean.rows)}")


def test_two_ctrl_c(tmp_path, clean, when, tell):
    """Ctrl-C twice: it stops at once"""

    complete = []

    def strike(sweep):
        complete.append(COMPLETE in sweep.text())
        sweep.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        began = time.monotonic()
        code = sweep.end(signal.SIGINT) if sweep.process.poll() is None else sweep.process.wait()
        assert time.monotonic() - began < 15
        return code

    path, out, then, code, said = struck(tmp_path, clean, when, strike)
    assert (code == 130 or (code == 0 and complete == [True])) and "Traceback" not in said, said
    same_command_again(path, out)
    tell(outcome=f"exit {code}; {holds(path, out, then, clean.rows)}")
