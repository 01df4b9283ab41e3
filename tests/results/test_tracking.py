"""MLflow as a view of the ledger: rebuilt at will, never twice, and never in training's way."""

import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from ledgers import commit, measured, trial
from mlflow import MlflowClient

from distvae.config import loads
from distvae.results import tracking
from distvae.results.tracking import News, Store, Tracker, TrackerError, log_pictures, store_uri, sync
from distvae.sweeps.plan import write_plan

TEXT = "name: s\nvae: {latent_dim: 2, prior: {type: binarized, r: 0}}\ntrain: {epochs: 2}\nseeds: 3\n"


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A swept OUT: two trials finished, one failed."""
    folder = tmp_path_factory.mktemp("out")
    write_plan(folder, loads(TEXT))
    for seed in range(2):
        commit(folder, trial(seed), [measured(e, s, e + seed, 9.0) for e in (1, 2) for s in ("valid", "test")])
    commit(folder, trial(2), [], "failed")
    return folder


def runs(uri):
    """(parents, children by trial key) of the experiment `s`."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("s")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    children = [r for r in found if "mlflow.parentRunId" in r.data.tags]
    by_key = {r.data.tags["distvae.trial_key"]: r for r in children}
    assert len(by_key) == len(children)  # each trial once
    return [r for r in found if "mlflow.parentRunId" not in r.data.tags], by_key


def test_sync_rebuilds_mlflow_and_repeats_harmlessly(out):
    uri = store_uri(out)
    assert sync(out) == sync(out) == {"trials": 3, "metrics": 2 * 4 * 7, "pictures": 0, "uri": uri}
    (parent,), children = runs(uri)
    assert set(children) == {trial(s).key for s in range(3)}
    assert parent.info.status == "FINISHED" and "latent_dim: 2" in parent.data.tags["distvae.sweep_yaml"]
    run = children[trial(1).key]
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert run.data.params["vae.prior.r"] == "0.0" and run.data.params["train.epochs"] == "2"
    assert (run.info.status, run.data.tags["distvae.status"]) == ("FINISHED", "finished")
    assert run.data.metrics["test/rate_nats"] == 3.0 and run.data.metrics["valid/elbo_nats"] == -12.0
    client = MlflowClient(uri)
    history = client.get_metric_history(run.info.run_id, "test/rate_nats")
    assert [(m.step, m.value) for m in sorted(history, key=lambda m: m.step)] == [(1, 2.0), (2, 3.0)]  # not twice
    failed = children[trial(2).key]
    assert (failed.info.status, failed.data.metrics) == ("FAILED", {})


def test_live_points_and_replayed_ones_are_the_same_points(out, tmp_path):
    uri = f"sqlite:///{tmp_path / 'other.db'}"
    tracker = Tracker(uri, out=out, sweep="s", resolved="x: 1", log=pytest.fail)
    tracker.open()
    tracker.start(trial(0))
    tracker.rows(trial(0).key, [measured(e, "test", e, 9.0) for e in (1, 2)])
    tracker.end(trial(0).key, "finished")
    assert tracker.close(60.0) == 0
    sync(out, uri)
    _, children = runs(uri)
    history = MlflowClient(uri).get_metric_history(children[trial(0).key].info.run_id, "test/rate_nats")
    assert len(history) == 2 and len(children) == 3


def test_a_retry_reopens_the_run_of_its_trial(out, tmp_path):
    uri = f"sqlite:///{tmp_path / 'retry.db'}"
    store = Store(uri, out, "s", "")
    store.tell(News(trial(0).key, trial(0)))
    store.tell(News(trial(0).key, status="failed"))
    again = Store(uri, out, "s", "")
    again.tell(News(trial(0).key, trial(0)))
    again.tell(News(trial(0).key, status="finished"))
    _, children = runs(uri)
    assert children[trial(0).key].info.status == "FINISHED"


def everything(uri):
    """All that MLflow holds, by trial, without what names a run or a moment."""
    _, children = runs(uri)
    client = MlflowClient(uri)
    return {
        key: (
            run.info.status,
            run.info.run_name,
            run.data.params,
            {k: v for k, v in run.data.tags.items() if k.startswith("distvae")},
            {m: [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, m)] for m in run.data.metrics},
        )
        for key, run in children.items()
    }


def life(t):
    """A trial that fails, and is run again."""
    yield "start", t
    yield "rows", t.key, [measured(1, "test", 1.0, 2.0), measured(1, "valid", 1.0, 2.0)]
    yield "rows", t.key, [measured(2, "test", 3.0, 2.0)]
    yield "end", t.key, "failed"
    yield "start", t
    yield "rows", t.key, [measured(3, "test", 4.0, 2.0)]
    yield "end", t.key, "finished"


