"""MLflow, off the training path: one writer thread in the driver behind a queue, a view of the ledger that can always
be rebuilt.

One experiment per sweep name, one parent run per OUT, one child per started trial, found again by its tag
`distvae.trial_key`, so a re-run or a retry reopens it. Points are stamped `created_ms + step`: the same point stored
twice is one point, so replaying is harmless. If MLflow is away, events wait in memory, one line says so, and `distvae
sync` brings the rest from the ledger later."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import queue
import re
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from distvae import files
from distvae.plots import PLOTS
from distvae.results import ledger
from distvae.results.curves import trial_status
from distvae.results.schema import is_metric
from distvae.trial import Trial

if TYPE_CHECKING:
    from distvae.study import Study

KEY, STATUS, SWEEP_ID = "distvae.trial_key", "distvae.status", "distvae.sweep_id"
PARAM_MAX = 500
_TRIAL = re.compile(r"(?<![0-9a-z])[0-9a-f]{16}(?![0-9a-z])")  # a trial's key in the name of a picture
CLOSE_AWAY_S = 5.0  # how long to wait at the end for a store that has been away
AT_ONCE = 200  # trials whose news are put together
MOST = 10_000  # events that wait: a sweep of any size, with MLflow away, holds no more in memory
TOLD_OF = 100  # so many at the end are worth a word
REFUSES = "refuses us"
BACK_OFF_S = (1.0, 2.0, 5.0, 10.0)
_END = {
    "finished": "FINISHED",
    "stopped": "FINISHED",
    "diverged": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}


def home(out: Path) -> Path:
    """The folder of a sweep's own MLflow: OUT. SQLite cannot live on S3: for such an OUT, a folder in this machine's cache;
    it is a view, and `distvae sync OUT` makes it anew on another machine. Raises TrackerError if there is no cache."""
    if not files.is_remote(out):
        return out
    cache = files.cache_folder()
    if cache is None:
        raise TrackerError(
            f"MLflow's database cannot be in {out}, and there is no cache folder for it: set DISTVAE_CACHE, or tracking.uri"
        )
    name = f"{out.name}-{hashlib.sha256(str(out).encode()).hexdigest()[:12]}"
    return cache / "mlflow" / name


def store_uri(out: Path) -> str:
    """The SQLite store of a sweep."""
    return f"sqlite:///{(home(out) / 'mlflow.db').absolute()}"


def artifacts(out: Path) -> Path:
    """Where that store keeps pictures."""
    return (home(out) / "mlartifacts").absolute()


def created_ms(out: Path) -> int:
    """When OUT was first swept: the zero of the deterministic timestamps, and the sweep's identity in MLflow. Written
    once."""
    path = out / ".created_ms"
    if not path.exists():
        with contextlib.suppress(FileExistsError), files.creating(path) as f:
            f.write(str(int(time.time() * 1000)).encode())
    return int(path.read_text())


@dataclass
class News:
    """What MLflow is to hear of a trial: that it has begun, what it measured, how it ended. `events` of the driver's."""

    key: str
    trial: Trial | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    status: str | None = None
    events: int = 1

    def take(self, later: News) -> bool:
        """Is this the place for later news of the same trial? Then it goes here."""
        if self.status is not None or later.trial is not None:
            return False
        self.rows.extend(later.rows)
        self.status, self.events = later.status, self.events + later.events
        return True


