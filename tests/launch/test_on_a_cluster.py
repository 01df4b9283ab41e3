"""Real sweeps on real Rays: the SLURM script's body on one node and on two, and what an `--address` with a token says. On
machines of namespaces (machines.py), for `ray symmetric-run` ends every Ray that it sees."""

import re
import signal
import subprocess
import time

import psutil
import pytest
from commands import command
from launched import LONG, nobody, once, reached, saved, starts
from machines import Lan, environment, skip_without
from slurm import Slurm

from distvae.config import load

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture
def lan(tmp_path, request):
    skip_without()
    with Lan(getattr(request, "param", 1), tmp_path) as lan:
        yield lan


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "long.yaml"
    path.write_text(LONG)
    return path


def script(capsys, tmp_path, config, *options) -> None:
    done = command(capsys, "launch", "slurm", config, "--out", "out", "--to", tmp_path, *options)
    assert done.code == 0, done.err


def batch(machine) -> psutil.Process:
    """The script itself: not nsenter, and no subshell."""
    (p,) = [p for p in machine.processes("long.sbatch") if p.name() == "bash" and "sweep=" not in " ".join(p.cmdline())]
    return p


def test_one_node_is_warned_cancelled_and_goes_on(capsys, tmp_path, config, lan, request):
    """USR1: saved, 130, queued again. TERM: saved, 130, not queued. Then it runs to its end; all on loopback."""
    config.write_text(LONG.replace("1500", "6000"))  # no trial may have ended before the second signal
    script(capsys, tmp_path, config, "--nodes", 1, "--cpus-per-node", 3)
    job, node, out = Slurm(tmp_path, ["node1"], [lan[0].start]), lan[0], tmp_path / "out"
    epochs = 0
    for sig, requeued in ((signal.SIGUSR1, True), (signal.SIGTERM, False)):
        job.submit(tmp_path / "long.sbatch", tmp_path)
        request.addfinalizer(job.close)
        job.until(lambda least=epochs: len(saved(out)) >= 2 and reached(out) > least and job.batch.poll() is None, 300)
        if requeued:
            listening = node.run("ss", "-Htln").stdout.splitlines()
            assert listening and all(
                line.split()[3].startswith(("127.", "[::ffff:127.", "[::1]")) for line in listening
            )
        batch(node).send_signal(sig)
        assert job.end(120) == 130, job.text()
        assert job.requeued == requeued and "stopping: running trials save and stop" in job.text()
        assert nobody(node), node.processes()
        assert reached(out) >= epochs
        epochs = reached(out)
    job.submit(tmp_path / "long.sbatch", tmp_path)
    assert job.end(400) == 0, job.text()
    assert not job.requeued and nobody(node)
    once(out, config)
    assert all(len(starts(out, t.key)) <= 3 for t in load(config).trials)


@pytest.mark.parametrize("lan", [2], indirect=True)
def test_two_nodes(capsys, tmp_path, config, lan, request):
    """Trials run on both; one loses its cable, and its trials finish on the other. It watches, through OUT, to the end."""
    config.write_text(LONG.replace("1500", "4500"))  # the first may not have ended before the last has saved
    script(capsys, tmp_path, config, "--nodes", 2, "--cpus-per-node", 3)
    job = Slurm(tmp_path, [m.address for m in lan.machines], [m.start for m in lan.machines])
    out = tmp_path / "out"
    job.submit(tmp_path / "long.sbatch", tmp_path, **FAST)
    request.addfinalizer(job.close)
    job.until(lambda: len(saved(out)) >= 4 and all(m.processes("ray::Rank") for m in lan.machines), 240)
    with open(tmp_path / "watched", "wb") as log:
        watching = lan[1].start(
            ["python", "-m", "distvae.cli", "status", out, "--watch"], stdout=log, stderr=log, env=environment()
        )
    lan.cut(1)
    job.until(lambda: job.batch.poll() is not None, 500)
    assert job.batch.returncode == 0, job.text()
    assert watching.wait(60) == 0, (tmp_path / "watched").read_text()
    told = (tmp_path / "watched").read_text()
    assert re.search(r"running \(process \d+ on node1\): \d/4 done", told) and "ended after" in told, told
    assert nobody(lan[0])
    once(out, config)


# A node is given up after seconds, not a minute
FAST = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "5",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_initial_delay_ms": "1000",
}


def test_a_cluster_with_a_token(tmp_path, config, lan):
    """A head with one: a sweep without, with a wrong one, and with the right one."""
    node = lan[0]
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    for path, text in ((right, "a" * 64), (wrong, "b" * 64)):
        path.write_text(text)
        path.chmod(0o600)
    local = environment(
        RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0", HOME=str(tmp_path), PYTHONPATH=environment().get("PYTHONPATH", "")
    )
    token = {"RAY_AUTH_MODE": "token"}
    node.run(
        "ray", "start", "--head", "--port=6379", "--num-cpus=2", env=local | token | {"RAY_AUTH_TOKEN_PATH": str(right)}
    )

    def sweep(address="127.0.0.1:6379", **env) -> subprocess.CompletedProcess:
        words = [
            "python",
            "-m",
            "distvae.cli",
            "sweep",
            config,
            "--out",
            tmp_path / "out",
            "--address",
            address,
            "--set",
            "train.epochs=2",
        ]
        began = time.monotonic()
        done = node.run(*words, env=local | env, check=False, timeout=200)
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode != 4 or time.monotonic() - began < 60
        return done

    for env, said in (
        ({}, "it wants a token: set RAY_AUTH_MODE=token"),
        (token, "RAY_AUTH_MODE is token, and there is none here"),
        (token | {"RAY_AUTH_TOKEN_PATH": str(wrong)}, "it refuses our token"),
    ):
        done = sweep(**env)
        assert done.returncode == 4 and f"--address 127.0.0.1:6379: {said}" in done.stderr, done.stderr
    assert not (tmp_path / "out" / "points").exists()
    done = sweep("127.0.0.1:1", **token)
    assert done.returncode == 4 and "no Ray cluster there: connection refused" in done.stderr
    for address in ("127.0.0.1:6379", "auto"):
        done = sweep(address, **token, RAY_AUTH_TOKEN_PATH=str(right))
        assert done.returncode == 0, done.stderr
    once(tmp_path / "out", config)
    node.run("ray", "stop", env=local)