def test_news_that_waited_are_told_together_and_are_the_same(out, tmp_path, monkeypatch):
    asked = []
    request = MlflowClient.log_batch
    monkeypatch.setattr(MlflowClient, "log_batch", lambda *a, **k: asked.append(1) or request(*a, **k))
    trials = [trial(seed) for seed in range(5, 9)]
    seen = {}
    for name in ("one by one", "together"):
        uri = f"sqlite:///{tmp_path / name.replace(' ', '')}.db"
        tracker = Tracker(uri, out=tmp_path / "none", sweep="s", resolved="", log=pytest.fail)
        (tmp_path / "none").mkdir(exist_ok=True)
        if name == "one by one":
            tracker.open()
        before = len(asked)
        for call, *args in (step for t in trials for step in life(t)):
            getattr(tracker, call)(*args)
            while name == "one by one" and tracker.behind:
                time.sleep(0.005)
        if name == "together":
            tracker.open()
        assert tracker.close(60.0) == 0
        seen[name] = everything(uri), len(asked) - before
    assert seen["one by one"][0] == seen["together"][0] and set(seen["together"][0]) == {t.key for t in trials}
    assert (seen["one by one"][1], seen["together"][1]) == (6 * len(trials), 2 * len(trials))


def test_news_that_find_no_room_are_left_to_sync(out, monkeypatch, tmp_path):
    monkeypatch.setattr(tracking, "MOST", 4)
    uri = f"sqlite:///{tmp_path / 'small.db'}"
    tracker = Tracker(uri, out=out, sweep="s", resolved="x: 1", log=pytest.fail)
    for seed in range(3):
        tracker.start(trial(seed))
        tracker.rows(trial(seed).key, [measured(e, "test", e, 9.0) for e in (1, 2)])
        tracker.end(trial(seed).key, "finished")
    assert tracker.behind == 4
    tracker.open()
    assert tracker.close(60.0) == 5
    sync(out, uri)
    assert everything(uri) == everything_after_sync(out, tmp_path)


def everything_after_sync(out, tmp_path):
    uri = f"sqlite:///{tmp_path / 'whole.db'}"
    sync(out, uri)
    return everything(uri)


def test_a_new_run_brings_what_a_killed_one_committed_and_did_not_tell(out, tmp_path):
    uri = f"sqlite:///{tmp_path / 'behind.db'}"
    store = Store(uri, out, "s", "")
    store.tell(News(trial(0).key, trial(0)))  # told of its start, killed before its end; of trial 1 nothing at all
    tracker = Tracker(uri, out=out, sweep="s", resolved="", log=pytest.fail)
    tracker.open()
    assert tracker.close(60.0) == 0
    _, children = runs(uri)
    assert {k: r.data.tags["distvae.status"] for k, r in children.items()} == {
        trial(0).key: "finished",
        trial(1).key: "finished",
        trial(2).key: "failed",
    }
    assert children[trial(1).key].data.metrics["test/rate_nats"] == 3.0


def artifacts(uri, run):
    return sorted(f.path for f in MlflowClient(uri).list_artifacts(run.info.run_id, "plots"))


@pytest.fixture
def pictured(out, tmp_path):
    """A copy of OUT, without MLflow's store, with two pictures of the sweep and one of a trial."""
    folder = tmp_path / "pictured"
    shutil.copytree(out, folder, ignore=shutil.ignore_patterns("mlflow.db", "mlartifacts"))
    (folder / "sweep.yaml").write_text(TEXT)
    (folder / "plots").mkdir()
    for name in ("rd", "heat", f"samples_prior_{trial(1).key}"):
        (folder / "plots" / f"{name}.png").write_bytes(name.encode())
    return folder


def test_pictures_are_artifacts_of_the_sweeps_run_and_of_the_trials(pictured):
    uri, mine = store_uri(pictured), f"plots/samples_prior_{trial(1).key}.png"
    assert sync(pictured)["pictures"] == sync(pictured)["pictures"] == 3
    (parent,), children = runs(uri)
    assert artifacts(uri, parent) == ["plots/heat.png", "plots/rd.png"]
    assert artifacts(uri, children[trial(1).key]) == [mine] and artifacts(uri, children[trial(0).key]) == []
    (pictured / "plots" / "rd.png").write_bytes(b"drawn again")
    assert log_pictures(pictured, [pictured / "plots" / "rd.png"]) is None
    client = MlflowClient(uri)
    assert Path(client.download_artifacts(parent.info.run_id, "plots/rd.png")).read_bytes() == b"drawn again"
    assert (pictured / "mlartifacts" / children[trial(1).key].info.run_id / "artifacts" / mine).exists()


