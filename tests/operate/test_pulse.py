"""Does the sweep live? Judged beside its driver by the process, elsewhere by its beats, never by comparing clocks."""

import os
import subprocess
import sys
import time

import pytest
from lives import Clock, desk, elsewhere

from distvae.operate import record
from distvae.operate.pulse import LATE_S, Pulse


def test_no_record_is_no_sweep(tmp_path):
    assert Pulse(tmp_path).tell() is None
    (tmp_path / record.FILE).write_text("{ half a reco")
    assert Pulse(tmp_path).tell() is None
    (tmp_path / record.FILE).write_text('{"format": 99}')
    assert Pulse(tmp_path).tell() is None


def test_beside_its_driver_it_is_known_at_once_and_its_end_too(tmp_path):
    one = desk(tmp_path)
    with one:
        pulse = Pulse(tmp_path)
        assert pulse.tell(sleep=pytest.fail) == "running"
        one.close(3, "one failed")
    assert pulse.look() == "ended" and pulse.seen["ended"] == {"exit_code": 3, "why": "one failed"}


def test_a_driver_that_was_killed_died_and_its_number_given_to_another_changes_nothing(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        one = desk(tmp_path)
        one._owner = {**record.owner(), "pid": child.pid, "started": record.started(child.pid)}
        one.beat()
        assert Pulse(tmp_path).tell() == "running"
        found = record.read(tmp_path)
        record.write(tmp_path, {**found, "owner": {**found["owner"], "started": found["owner"]["started"] - 1}})
        assert Pulse(tmp_path).tell() == "died"  # the process of that number is younger
        one.beat()
    finally:
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert Pulse(tmp_path).tell() == "died"  # killed, and not yet waited for
        child.wait()
    assert Pulse(tmp_path).tell() == "died"


@pytest.mark.parametrize("clock", [-86400.0, 0.0, 86400.0])
def test_from_another_node_beats_decide_however_wrong_its_clock_is(tmp_path, clock):
    one = desk(tmp_path)
    one.beat()
    elsewhere(tmp_path, written_unix_s=time.time() + clock)

    def beat(at):
        if at < 10:
            elsewhere(tmp_path, beat=int(at), written_unix_s=time.time() + clock)

    ours = Clock(beat)
    pulse = Pulse(tmp_path, now=ours)
    assert pulse.look() == "unknown"
    assert pulse.tell(ours.sleep) == "running" and ours.at - 1000 <= 3
    ours.meanwhile = lambda at: None
    while (state := pulse.look()) == "running":
        ours.sleep(1)
    assert state == "died" and LATE_S < ours.at - 1000 < LATE_S + 5


def test_a_silent_driver_elsewhere_is_dead_only_after_a_while_and_may_speak_again(tmp_path):
    desk(tmp_path).beat()
    elsewhere(tmp_path)
    ours = Clock()
    pulse = Pulse(tmp_path, now=ours)
    assert pulse.tell(ours.sleep) == "died" and ours.at - 1000 > LATE_S
    elsewhere(tmp_path, beat=99)
    assert pulse.look() == "running"


def test_a_second_launch_is_another_life(tmp_path):
    first, second = desk(tmp_path), desk(tmp_path)
    with first:
        first.close(0, "complete")
    pulse = Pulse(tmp_path)
    assert pulse.look() == "ended"
    second.beat()  # its count begins anew, and may be the same number
    assert pulse.look() == "running" and pulse.seen["run"] == second.run
