"""Whole sweeps with OUT on S3: killed in the middle and resumed; a stalled owner that another one takes over from; S3 that
goes away and comes back."""

import os
import signal

import pyarrow.parquet as pq
import pytest
from driver import Background, distvae, write_config

import distvae as api
from distvae.config import load
from distvae.results import ledger

pytestmark = [pytest.mark.sweep, pytest.mark.slow, pytest.mark.timeout(1200)]


class Sweep(Background):
    def __init__(self, config, out, log):
        super().__init__("sweep", config, "--out", out, log=log)


def points(out):
    """Name -> (content, when it was put) of what is committed."""
    return {p.name: (p.read_bytes(), p.stat().st_mtime) for p in (out / "points").iterdir()}


def saved(out):
    """Trials with a checkpoint."""
    return {p.parts[-2] for p in (out / "checkpoints").iterdir() if any(p.glob("ep*"))} if out.is_dir() else set()


LONG = """
name: long
vae: {encoder: {type: mlp, hidden: [8]}, latent_dim: {grid: [2, 3]}}
train: {epochs: %d, batch_size: 1437}
evaluate: {every: 200, train_examples: 1}
seeds: 2
metrics: [active_units]
resources: {checkpoint_s: 0.5, fuse: off}
engine: torch
"""


def test_kill_9_of_the_driver_then_the_same_command(out, tmp_path, capfd):
    config = tmp_path / "long.yaml"
    config.write_text(LONG % 1200)
    with Sweep(config, out, tmp_path / "first.log") as sweep:
        sweep.wait_for(lambda: points(out) and saved(out), timeout=400)
        sweep.end(signal.SIGKILL)
        before = points(out)
        assert sweep.all_gone(), sweep.survivors()
    assert 1 <= len(before) < 4
    again = distvae("sweep", config, "--out", out)
    assert again.returncode == 0, again.stderr
    assert "does not beat: it is taken over after 30 s of silence" in again.stderr
    after = points(out)
    assert len(after) == 4 and all(after[name] == found for name, found in before.items())
    rows = api.load_curve(str(out)).to_pylist()
    assert len({(r["trial_key"], r["epoch"], r["split"]) for r in rows}) == len(rows) == 4 * 6 * 3
    assert all(r["active_units"] is not None for r in rows if r["epoch"] == 1200 and r["split"] == "test")
    with (out / "rd_curve.parquet").open("rb") as f:
        assert len(pq.read_table(f)) == len(rows)
    assert {p.name for p in (out / "plots").iterdir()} >= {"rd.png"}
    assert all((out / "logs" / f"{t.key}.jsonl").read_text().count('"end"') == 1 for t in load(config).trials)
    alone = api.train(load(config).trials[0]).rows.to_pylist()
    mine = {(r["epoch"], r["split"]): r["elbo_nats"] for r in rows if r["trial_key"] == alone[0]["trial_key"]}
    assert {(r["epoch"], r["split"]): pytest.approx(r["elbo_nats"], rel=1e-6) for r in alone} == mine
    assert distvae("sync", out).returncode == 0
    evaluated = distvae("eval", out, "--metrics", "mmd", "--json")
    assert evaluated.returncode == 0 and '"measured": 4' in evaluated.stdout, evaluated.stderr


def test_a_stalled_owner_commits_nothing_once_another_has_taken_over(out, tmp_path):
    """SIGSTOP of a driver and all it started; another finishes the sweep; SIGCONT: exit code 5, nothing changed."""
    config = tmp_path / "long.yaml"
    config.write_text(LONG % 1000)
    with Sweep(config, out, tmp_path / "first.log") as first:
        first.wait_for(lambda: saved(out), timeout=400)
        first.look()
        family = [p.pid for p in first.family if p.is_running()]
        for pid in [first.process.pid, *family]:
            os.kill(pid, signal.SIGSTOP)
        done = distvae("sweep", config, "--out", out, timeout=500)
        assert done.returncode == 0, done.stderr
        before = points(out)
        assert len(before) == 4
        for pid in [*family, first.process.pid]:
            os.kill(pid, signal.SIGCONT)
        assert first.end(timeout=120) == 5, first.text()
        assert "was taken over by process" in first.text() and "Traceback" not in first.text()
        assert points(out) == before
        assert first.all_gone(), first.survivors()


def test_a_second_sweep_is_refused_while_the_first_beats(out, tmp_path):
    config = write_config(tmp_path, epochs=100_000, seeds=1)
    with Sweep(config, out, tmp_path / "first.log") as first:
        first.wait_for(lambda: " running" in first.text(), timeout=400)
        second = distvae("sweep", config, "--out", out, timeout=60)
        assert second.returncode == 5 and "is being swept by process" in second.stderr
        assert first.end(signal.SIGINT) == 130, first.text()
    assert set(ledger.scan(out)[0]) == set()
    done = distvae("sweep", config, "--out", out, "--set", "train.epochs=1")  # given back: nobody is waited for
    assert done.returncode == 0 and "does not beat" not in done.stderr, done.stderr


def test_s3_that_goes_away_is_told_and_costs_nothing(tmp_path, s3_environment, monkeypatch):
    """The server stops in the middle: exit code 4; it comes back, and the same command goes on."""
    import subprocess
    import sys

    from distvae import files
    from distvae.results.ui import free_port
    from distvae.store import s3

    port = free_port(0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    code = f"""
import logging; logging.getLogger("werkzeug").setLevel(logging.ERROR)
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", port={port}, verbose=False)
server.start(); print("up", flush=True); server._thread.join()
"""
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout.readline() == "up\n"
        s3.client().create_bucket(Bucket="away")
        config, out = tmp_path / "long.yaml", files.at("s3://away/x")
        config.write_text(LONG % 2000)
        with Sweep(config, out, tmp_path / "first.log") as first:
            first.wait_for(lambda: saved(out), timeout=400)
            server.send_signal(signal.SIGSTOP)  # it answers nothing, as behind a cut link
            assert first.end(timeout=180) == 4, first.text()
            assert first.all_gone(), first.survivors()
            assert "cannot be reached" in first.text() and "what is committed stays" in first.text()
            assert "Traceback" not in first.text()
            server.send_signal(signal.SIGCONT)
        again = distvae("sweep", config, "--out", out, timeout=500)
        assert again.returncode == 0, again.stderr
        assert len(points(out)) == 4
    finally:
        server.send_signal(signal.SIGCONT)
        server.kill()
        server.communicate()
