"""`distvae ui`: MLflow's own server over a sweep's SQLite store, on loopback only; it goes when we go."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distvae import files

START_S = 120.0
# By which names it may be asked for, also through a tunnel: MLflow by itself admits every private address too.
HOSTS = ("localhost", "localhost:*", "127.0.0.1", "127.0.0.1:*")


def serve(out: Path, port: int, say: Callable[[str], None]) -> int:
    """Serve until Ctrl-C; prints the URL on stdout once the server answers. Returns the exit code."""
    from distvae.results.tracking import artifacts, home, store_uri

    db = home(out) / "mlflow.db"
    if not db.exists():
        say(f"{db}: not there yet; `distvae sync {out}` makes it from the ledger")
        return 2
    try:
        port = free_port(port)
    except OSError as e:
        say(f"port {port}: {e.strerror or e}; choose another with --port, or --port 0 for any free one")
        return 4
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store_uri(out)]
    command += [
        "--default-artifact-root",
        str(artifacts(out)),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    command += ["--workers", "1", "--allowed-hosts", ",".join(HOSTS)]
    log = home(out) / "logs" / "ui.log"  # on this machine, as the server is
    with files.replacing(log) as f:  # also where a link is in its way
        f.write(b"")
    with open(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW), "wb") as f:
        env = {"MLFLOW_DISABLE_TELEMETRY": "true", **os.environ}  # a page on loopback tells nobody
        server = subprocess.Popen(command, stdout=f, stderr=subprocess.STDOUT, start_new_session=True, env=env)
    old = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        url = f"http://127.0.0.1:{port}"
        say("starting MLflow ...")
        if not _answers(url, server):
            say(f"MLflow did not start; its log: {log}")
            return 4
        print(url, flush=True)
        with contextlib.suppress(OSError, LookupError, ValueError):  # a convenience: the page itself is there
            say(f"the frontier compared: {compare(out, url)}")
        say("Ctrl-C stops it")
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        signal.signal(signal.SIGTERM, old)
        _end(server)


def compare(out: Path, url: str) -> str:
    """The address of MLflow's comparison of the frontier, one seed of each configuration, at most 20. Raises
    LookupError if there is no frontier or MLflow does not know it, OSError and ValueError if it does not answer."""
    from distvae.results import curves, ledger

    table = ledger.load(out)
    best = {c.config_key: c.points[0].trial_key for c in [*curves.best(table), *curves.frontier(table)]}
    name = table["sweep"][0].as_py() if best else ""
    asked = urllib.parse.quote(name)
    experiment = _ask(f"{url}/api/2.0/mlflow/experiments/get-by-name?experiment_name={asked}")["experiment"]
    number = experiment["experiment_id"]
    runs = []
    for key in list(best.values())[:20]:
        wanted = {"experiment_ids": [number], "filter": f"tags.`distvae.trial_key` = '{key}'", "max_results": 1}
        runs += [r["info"]["run_id"] for r in _ask(f"{url}/api/2.0/mlflow/runs/search", wanted).get("runs", [])]
    if not runs:
        raise LookupError("MLflow knows no trial of the frontier")
    lists = [urllib.parse.quote(json.dumps(ids, separators=(",", ":"))) for ids in (runs, [number])]
    return f"{url}/#/compare-runs?runs={lists[0]}&experiments={lists[1]}"


def _ask(url: str, data: dict[str, Any] | None = None) -> dict[str, Any]:
    body = None if data is None else json.dumps(data).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def free_port(port: int) -> int:
    """`port` if it can be had on loopback, any free one for 0. Raises OSError."""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", port))
        return s.getsockname()[1]


def _answers(url: str, server: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    return False


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server and the workers of its session."""
    for sig in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, sig)
        except ProcessLookupError:
            return
        try:
            server.wait(timeout=5)
        except subprocess.TimeoutExpired:
            continue
