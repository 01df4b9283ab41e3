"""SIGTERM, as SLURM and Kubernetes send it: the sweep drains, whatever Ray makes of that signal."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from driver import Sweep, distvae

from distvae.config import load
from distvae.sweeps import cluster

LONG = """
name: long
vae: {encoder: {type: mlp, hidden: [8]}, latent_dim: 2}
objective: {type: elbo, beta: {grid: [0.5, 1]}}
train: {epochs: 1500, batch_size: 1437}
evaluate: {every: 750, train_examples: 1}
resources: {fuse: off, checkpoint_s: 0.3}
engine: torch
"""


def test_before_the_training_it_is_a_ctrl_c(tmp_path):
    os.mkfifo(tmp_path / "long.yaml")
    with (
        Sweep(tmp_path / "long.yaml", tmp_path / "out") as sweep,
        open(tmp_path / "long.yaml", "w"),
    ):  # it is being read
        assert sweep.end(signal.SIGTERM) == 130, sweep.text()
        assert "Traceback" not in sweep.text()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("after", [0.0, 0.3, 0.6, 0.9])
def test_two_ctrl_c_while_libraries_are_imported(tmp_path, after):
    """An exception there may become any other, and as Python ends a signal has its default effect."""
    (tmp_path / "long.yaml").write_text(LONG)
    with Sweep(tmp_path / "long.yaml", tmp_path / "out") as sweep:
        maps = Path(f"/proc/{sweep.process.pid}/maps")
        sweep.wait_for(lambda: "libtorch" in maps.read_text())
        time.sleep(after)
        sweep.process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        if sweep.process.poll() is None:
            sweep.process.send_signal(signal.SIGINT)
        assert sweep.process.wait(30) == 130 and "Traceback" not in sweep.text(), sweep.text()
        assert sweep.all_gone(), sweep.survivors()


def test_rays_handler_is_not_set_where_there_is_one():
    from ray._private import utils

    def ours(signum, frame):
        pass

    def theirs(signum, frame):
        raise SystemExit(signum)

    before, setter = signal.signal(signal.SIGTERM, ours), utils.set_sigterm_handler
    try:
        with cluster._our_sigterm():
            utils.set_sigterm_handler(theirs)
            assert signal.getsignal(signal.SIGTERM) is ours  # from the first moment on
            signal.signal(signal.SIGTERM, theirs)
        assert signal.getsignal(signal.SIGTERM) is ours and utils.set_sigterm_handler is setter
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nobody drains: Ray's is better than none
        with cluster._our_sigterm():
            utils.set_sigterm_handler(theirs)
        assert signal.getsignal(signal.SIGTERM) is theirs
        raised = []

        def elsewhere():  # signals are the main thread's
            try:
                with cluster._our_sigterm():
                    pass
            except Exception as e:
                raised.append(e)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert not raised
    finally:
        signal.signal(signal.SIGTERM, before)


def once(out, config):
    keys = {t.key for t in load(config).trials}
    assert sorted(p.name.split(".")[0] for p in (out / "points").glob("[!.]*.parquet")) == sorted(keys)
    rows = pq.read_table(out / "rd_curve.parquet", columns=["trial_key", "status", "epoch", "split"]).to_pylist()
    assert {r["status"] for r in rows} == {"finished"}
    assert len({(r["trial_key"], r["epoch"], r["split"]) for r in rows}) == len(rows)


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_sigterm_saves_and_the_same_command_goes_on(tmp_path):
    """While Ray starts, and while trials run; then to the end, no trial twice."""
    config, out = tmp_path / "long.yaml", tmp_path / "out"
    config.write_text(LONG)

    def rays(sweep):
        sweep.look()
        return [p for p in sweep.family if p.is_running() and "gcs_server" in p.name()]

    with Sweep(config, out) as sweep:
        sweep.wait_for(lambda: rays(sweep))
        assert sweep.end(signal.SIGTERM) == 130, sweep.text()
        assert "stopping: running trials save and stop" in sweep.text() and "Traceback" not in sweep.text()
        assert sweep.all_gone(), sweep.survivors()
    with Sweep(config, out) as sweep:
        sweep.wait_for(lambda: list(out.glob("checkpoints/*/*/state.json")))
        assert sweep.end(signal.SIGTERM) == 130, sweep.text()
        assert "stopping: running trials save and stop" in sweep.text() and "Traceback" not in sweep.text()
        assert sweep.all_gone(), sweep.survivors()
    assert list(out.glob("checkpoints/*/*/state.json"))
    again = distvae("sweep", config, "--out", out)
    assert again.returncode == 0, again.stderr
    once(out, config)
