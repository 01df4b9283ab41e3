"""The script that `distvae launch slurm` writes, run by bash, with a SLURM, a `ray` and a `distvae` that only do what it
sees of them: signals, exit codes, the queue. test_on_a_cluster.py has a real Ray."""

import signal
import stat
import subprocess
from pathlib import Path

import pytest
from commands import command
from slurm import Slurm

# `ray symmetric-run`: the command behind `--`, and its exit code
RAY = """#!/bin/sh
[ "$1" = stop ] && exit 0
[ -n "$NO_RAY" ] && { echo "Failed to start Ray" >&2; exit 0; }
while [ -n "$RAY_WAITS" ] && [ ! -e "$FAKE_SLURM/go" ]; do sleep 0.05; done
echo "$@" > "$FAKE_SLURM/ray"
while [ "$1" != -- ]; do shift; done
shift
"$@"
"""
SWEEP = """#!/bin/bash
trap 'echo "stopping: saved"; exit 130' TERM
echo "$RAY_AUTH_MODE $RAY_AUTH_TOKEN" > "$FAKE_SLURM/token"
echo "$@" > "$FAKE_SLURM/sweep"
[ -n "$ENDS" ] && exit "$ENDS"
while :; do sleep 0.1; done
"""


@pytest.fixture
def slurm(capsys, tmp_path):
    """A SLURM that has the job, and `submit` to start it."""
    config = tmp_path / "x.yaml"
    config.write_text("name: x\n")
    assert command(capsys, "launch", "slurm", config, "--out", "out", "--to", tmp_path, "--nodes", 1).code == 0

    def start(words, **kwargs):
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True, **kwargs)

    made = Slurm(tmp_path, ["localhost"], [start])
    for name, text in (("ray", RAY), ("distvae", SWEEP)):
        (made.bin / name).write_text(text)
        (made.bin / name).chmod(0o755)
    script = tmp_path / "x.sbatch"
    yield made, lambda **env: made.submit(script, tmp_path, TMPDIR=str(tmp_path), **env)
    made.close()


def left(slurm) -> list[Path]:
    return list(slurm.bin.parent.glob("distvae-*"))


@pytest.mark.parametrize("sig, requeued", [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_a_signal_drains_and_only_a_warning_queues_the_job_again(slurm, sig, requeued):
    job, submit = slurm
    submit()
    job.until(lambda: (job.spool / "token").exists() and (job.spool / "sweep").exists(), 60)
    (run,) = left(job)
    mode, token = (job.spool / "token").read_text().split()
    assert mode == "token" and len(token) == 64 and (run / "token").read_text() == token
    assert stat.S_IMODE(run.stat().st_mode) == 0o700
    job.signal(sig)
    job.signal(sig)  # a second one asks for nothing new
    assert job.end(60) == 130, job.text()
    assert job.requeued == requeued and "stopping: saved" in job.text()
    assert not left(job)
    words = (job.spool / "ray").read_text()
    assert "symmetric-run --address 127.0.0.1:6379 --min-nodes 1" in words and "--dashboard-host=127.0.0.1" in words
    assert token not in words and token not in job.text()
    assert (job.spool / "sweep").read_text().endswith("--out out --address 127.0.0.1:6379\n")


@pytest.mark.parametrize("code", [0, 1, 3, 5])
def test_the_exit_code_is_the_sweeps(slurm, code):
    job, submit = slurm
    submit(ENDS=str(code))
    assert job.end(60) == code and not job.requeued and not left(job)


def test_no_ray_is_exit_code_4_although_symmetric_run_ends_with_0(slurm):
    job, submit = slurm
    submit(NO_RAY="1")
    assert job.end(60) == 4 and "Failed to start Ray" in job.text()


def test_a_warning_before_the_sweep_has_started(slurm):
    job, submit = slurm
    submit(RAY_WAITS="1")
    job.until(lambda: job.tasks, 60)
    job.signal(signal.SIGUSR1)
    job.until(lambda: (left(job)[0] / "stop").exists(), 60)
    (job.spool / "go").touch()
    assert job.end(60) in (130, 143) and job.requeued


def test_each_start_has_a_token_of_its_own(slurm):
    job, submit = slurm
    seen = set()
    for _ in range(2):
        submit(ENDS="0")
        assert job.end(60) == 0
        seen.add((job.spool / "token").read_text())
    assert len(seen) == 2