def test_a_sweep_that_was_moved_keeps_its_pictures(pictured, tmp_path):
    pictures = (pictured / "plots").rename(tmp_path / "later")  # MLflow remembers, per process, where a run's lie
    sync(pictured)
    moved = pictured.rename(tmp_path / "moved")
    pictures.rename(moved / "plots")
    assert log_pictures(moved, sorted((moved / "plots").glob("*.png"))) is None
    assert not pictured.exists(), "nothing is written to the old place"
    uri = store_uri(moved)
    (parent,), children = runs(uri)
    assert artifacts(uri, parent) == ["plots/heat.png", "plots/rd.png"]
    assert artifacts(uri, children[trial(1).key]) == [f"plots/samples_prior_{trial(1).key}.png"]
    assert len(list((moved / "mlartifacts").rglob("*.png"))) == 3


def test_mlflow_that_is_away_costs_a_picture_a_line(pictured, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    (pictured / "sweep.yaml").write_text(TEXT + f"tracking: {{uri: 'http://127.0.0.1:{dead_port()}'}}\n")
    said = log_pictures(pictured, [pictured / "plots" / "rd.png"])
    assert said is not None and "\n" not in said
    assert re.match(
        r"MLflow at http://127\.0\.0\.1:\d+ did not take the pictures \(.*`distvae sync .*` brings them", said
    )


def dead_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def hanging():
    """A server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as s:
        yield s.getsockname()[1]


@pytest.mark.parametrize("kind", ["dead", "hanging"])
def test_a_server_that_is_away_costs_training_nothing(out, kind, hanging, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setattr(tracking, "CLOSE_AWAY_S", 1.0)
    said = []
    tracker = Tracker(
        f"http://127.0.0.1:{hanging if kind == 'hanging' else dead_port()}",
        out=out, sweep="s", resolved="", log=said.append,
    )  # fmt: skip
    started = time.monotonic()
    tracker.open()
    for seed in range(200):
        tracker.start(trial(seed))
        tracker.rows(trial(seed).key, [measured(1, "test", 1.0, 2.0)])
        tracker.end(trial(seed).key, "finished")
    assert time.monotonic() - started < 1.0
    for _ in range(300):
        if said:
            break
        time.sleep(0.1)
    assert len(said) == 1 and said[0].startswith("MLflow does not answer") and f"distvae sync {out}" in said[0]
    lost = tracker.close(2.0)
    assert lost >= 600 and time.monotonic() - started < 60


def test_sync_says_when_mlflow_does_not_answer(out, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    with pytest.raises(TrackerError, match=r"^MLflow at http://127\.0\.0\.1:\d+ does not answer: .*or give --uri$"):
        sync(out, f"http://127.0.0.1:{dead_port()}")


@pytest.mark.parametrize("code", [401, 403])
def test_sync_says_when_mlflow_wants_to_know_who_we_are(out, code):
    class Refuses(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(code)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(TrackerError, match=rf"refuses us: .*{code}.*MLFLOW_TRACKING_USERNAME"):
            sync(out, f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


def test_trial_processes_import_neither_mlflow_nor_tune_nor_the_compiler():
    """A rank trains a trial with DeepSpeed from start to end; each of these costs seconds in every worker."""
    code = (
        "import sys, distvae.sweeps.rank, distvae.results.rows, distvae.results.ledger\n"
        "from distvae.sweeps.plan import trial_from_json\n"
        "from distvae.training.loop import Runner\n"
        "from distvae.training.world import meet\n"
        'trial = trial_from_json(\'{"train": {"epochs": 1, "clip_norm": 1.0}}\')\n'
        "runner = Runner(trial, world=meet(0, 1), engine='deepspeed')\n"
        "assert runner.advance().status == 'finished'\n"
        "runner.engine.load_state(runner.engine.state())\n"
        "heavy = {'mlflow', 'ray.tune', 'ray.data', 'torch._dynamo', 'torch._inductor', 'sympy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_writer_thread_ends_with_the_sweep(out, tmp_path):
    before = threading.active_count()
    tracker = Tracker(f"sqlite:///{tmp_path / 't.db'}", out=out, sweep="s", resolved="", log=pytest.fail)
    tracker.open()
    assert tracker.close(60.0) == 0
    assert threading.active_count() == before