class Store:
    """One sweep in one MLflow. Every method may raise whatever MLflow raises; all of them may be repeated."""

    def __init__(self, uri: str | None, out: Path, sweep: str, resolved: str, *, trials: bool = True):
        """`trials`: will it be told of trials? Then their runs are looked for."""
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_ENABLE_ASYNC_LOGGING", "false")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # of every run that ends, where data belongs
        import mlflow
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        logging.getLogger("mlflow.store").setLevel(logging.CRITICAL)  # a traceback for each try; it raises as well
        if uri is None:
            home(out).mkdir(parents=True, exist_ok=True)
            _refuse_links([*home(out).glob("mlflow.db*"), artifacts(out)])
            _move_here(out)
        mlflow.set_tracking_uri(uri or store_uri(out))  # else artifact calls of a client would open another store
        self.client = MlflowClient(uri or store_uri(out))
        self.own = artifacts(out) if uri is None else None  # where pictures go, if into a folder of ours
        self.zero = created_ms(out)
        self.experiment = self._experiment(sweep, artifacts(out).as_uri() if uri is None else None)
        self.parent = self._parent(sweep, resolved)
        self.children: dict[str, str] = {}  # trial key -> run id
        self.bare: set[str] = set()  # those that have no params yet
        self.told: dict[str, str] = {}  # trial key -> the end that MLflow knows of
        if trials:
            self._find_children()

    def _experiment(self, name: str, artifacts: str | None) -> str:
        found = self.client.get_experiment_by_name(name)
        return found.experiment_id if found else self.client.create_experiment(name, artifact_location=artifacts)

    def _parent(self, sweep: str, resolved: str) -> str:
        mine = f"tags.`{SWEEP_ID}` = '{self.zero}'"
        found = self.client.search_runs([self.experiment], mine, max_results=1)
        if found:
            return found[0].info.run_id
        from distvae.results.provenance import git_sha

        tags = {SWEEP_ID: str(self.zero), "distvae.git_sha": git_sha(), "distvae.sweep_yaml": resolved[:5000]}
        run = self.client.create_run(self.experiment, start_time=self.zero, tags=tags, run_name=sweep)
        return run.info.run_id

    def _find_children(self) -> None:
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment], f"tags.`mlflow.parentRunId` = '{self.parent}'", max_results=1000, page_token=token
            )
            for run in page:
                key = run.data.tags.get(KEY, "")
                self.children[key] = run.info.run_id
                if run.info.end_time is not None and STATUS in run.data.tags:
                    self.told[key] = run.data.tags[STATUS]
            token = page.token
            if not token:
                return

    def replay(self, table: pa.Table) -> tuple[int, int]:
        """Bring committed rows to MLflow. Returns (trials, metric points)."""
        from distvae.sweeps.plan import trial_from_json

        points = 0
        rows: dict[str, list[dict[str, Any]]] = {}
        for row in table.to_pylist():
            rows.setdefault(row["trial_key"], []).append(row)
        for key, status in trial_status(table).items():
            points += self.tell(News(key, trial_from_json(rows[key][0]["config_json"]), rows[key], status))
        return len(rows), points

    def catch_up(self, table: pa.Table) -> None:
        """`replay` of the trials whose end MLflow has not heard of."""
        behind = {key for key, end in trial_status(table).items() if self.told.get(key) != end}
        self.replay(table.filter(pa.array([key in behind for key in table["trial_key"].to_pylist()], pa.bool_())))

    def tell(self, news: News) -> int:
        """Bring a trial's news to its child run, which is created with its params, or reopened: in as few requests as there
        can be. Metrics are `<split>/<metric>` at step = epoch. Returns how many points."""
        from mlflow.entities import Metric, Param, RunTag

        key, params = news.key, []
        if news.trial is not None:
            if key not in self.children:
                tags = {"mlflow.parentRunId": self.parent, KEY: key, "distvae.config_key": news.trial.config_key}
                run = self.client.create_run(
                    self.experiment, start_time=self.zero, tags=tags, run_name=news.trial.label
                )
                self.children[key] = run.info.run_id
                self.bare.add(key)
            elif news.status is None and key not in self.bare:
                self.client.update_run(self.children[key], status="RUNNING")
            if key in self.bare:
                params = [Param(k, str(v)[:PARAM_MAX]) for k, v in news.trial.flat().items()]
        points = [
            Metric(f"{r['split']}/{name}{_at(r)}", float(value), self.zero + int(r["step"]), int(r["epoch"]))
            for r in news.rows
            for name, value in r.items()
            if isinstance(value, int | float) and is_metric(name)
        ]
        tags = [RunTag(STATUS, news.status)] if news.status else []
        run = self.children[key]
        while params or points or tags:  # a request takes so many params, and so many of all together
            now, later = params[:100], params[100:]
            room = 1000 - len(now) - len(tags)
            self.client.log_batch(run, metrics=points[:room], params=now, tags=tags)
            params, points, tags = later, points[room:], []
        self.bare.discard(key)
        if news.status:
            self.client.set_terminated(run, status=_END[news.status])
        return sum(isinstance(v, int | float) and is_metric(k) for r in news.rows for k, v in r.items())

    def pictures(self, paths: Iterable[Path]) -> int:
        """Artifacts `plots/<name>`: of a trial's run if the name has its key, else of the sweep's. Returns how many."""
        count = 0
        for count, path in enumerate(paths, start=1):  # noqa: B007
            named = _TRIAL.search(path.stem)
            run = self.children.get(named[0], self.parent) if named else self.parent
            if self.own is not None:
                there = self.own / run
                _refuse_links(
                    [there, there / "artifacts", there / "artifacts/plots", there / "artifacts/plots" / path.name]
                )
            with _on_disk(path) as file:
                self.client.log_artifact(run, str(file), "plots")
        return count

    def close(self, status: str) -> None:
        self.client.set_terminated(self.parent, status=status)


