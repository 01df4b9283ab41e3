"""A sweep that is watched, steered and continued while it runs; slow: what survives which signal."""

import json
import os
import pty
import signal
import subprocess
import time

import psutil
import pytest
from driver import CLI, Sweep, distvae, heeds_ctrl_c, write_config
from test_stop_in_a_group import close, train

from distvae.config import load
from distvae.operate import record
from distvae.operate.pulse import Pulse
from distvae.results import ledger
from distvae.sweeps.plan import write_plan

pytestmark = [pytest.mark.sweep, pytest.mark.timeout(420)]

# A stack of three, endless until somebody stops them, and cheap: an epoch is a step.
LONG = """
name: long
vae: {encoder: {type: mlp, hidden: [8]}, latent_dim: 2}
objective: {type: elbo, beta: {grid: [0.1, 1, 4]}}
train: {epochs: 1000000, batch_size: 1437}
evaluate: {every: 100, train_examples: 1}
resources: {keep: all, concurrency: 1}
engine: torch
"""


def rows(out):
    table = ledger.load(out).drop_columns(["wall_s", "attempt", "status"]).to_pylist()
    return {(r["trial_key"], r["epoch"], r["split"]): r for r in table}


def running(out):
    found = record.read(out)
    return {} if found is None else {t["key"]: t["epoch"] for t in found["running"]}


def status(out):
    return {key: end.status for key, end in ledger.scan(out, mend=False)[0].items()}


def of(out, *keys):
    return {at: row for at, row in rows(out).items() if at[0] in keys}


def test_watched_stopped_and_extended(tmp_path):
    """From other processes: one trial of a stack is stopped, then the sweep. Then it is extended from OUT alone, once what
    was left of it has been committed."""
    config, out = tmp_path / "long.yaml", tmp_path / "out"
    config.write_text(LONG)
    first, chosen, last = keys = [t.key for t in load(config).trials]
    with Sweep(config, out) as sweep, open(tmp_path / "watched", "wb") as f:
        sweep.wait_for(lambda: len(running(out)) == 3 and min(running(out).values()) > 100)
        watching = subprocess.Popen([*CLI, "status", str(out), "--watch"], stderr=f)
        seen = json.loads(distvae("status", out, "--json").stdout)["run"]
        assert seen["state"] == "running" and seen["owner"]["pid"] == sweep.process.pid
        done = distvae("stop", out, chosen[:8])
        assert done.returncode == 0 and f"trial {chosen} stops within seconds" in done.stderr
        sweep.wait_for(lambda: status(out) == {chosen: "stopped"})
        before = running(out)
        sweep.wait_for(
            lambda: set(running(out)) == {first, last} and all(running(out)[k] > before[k] for k in (first, last))
        )
        assert distvae("stop", out, "--all").returncode == 0
        assert sweep.process.wait(60) == 130 == watching.wait(30), sweep.text()
        assert sweep.all_gone(), sweep.survivors()
    text, watched = sweep.text(), (tmp_path / "watched").read_text()
    assert text.splitlines()[-1].startswith("interrupted by distvae stop --all") and "2 trials not ended" in text
    assert "3 running" in watched and "ended after" in watched and "distvae stop --all" in watched
    assert f"trial {chosen} (" in text and "as asked" in text and "raylet" not in text and "(pid=" not in text
    stopped = of(out, chosen)
    assert stopped and not of(out, first, last)

    reached = {key: json.loads(newest(out, key).read_text())["epoch"] for key in keys}
    planned = load(config, [f"train.epochs={min(reached[first], reached[last])}"])
    write_plan(out, planned)
    train(planned, out)
    assert status(out) == {first: "finished", chosen: "stopped", last: "finished"}
    there, more = rows(out), max(reached.values()) + 150
    done = distvae("extend", out, "--epochs", more)
    assert done.returncode == 0, done.stderr
    assert f"2 finished trials go on from their checkpoints to epoch {more}" in done.stderr
    assert done.stderr.splitlines()[-1] == "complete: 3 of 3 trials ended (2 finished, 1 stopped)"
    after = rows(out)
    assert of(out, chosen) == stopped and all(after[at] == row for at, row in there.items())
    for key in (first, last):
        new = {epoch for k, epoch, _ in after.keys() - there.keys() if k == key}
        assert max(new) == more and min(new) > reached[key], "from its checkpoint, not from the start"


