"""Requests through files, answered by the driver's side; its record."""

import json
import threading

import pytest
from lives import Clock, desk

from distvae.operate import record, requests
from distvae.operate.desk import DRAINING, NOT_TRAINING
from distvae.operate.pulse import Pulse


def asked(out):
    return list((out / "requests").glob("*.json"))


def test_a_drain_is_taken_once_answered_and_removed(tmp_path):
    one = desk(tmp_path)
    heard = []
    one.drain = heard.append
    one.beat()
    name = requests.send(tmp_path, one.run, "drain")
    one.take()
    one.take()
    assert len(heard) == 1 and "process" in heard[0]
    assert len(asked(tmp_path)) == 1, "until its answer can be read"
    one.beat()
    assert asked(tmp_path) == [] and requests.answer(Pulse(tmp_path), name) == {"sweep": DRAINING}


def test_trials_are_stopped_on_the_drivers_thread_and_the_one_who_asks_waits_for_it(tmp_path):
    one = desk(tmp_path)
    one.serving = True
    threads = []

    def stop(keys):
        threads.append(threading.current_thread())
        return {key: "stops" for key in keys}

    with one:
        name = requests.send(tmp_path, one.run, "stop", ["aa", "bb"])
        clock = Clock(lambda at: (threading.Event().wait(0.02), one._wake.set(), one.serve(stop)))
        assert requests.answer(Pulse(tmp_path), name, clock.sleep) == {"trials": {"aa": "stops", "bb": "stops"}}
    assert threads == [threading.current_thread()]


def test_what_was_asked_of_an_earlier_launch_does_not_reach_this_one(tmp_path):
    first, second = desk(tmp_path), desk(tmp_path)
    requests.send(tmp_path, first.run, "drain")
    (tmp_path / "requests" / "torn.json").write_text('{"to": "')
    second.drain = pytest.fail
    second.take()
    assert asked(tmp_path) == []


def test_no_trial_is_stopped_where_none_is_trained(tmp_path):
    one = desk(tmp_path)
    requests.send(tmp_path, one.run, "stop", ["aa"])
    one.take()
    assert list(one.answers.values()) == [{"trials": {"aa": NOT_TRAINING}}]


def test_nobody_answers_when_the_sweep_ends(tmp_path):
    one = desk(tmp_path)
    one.beat()
    name = "never"
    clock = Clock(lambda at: one.__exit__(None, None, None) if at > 3 else None)
    one._thread.start()
    assert requests.answer(Pulse(tmp_path), name, clock.sleep) is None


def test_a_full_disk_costs_beats_and_no_answer(tmp_path, monkeypatch):
    one = desk(tmp_path)
    one.beat()
    name = requests.send(tmp_path, one.run, "drain")
    one.take()
    write = record.write

    def full(out, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record, "write", full)
    one.beat()
    assert len(asked(tmp_path)) == 1
    monkeypatch.setattr(record, "write", write)
    one.beat()
    found = record.read(tmp_path)
    assert found["beat"] == 3 and name in found["answers"] and asked(tmp_path) == []


def test_the_record_says_what_a_person_wants_to_know(tmp_path):
    one = desk(tmp_path, total=5)
    p = one.progress
    p.report("a" * 16, 3, 10, [{"split": "valid", "elbo_nats": -20.0, "measure": "binary", "epoch": 10}], "r=0")
    p.report("b" * 16, 10, 10, [], "r=1")
    p.end("b" * 16, "failed")
    one.beat()
    text = (tmp_path / record.FILE).read_text()
    found = json.loads(text)
    assert found["running"] == [{"key": "a" * 16, "epoch": 3, "epochs": 10}]
    assert found["failed"] == ["b" * 16] and found["counts"]["failed"] == 1 and found["planned"] == 5
    assert found["best"] == [{"measure": "binary", "elbo_nats": -20.0, "label": "r=0"}]
    assert found["owner"]["pid"] and found["owner"]["host"] and found["ended"] is None and len(text) < 4000


@pytest.mark.parametrize("e, code", [(KeyboardInterrupt(), 130), (ValueError("bad"), 1)])
def test_an_exception_is_an_end_too(tmp_path, e, code):
    with pytest.raises(type(e)), desk(tmp_path):
        raise e
    ended = record.read(tmp_path)["ended"]
    assert ended["exit_code"] == code and ended["why"] in ("bad", "KeyboardInterrupt")


def test_an_error_a_user_can_mend_keeps_its_exit_code(tmp_path):
    from distvae.sweeps.driver import ResourcesError

    with pytest.raises(ResourcesError), desk(tmp_path):
        raise ResourcesError("no room")
    assert record.read(tmp_path)["ended"] == {"exit_code": 4, "why": "no room"}


def test_ray_that_does_not_start_is_the_environments_fault(tmp_path, monkeypatch):
    import ray

    from distvae.cli import exit_code
    from distvae.sweeps import cluster, reach

    def init(**settings):
        raise ConnectionError("ray client connection timeout\nand more")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(reach, "check", lambda address: None)  # it answered when we looked
    with (
        pytest.raises(
            cluster.ClusterError, match=r"Ray at far:1 could not be started: ray client connection timeout$"
        ) as e,
        cluster.connect("far:1"),
    ):
        pytest.fail("there is no such cluster")
    assert exit_code(e.value) == 4