class Tracker:
    """The queue in front of a `Store`. Its methods return at once and never raise. Where MLflow is slower than the sweep,
    news of a trial that wait are told together; more than `MOST` do not wait, but are left to `sync`."""

    def __init__(self, uri: str | None, *, out: Path, sweep: str, resolved: str, log: Callable[[str], None]):
        self._make = lambda: Store(uri, out, sweep, resolved)
        self._out, self._log = out, log
        self._queue: queue.Queue[News | tuple[str, Any]] = queue.Queue()
        self._busy = 0  # events taken from the queue and not delivered
        self._left_out = 0  # events that found no room,
        self._unheard: set[str] = set()  # and the trials they were of
        self._away = False  # did the last call fail?
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mlflow", daemon=True)

    def open(self) -> None:
        """Start; what an earlier run committed and MLflow did not get (its driver was killed) goes first."""
        self._queue.put(("catch_up", ledger.load(self._out)))
        self._thread.start()

    def start(self, trial: Trial) -> None:
        self._put(News(trial.key, trial))

    def rows(self, key: str, rows: list[dict[str, Any]]) -> None:
        if rows:
            self._put(News(key, rows=list(rows)))

    def end(self, key: str, status: str) -> None:
        self._put(News(key, status=status))

    def close(self, timeout_s: float, status: str = "FINISHED") -> int:
        """Deliver what is left for at most `timeout_s`. Returns the number of events that were not."""
        self._queue.put(("close", status))
        self._closing.set()
        if self.behind > TOLD_OF and not self._away:
            self._log(f"MLflow has {self.behind} events to take: waiting for it, at most {timeout_s:.0f} s")
        self._thread.join(min(timeout_s, CLOSE_AWAY_S) if self._away else timeout_s)
        return (self.behind if self._thread.is_alive() else 0) + self._left_out

    @property
    def behind(self) -> int:
        """Events that have not been delivered, about."""
        return self._queue.qsize() + self._busy

    def _put(self, news: News) -> None:
        if self._queue.qsize() >= MOST or (news.trial is None and news.key in self._unheard):
            self._unheard.add(news.key)
            self._left_out += 1
        else:
            self._unheard.discard(news.key)
            self._queue.put(news)

    def _run(self) -> None:
        store, failures = None, 0
        while True:
            events = self._next()
            self._busy = sum(e.events if isinstance(e, News) else 1 for e in events)
            for event in events:
                name, arg = ("tell", event) if isinstance(event, News) else event
                while True:
                    try:
                        store = store or self._make()
                        getattr(store, name)(arg)
                        self._away = False
                        break
                    except Exception as e:
                        if failures == 0:
                            self._log(
                                f"MLflow {_does(e)} ({_short(e)}); training goes on, `distvae sync {self._out}` later"
                            )
                        self._away = True
                        pause = BACK_OFF_S[min(failures, len(BACK_OFF_S) - 1)]
                        failures += 1
                        time.sleep(min(pause, 1.0) if self._closing.is_set() else pause)
                self._busy -= event.events if isinstance(event, News) else 1
                if name == "close":
                    return

    def _next(self) -> list[News | tuple[str, Any]]:
        """What waits, or the next that comes; the news of a trial in one."""
        found: list[News | tuple[str, Any]] = []
        latest: dict[str, News] = {}
        event = self._queue.get()
        while True:
            if not isinstance(event, News):
                latest = {}
                found.append(event)
            elif event.key not in latest or not latest[event.key].take(event):
                latest[event.key] = event
                found.append(event)
            if len(found) >= AT_ONCE:
                return found
            try:
                event = self._queue.get_nowait()
            except queue.Empty:
                return found