def newest(out, key):
    return sorted((out / "checkpoints" / key).glob("ep*/state.json"))[-1]


# --- slow -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow  # below Ray: test_stop_in_a_group.py
def test_a_stop_leaves_the_neighbours_rows_as_they_would_have_been(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(LONG.replace("1000000", "6000"))
    first, chosen, last = [t.key for t in load(config).trials]
    plain, out = tmp_path / "plain", tmp_path / "out"
    assert distvae("sweep", config, "--out", plain).returncode == 0
    with Sweep(config, out) as sweep:
        sweep.wait_for(lambda: running(out).get(chosen, 0) > 100)
        distvae("stop", out, chosen)
        assert sweep.process.wait(240) == 0, sweep.text()
    assert status(out) == {first: "finished", chosen: "stopped", last: "finished"}
    expected, found = of(plain, first, last), of(out, first, last)
    assert found.keys() == expected.keys()
    assert all(close(row, expected[at]) for at, row in found.items())
    assert of(out, chosen).items() < of(plain, chosen).items()


@pytest.mark.slow  # below Ray: test_pulse.py, test_look.py
def test_a_killed_driver_is_told_from_one_that_ended(tmp_path):
    config, out = tmp_path / "long.yaml", tmp_path / "out"
    config.write_text(LONG)
    with Sweep(config, out) as sweep, open(tmp_path / "watched", "wb") as f:
        sweep.wait_for(lambda: len(running(out)) == 3)
        watching = subprocess.Popen([*CLI, "status", str(out), "--watch"], stderr=f)
        time.sleep(8)
        sweep.end(signal.SIGKILL)
        assert watching.wait(30) == 3
        assert sweep.all_gone(), sweep.survivors()
    said = distvae("status", out)
    for text in (said.stderr, (tmp_path / "watched").read_text()):
        assert "died without saying so: last sign of life" in text and "run the same command to go on" in text
    assert "no sweep is running" in distvae("stop", out, "--all").stderr
    key = load(config).trials[0].key
    assert f"trial {key} is stopped, with" in distvae("stop", out, key).stderr
    assert status(out)[key] == "stopped"


@pytest.mark.slow
def test_detached_it_survives_its_terminal_and_can_be_attached_to(tmp_path):
    config, out = tmp_path / "long.yaml", tmp_path / "out"
    config.write_text(LONG)
    pid, terminal = pty.fork()  # a terminal of its own, which is then closed: its session gets SIGHUP
    if pid == 0:
        os.execv(CLI[0], [*CLI, "sweep", str(config), "--out", str(out), "--detach"])
    said = until_closed(terminal, pid)
    assert "it runs in the background" in said and f"distvae stop {out} --all" in said, said
    pulse = Pulse(out)
    assert pulse.tell() == "running" and pulse.seen is not None
    driver = psutil.Process(pulse.seen["owner"]["pid"])
    try:
        assert os.getsid(driver.pid) == driver.pid and driver.terminal() is None
        with open(tmp_path / "attached", "wb") as f:
            attached = subprocess.Popen([*CLI, "attach", str(out)], stderr=f, preexec_fn=heeds_ctrl_c)
            wait_for(lambda: "3 running" in (tmp_path / "attached").read_text())
            attached.send_signal(signal.SIGINT)
            assert attached.wait(30) == 130 and driver.is_running(), "Ctrl-C leaves the sweep alone"
        with open(tmp_path / "attached", "wb") as f:
            attached = subprocess.Popen([*CLI, "attach", str(out)], stderr=f)
            wait_for(lambda: "3 running" in (tmp_path / "attached").read_text())
            assert distvae("stop", out, "--all").returncode == 0
            assert attached.wait(60) == 130
        assert (tmp_path / "attached").read_text().splitlines()[-1].startswith("interrupted by distvae stop --all")
        psutil.wait_procs([driver], timeout=30)
        assert not driver.is_running()
    finally:
        if driver.is_running():
            driver.kill()


def until_closed(terminal, pid):
    """What is said on a terminal until the command in it ends, then close it."""
    said = b""
    try:
        while chunk := os.read(terminal, 4096):
            said += chunk
    except OSError:  # Linux: the other side is closed
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, said.decode()
    os.close(terminal)
    return said.decode()


def wait_for(what, timeout=120):
    deadline = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.slow
def test_a_config_that_is_wrong_is_said_before_it_is_on_its_own(tmp_path):
    config = tmp_path / "bad.yaml"
    config.write_text("data: {type: digitz}\n")
    done = distvae("sweep", config, "--out", tmp_path / "out", "--detach")
    assert done.returncode == 2 and "did you mean 'digits'" in done.stderr and "background" not in done.stderr


@pytest.mark.slow
def test_a_failed_trial_is_retried_from_out_alone(tmp_path):
    config, out = write_config(tmp_path, epochs=2, seeds=1), tmp_path / "out"
    bad = load(config).trials[0].key
    blocked = out / "checkpoints" / bad / "model.safetensors"
    blocked.mkdir(parents=True)
    first = distvae("sweep", config, "--out", out)
    assert first.returncode == 3 and first.stderr.splitlines()[-1].startswith("incomplete: 1 failed trial")
    assert "IsADirectoryError" in distvae("logs", out, bad[:6]).stdout
    config.unlink()
    blocked.rmdir()
    again = distvae("retry", out, "--failed", cwd=tmp_path)
    assert again.returncode == 0 and f"trial {bad} (failed)" in again.stderr
    assert set(status(out).values()) == {"finished"}


@pytest.mark.slow
def test_a_trial_that_waits_ends_at_once_and_one_that_runs_by_itself_soon(tmp_path):
    config, out = tmp_path / "long.yaml", tmp_path / "out"
    config.write_text(LONG.replace("concurrency: 1", "concurrency: 1, fuse: off"))
    keys = [t.key for t in load(config).trials]
    with Sweep(config, out) as sweep:
        sweep.wait_for(lambda: min(running(out).values(), default=0) > 100)
        (runs,) = running(out)
        waits, other = (k for k in keys if k != runs)
        assert f"trial {waits} is stopped" in distvae("stop", out, waits).stderr
        assert status(out) == {waits: "stopped"}
        assert f"trial {waits} has ended already" in distvae("stop", out, waits).stderr
        assert distvae("stop", out, runs, other).returncode == 0
        assert sweep.process.wait(90) == 0, sweep.text()
    assert sweep.text().splitlines()[-1] == "complete: 3 of 3 trials ended (3 stopped)"
    assert {key for key, _, _ in of(out, runs)} == {runs} and all(r["n_examples"] == 0 for r in of(out, waits).values())


@pytest.mark.slow
def test_a_seed_that_is_stopped_says_nothing_to_tunes_scheduler(tmp_path):
    """The other seed of its configuration is judged by itself, and trained to the end as the better one."""
    config, out = tmp_path / "asha.yaml", tmp_path / "out"
    text = (
        LONG.replace("[0.1, 1, 4]", "[1, 400]").replace("1000000", "4000").replace("concurrency: 1", "concurrency: 2")
    )
    config.write_text(text + "seeds: 2\nsearch: {scheduler: {type: asha, grace: 3000, eta: 2}}\n")
    chosen, other = [t.key for t in load(config).trials if t.objective.beta == 1]
    with Sweep(config, out) as sweep:
        sweep.wait_for(lambda: running(out).get(chosen, 0) > 100)
        assert "stops within seconds" in distvae("stop", out, chosen).stderr
        assert sweep.process.wait(300) == 0, sweep.text()
    found = status(out)
    assert found[chosen] == "stopped" and found[other] == "finished", sweep.text()
    assert max(e for _, e, _ in of(out, chosen)) < 3000


@pytest.mark.slow
def test_stopped_hard_is_no_mystery(tmp_path):
    config, out = tmp_path / "long.yaml", tmp_path / "out"
    config.write_text(LONG)
    with Sweep(config, out) as sweep:
        sweep.wait_for(lambda: len(running(out)) == 3)
        sweep.process.send_signal(signal.SIGINT)
        sweep.wait_for(lambda: record.read(out)["draining"])
        assert sweep.end(signal.SIGINT, timeout=20) == 130
        assert sweep.all_gone(), sweep.survivors()
    done = distvae("status", out, "--watch")
    assert done.returncode == 130
    assert "was stopped hard while it was saving" in done.stderr or "interrupted by Ctrl-C" in done.stderr
