"""`tracking.uri` names an `mlflow server` on PostgreSQL: every trial is a run and every metric of the ledger a point, once,
by MLflow's client and in the tables; what the server missed while it was down, `distvae sync` brings, once."""

import json
import math
import re

import mlflow_server
import psycopg
import pytest
from driver import Sweep, distvae
from faulted import config
from mlflow import MlflowClient
from postgres import Postgres, programs

from distvae.config import load
from distvae.results import ledger
from distvae.results.schema import is_metric

pytestmark = [pytest.mark.sweep, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def postgres():
    where = programs()
    if where is None:
        pytest.skip("there is no PostgreSQL (apt-get install postgresql)")
    with Postgres(where) as server:
        yield server


class Tracking:
    """`mlflow server` on PostgreSQL, always on the same port."""

    def __init__(self, folder, postgres, monkeypatch):
        self.folder, self.postgres, port = folder, postgres, mlflow_server.free_port()
        monkeypatch.setattr(mlflow_server, "free_port", lambda: port)
        self.uri, self.server = f"http://127.0.0.1:{port}", None

    def start(self):
        self.server = mlflow_server.Server(self.folder, self.postgres.uri)
        assert self.server.uri == self.uri

    def stop(self):
        if self.server is not None:
            self.server.close()
            self.server = None


@pytest.fixture
def tracking(postgres, tmp_path, monkeypatch):
    found = Tracking(tmp_path, postgres, monkeypatch)
    found.start()
    yield found
    found.stop()


def of_the_ledger(out):
    """(trial, metric, epoch) -> value, of every point that MLflow is to have."""
    found = {}
    for row in ledger.load(out).to_pylist():
        for name, value in row.items():
            if isinstance(value, int | float) and is_metric(name):
                place = row["trial_key"], f"{row['split']}/{name}", row["epoch"]
                assert place not in found
                found[place] = float(value)
    return found


def same(found, expected):
    assert sorted(found) == sorted(expected)  # none missing, none twice
    for place, value in found.items():
        assert value == expected[place] or (math.isnan(value) and math.isnan(expected[place])), place


def holds(tracking, path, out):
    """MLflow has what the ledger has, once. Returns how many points."""
    keys, expected = {t.key for t in load(path).trials}, of_the_ledger(out)
    client = MlflowClient(tracking.uri)
    experiment = client.get_experiment_by_name("faults")
    runs = client.search_runs([experiment.experiment_id])
    trials = {r.data.tags["distvae.trial_key"]: r for r in runs if "distvae.trial_key" in r.data.tags}
    assert set(trials) == keys and len(runs) == len(keys) + 1  # and the sweep's own
    assert {r.info.status for r in runs} == {"FINISHED"}
    points = [
        ((key, metric, point.step), point.value)
        for key, run in trials.items()
        for metric in run.data.metrics
        for point in client.get_metric_history(run.info.run_id, metric)
    ]
    assert len(points) == len(dict(points))
    same(dict(points), expected)

    doubled = "SELECT run_uuid, key, step, count(*) FROM metrics GROUP BY run_uuid, key, step HAVING count(*) > 1"
    assert tracking.postgres.rows(doubled) == []
    table = tracking.postgres.rows(
        "SELECT t.value, m.key, m.step, CASE WHEN m.is_nan THEN 'NaN' ELSE m.value END "
        "FROM metrics m LEFT JOIN tags t ON t.run_uuid = m.run_uuid AND t.key = 'distvae.trial_key'"
    )
    assert len(table) == len(expected)
    same({(key, metric, step): value for key, metric, step, value in table}, expected)
    return len(expected)


TABLES = {  # of a run that is reopened, the end is the last one's
    "runs": "run_uuid, name, status, lifecycle_stage, start_time, experiment_id, artifact_uri",
    "metrics": "*",
    "latest_metrics": "*",
    "params": "*",
    "tags": "*",
    "experiments": "experiment_id, name, artifact_location, lifecycle_stage",
}


def everything(postgres):
    return {name: sorted(map(repr, postgres.rows(f"SELECT {what} FROM {name}"))) for name, what in TABLES.items()}


def begun(out):
    """How often a trial was taken up."""
    logs = [p.read_text() for p in (out / "logs").glob("?" * 16 + ".jsonl")]
    return sum(json.loads(line)["event"] == "begin" for log in logs for line in log.splitlines())


def test_every_point_is_there_once_and_sync_brings_what_it_missed(tmp_path, postgres, tracking):
    path, out = config(tmp_path, tracking=tracking.uri), tmp_path / "out"
    done = distvae("sweep", path, "--out", out)
    assert done.returncode == 0 and "MLflow" not in done.stderr, done.stderr
    assert not (out / "mlflow.db").exists()
    first = holds(tracking, path, out)

    longer = re.sub(r"epochs: (\d+)", lambda m: f"epochs: {2 * int(m[1])}", path.read_text())
    assert longer != path.read_text()
    path.write_text(longer)  # the same trials go on
    before = begun(out)
    with Sweep(path, out) as sweep:
        sweep.wait_for(lambda: begun(out) > before)
        tracking.stop()
        assert sweep.end(timeout=300) == 0, sweep.text()
        assert sweep.all_gone(), sweep.survivors()
    assert "MLflow" in sweep.text() and "distvae sync" in sweep.text() and "Traceback" not in sweep.text()
    assert len(of_the_ledger(out)) > first == len(postgres.rows("SELECT 1 FROM metrics"))

    away = distvae("sync", out)
    assert away.returncode == 4 and "does not answer" in away.stderr and "Traceback" not in away.stderr, away.stderr
    tracking.start()
    again = distvae("sync", out, "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["metrics"] == holds(tracking, path, out) > first
    there = everything(postgres)
    assert distvae("sync", out).returncode == 0
    assert everything(postgres) == there


def test_a_server_whose_postgres_dies_costs_training_nothing(tmp_path, postgres, tracking):
    """`mlflow server` answers, with errors: its database is gone. It comes back when the database does."""
    path, out = config(tmp_path, tracking=tracking.uri), tmp_path / "out"
    with Sweep(path, out) as sweep:
        sweep.wait_for(lambda: begun(out) > 0)
        postgres.halt()
        with pytest.raises(psycopg.OperationalError):
            postgres.rows("SELECT 1")
        assert sweep.end(timeout=300) == 0, sweep.text()
    assert "distvae sync" in sweep.text() and "Traceback" not in sweep.text()
    postgres.serve()
    done = distvae("sync", out)
    assert done.returncode == 0, done.stderr
    holds(tracking, path, out)