def sync(out: Path, uri: str | None = None) -> dict[str, Any]:
    """Rebuild MLflow's view of a sweep from its ledger and plan; repeat at will. Returns {trials, metrics, pictures,
    uri}.

    Raises TrackerError if MLflow does not answer, or refuses us."""
    from distvae.config import load

    study = load(out / "sweep.yaml")
    uri = uri or study.tracking.uri
    table = ledger.load(out)
    try:
        store = Store(uri, out, study.name, study.resolved)
        trials, points = store.replay(table)
        pictures = store.pictures(sorted((out / PLOTS).glob("*.png")))
        if trials:
            store.close("FINISHED")
    except Exception as e:
        what_to_do = "start it, or give --uri"
        if _does(e) == REFUSES:
            what_to_do = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        raise TrackerError(f"MLflow at {uri or store_uri(out)} {_does(e)}: {_short(e)}; {what_to_do}") from e
    return {"trials": trials, "metrics": points, "pictures": pictures, "uri": uri or store_uri(out)}


def log_pictures(out: Path, paths: Iterable[Path], study: Study | None = None) -> str | None:
    """Bring pictures to MLflow, where the sweep has one. Returns what went wrong in a line: pictures are not worth an
    error."""
    uri: str | None = None
    try:
        if study is None:
            if not (out / "sweep.yaml").exists():  # one trial trained from Python
                return None
            from distvae.config import load

            study = load(out / "sweep.yaml")
        uri = study.tracking.uri
        paths = list(paths)
        Store(uri, out, study.name, study.resolved, trials=any(_TRIAL.search(p.stem) for p in paths)).pictures(paths)
    except Exception as e:
        at = uri or store_uri(out)
        return f"MLflow at {at} did not take the pictures ({_short(e)}); `distvae sync {out}` brings them later"
    return None


def _move_here(out: Path) -> None:
    """If OUT was moved or copied since, its store still names the old place, and artifacts would go there."""
    db, here = home(out) / "mlflow.db", artifacts(out).as_uri()
    if not db.exists():
        return
    with contextlib.closing(sqlite3.connect(db, timeout=10.0)) as store, store:
        if not store.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone():
            return
        for (there,) in store.execute("SELECT artifact_location FROM experiments").fetchall():
            if there and there != here and there.startswith("file:") and there.endswith("/mlartifacts"):
                store.execute("UPDATE experiments SET artifact_location = ? WHERE artifact_location = ?", (here, there))
                store.execute(
                    "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) WHERE substr(artifact_uri, 1, ?) = ?",
                    (here, len(there) + 1, len(there) + 1, f"{there}/"),
                )


@contextlib.contextmanager
def _on_disk(path: Path) -> Iterator[Path]:
    """MLflow copies files, and knows no S3 of ours."""
    if not files.is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="dv-picture-") as folder:
        copy = Path(folder) / path.name
        copy.write_bytes(path.read_bytes())
        yield copy


def _refuse_links(paths: Iterable[Path]) -> None:
    """SQLite and MLflow write through symbolic links: one in OUT would lead them out of it."""
    for path in paths:
        if path.is_symlink():
            raise TrackerError(f"{path}: is a symbolic link, and nothing in OUT is written through one (remove it)")


class TrackerError(Exception):
    """MLflow cannot be reached (exit code 4)."""


def _does(e: Exception) -> str:
    """What MLflow does instead of what was asked: a 401 or 403 is an answer."""
    return REFUSES if getattr(e, "error_code", None) in ("UNAUTHENTICATED", "PERMISSION_DENIED") else "does not answer"


def _short(e: Exception) -> str:
    text = str(e)
    with contextlib.suppress(ValueError, AttributeError):
        text = json.loads(text).get("message", text)
    return f"{type(e).__name__}: {text.splitlines()[0][:160] if text else ''}"


def _at(row: dict[str, Any]) -> str:
    """`/beta_0.1` for a beta-input model's rows, one metric for each beta of its grid."""
    return f"/beta_{row['beta']:g}" if row.get("conditioning") else ""
