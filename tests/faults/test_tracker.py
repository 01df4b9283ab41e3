"""MLflow down from the start, dying midway, slow, answering 500, its SQLite locked: training does not notice, nothing is
lost, and `sync` brings every point once. Trial processes make no MLflow call."""

import json
import os
import sqlite3
import time
from collections import Counter

import pytest
from driver import Sweep, distvae
from faulted import before, by_place, config, holds, strike_after
from mlflow import MlflowClient
from mlflow_server import Proxy, Server, free_port

from distvae.results import ledger
from distvae.results.schema import is_metric
from distvae.results.tracking import store_uri

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    found = Server(tmp_path_factory.mktemp("mlflow"))
    yield found
    found.close()


@pytest.fixture
def proxy(server):
    found = Proxy(server.uri)
    yield found
    found.close()


def every_point_once(uri, out, name):
    """MLflow's runs and points are those of the ledger, none twice. Returns how many points."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    runs = {r.data.tags["distvae.trial_key"]: r for r in found if "distvae.trial_key" in r.data.tags}
    assert len(runs) == len(found) - 1  # and the sweep's own
    rows = [r for r in ledger.load(out).to_pylist() if r["n_examples"]]
    wanted = Counter()
    for r in rows:
        wanted.update(
            (r["trial_key"], f"{r['split']}/{k}", r["epoch"])
            for k, v in r.items()
            if is_metric(k) and isinstance(v, int | float)
        )
    points = Counter()
    for key, run in runs.items():
        assert (run.info.status, run.data.tags["distvae.status"]) == ("FINISHED", "finished")
        for metric in run.data.metrics:
            points.update((key, metric, p.step) for p in client.get_metric_history(run.info.run_id, metric))
    assert points == wanted
    return len(points)


def trained_in(out):
    """Seconds from the first start to the last end of a trial."""
    marks = [
        json.loads(line) for log in (out / "logs").glob("?" * 16 + ".jsonl") for line in log.read_text().splitlines()
    ]
    return max(m["unix_s"] for m in marks if m["event"] == "end") - min(
        m["unix_s"] for m in marks if m["event"] == "begin"
    )


def swept(tmp_path, clean, uri, name, fault=None, moment=0.0):
    """A sweep with MLflow at `uri`; `fault()` at the moment. Returns (config, OUT, what it said)."""
    path, out = config(tmp_path, tracking=uri), tmp_path / "out"
    path.write_text(path.read_text().replace("name: faults", f"name: {name}"))
    with Sweep(path, out) as sweep:
        if fault is not None:
            strike_after(sweep, moment, clean.took)
            fault()
        assert sweep.end(timeout=300) == 0, sweep.text()
        assert sweep.all_gone(), sweep.survivors()
    assert "Traceback" not in sweep.text()
    assert by_place(out).keys() == clean.rows.keys()  # a sweep's name is no part of a trial
    return path, out, sweep.text()


def no_slower(out, clean):
    mine, theirs = trained_in(out), trained_in(clean.out)
    assert mine < 1.5 * theirs + 3, f"trained in {mine:.1f} s, without the fault in {theirs:.1f} s"
    return f"trained in {mine:.1f} s ({theirs:.1f} s without the fault)"


def brought(out, uri, name):
    for _ in range(2):
        done = distvae("sync", out)
        assert done.returncode == 0, done.stderr
    return f"`sync` brought {every_point_once(uri, out, name)} points, none twice"


def test_down_from_the_start(tmp_path, clean, server, tell):
    """MLflow down from the start"""
    port = free_port()
    _path, out, said = swept(tmp_path, clean, f"http://127.0.0.1:{port}", "down")
    assert "MLflow does not answer" in said and "distvae sync" in said
    words = no_slower(out, clean)
    done = distvae("sync", out, "--uri", server.uri)
    assert done.returncode == 0, done.stderr
    assert distvae("sync", out, "--uri", server.uri).returncode == 0
    tell(outcome=f"{words}; `sync` brought {every_point_once(server.uri, out, 'down')} points, none twice")


@pytest.mark.parametrize(
    ("mode", "fault"),
    [("dead", "MLflow dying midway, and back later"), ("error", "MLflow answering 500, and well again later")],
    ids=["dies", "answers 500"],
)
def test_fails_midway(tmp_path, clean, server, proxy, moment, mode, fault, tell):
    """MLflow fails in the middle of a sweep, and is back later"""

    def strike():
        proxy.mode = mode

    name = f"{mode}-{moment:.3f}"
    _, out, _ = swept(tmp_path, clean, proxy.uri, name, strike, moment)
    words = no_slower(out, clean)
    proxy.mode = "pass"
    tell(fault=fault, outcome=f"{words}; {brought(out, server.uri, name)}")


def test_slow(tmp_path, clean, server, proxy, tell):
    """MLflow slow (5 s a call)"""
    proxy.delay = 5.0
    _, out, _ = swept(tmp_path, clean, proxy.uri, "slow")
    words = no_slower(out, clean)
    proxy.delay = 0.0
    tell(outcome=f"{words}; {brought(out, server.uri, 'slow')}")


def test_sqlite_locked(tmp_path, clean, tell):
    """SQLite of MLflow locked for 60 s"""
    path, out = config(tmp_path), tmp_path / "out"
    with Sweep(path, out) as sweep:
        sweep.wait_for(lambda: (out / "mlflow.db").exists() and before(out).saved)
        then = before(out)
        with sqlite3.connect(out / "mlflow.db", timeout=60, isolation_level=None) as store:
            store.execute("BEGIN EXCLUSIVE")
            locked = time.monotonic()
            while time.monotonic() < locked + 60:
                sweep.look()
                time.sleep(0.2)
            store.execute("ROLLBACK")
        store.close()
        code = sweep.end(timeout=240)
        assert sweep.all_gone(), sweep.survivors()
    assert code == 0 and "Traceback" not in sweep.text(), sweep.text()
    held = holds(path, out, then, clean.rows)
    words = no_slower(out, clean)
    tell(outcome=f"{words}; {held}; {brought(out, store_uri(out), 'faults')}")


# A `sitecustomize`: whoever imports mlflow signs with its pid, at once (Ray's workers are killed, not ended).
WITNESS = """
import os, sys
from importlib.abc import MetaPathFinder
class Witness(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "mlflow":
            with open(os.environ["WITNESS"], "a") as f:
                f.write(f"{os.getpid()}\\n")
        return None
sys.meta_path.insert(0, Witness())
"""


def test_trial_processes_make_no_mlflow_call(tmp_path, clean, tell):
    """trial processes make no MLflow call: they do not even import it"""
    (tmp_path / "sitecustomize.py").write_text(WITNESS)
    witness = tmp_path / "witness"
    path, out = config(tmp_path), tmp_path / "out"
    there = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    with Sweep(path, out, env={**os.environ, "PYTHONPATH": there, "WITNESS": str(witness)}) as sweep:
        assert sweep.end(timeout=300) == 0, sweep.text()
        workers = {p.pid for p in sweep.family}
        driver = sweep.process.pid
    signed = {int(line) for line in witness.read_text().split()}
    assert signed == {driver}, (signed, workers)
    tell(fault="(assertion) MLflow in a trial's process", outcome="only the driver imports mlflow")
