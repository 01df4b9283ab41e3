"""Real sweeps on real Rays: the SLURM script's body on one node and on two, and what an `--address` with a token says. On
machines of namespaces (machines.py), for `ray symmetric-run` ends every Ray that it sees."""

import json
import signal
import subprocess
import time
from contextlib import suppress

import psutil
import pyarrow.parquet as pq
import pytest
from commands import command
from machines import Lan, environment, skip_without
from slurm import Slurm

from distvae.config import load

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

# Two groups at a time that take long enough to be stopped; steps are few, and every 750th epoch is evaluated
LONG = """
name: long
vae: {encoder: {type: mlp, hidden: [8]}, latent_dim: 2}
objective: {type: elbo, beta: {grid: [0.5, 1, 2, 4]}}
train: {epochs: 1500, batch_size: 1437}
evaluate: {every: 750, train_examples: 1}
resources: {fuse: off, checkpoint_s: 0.5}
engine: torch
"""


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


def saved(out) -> set[str]:
    return {p.parts[-3] for p in out.glob("checkpoints/*/*/state.json")}


def once(out, config) -> None:
    """Every planned trial has finished, in one attempt, and its rows are there once."""
    points = sorted(p.name for p in (out / "points").glob("[!.]*.parquet"))
    assert [p.split(".")[0] for p in points] == sorted(t.key for t in load(config).trials)
    rows = pq.read_table(
        out / "rd_curve.parquet", columns=["trial_key", "status", "attempt", "epoch", "split"]
    ).to_pylist()
    assert {r["status"] for r in rows} == {"finished"} and {r["attempt"] for r in rows} == {0}
    assert len({(r["trial_key"], r["epoch"], r["split"]) for r in rows}) == len(rows)


def nobody(machine, seconds=30) -> bool:
    deadline = time.monotonic() + seconds
    while machine.processes() and time.monotonic() < deadline:
        time.sleep(0.3)
    return not machine.processes()


def batch(machine) -> psutil.Process:
    """The script itself: not nsenter, and no subshell."""
    (p,) = [p for p in machine.processes("long.sbatch") if p.name() == "bash" and "sweep=" not in " ".join(p.cmdline())]
    return p


def test_one_node_is_warned_cancelled_and_goes_on(capsys, tmp_path, config, lan, request):
    """USR1: saved, 130, queued again. TERM: saved, 130, not queued. Then it runs to its end; all on loopback."""
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


def reached(out) -> int:
    """The least epoch of the checkpoints."""
    found = []
    for path in out.glob("checkpoints/*/*/state.json"):
        with suppress(OSError):  # replaced by a newer one
            found.append(json.loads(path.read_text())["epoch"])
    return min(found, default=0)


def starts(out, key) -> list[dict]:
    lines = (out / "logs" / f"{key}.jsonl").read_text().splitlines()
    return [e for e in map(json.loads, lines) if e["event"] == "start"]


@pytest.mark.parametrize("lan", [2], indirect=True)
def test_two_nodes(capsys, tmp_path, config, lan, request):
    """Trials run on both; one loses its cable, and its trials finish on the other."""
    config.write_text(LONG.replace("1500", "4500"))  # the first may not have ended before the last has saved
    script(capsys, tmp_path, config, "--nodes", 2, "--cpus-per-node", 3)
    job = Slurm(tmp_path, [m.address for m in lan.machines], [m.start for m in lan.machines])
    out = tmp_path / "out"
    job.submit(tmp_path / "long.sbatch", tmp_path, **FAST)
    request.addfinalizer(job.close)
    job.until(lambda: len(saved(out)) >= 4 and all(m.processes("ray::Rank") for m in lan.machines), 240)
    lan.cut(1)
    job.until(lambda: job.batch.poll() is not None, 500)
    assert job.batch.returncode == 0, job.text()
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
