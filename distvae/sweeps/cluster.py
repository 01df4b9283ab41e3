"""The Ray cluster of a sweep: an embedded one of its own by default, or one that runs already (`--address`).

A local cluster lives in a temporary directory of its own, with a token that only we know, listens on loopback only, has no
dashboard, and goes when the sweep goes, however that ends (`reaper.py`)."""

from __future__ import annotations

import gc
import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from distvae.study import Resources
from distvae.sweeps import head, reach
from distvae.sweeps.reaper import TOKEN_PATH


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def slots(r: Resources, cpus: float, gpus: float) -> int:
    """Groups that train at a time on so many cores and GPUs."""
    fit = cpus // (r.workers * r.threads)
    return r.concurrency or max(1, int(min(fit, gpus // (r.workers * r.gpus)) if r.gpus else fit))


@dataclass(frozen=True)
class Cluster:
    """What a sweep runs on: is it our own, and where may scratch files go."""

    local: bool
    scratch: Path
    cpus: float
    gpus: float

    def slots(self, r: Resources) -> int:
        return slots(r, self.cpus, self.gpus)


class ClusterError(Exception):
    """Ray does not start here, or there is none at the address (exit code 4)."""


@contextmanager
def connect(
    address: str | None,
    cpus: int | None = None,
    env: Mapping[str, str] | None = None,
    lost: Callable[[str], None] = lambda why: None,
) -> Iterator[Cluster]:
    """Ray, initialised; a local cluster of our own (with `cpus` cores of the machine's) unless `address` names one that
    runs, whose workers get the environment variables `env` (those of our own cluster inherit them). `lost(why)` is called
    if our own dies as it starts: Ray waits a minute then, and ends this process."""
    os.environ.update(_QUIET)
    local = address in (None, "local")
    temp = tempfile.mkdtemp(prefix="dv-", dir="/tmp" if os.path.isdir("/tmp") else None)  # socket paths are short
    with _reaped(temp) if local else _removed(temp), _environment(_local_settings(temp) if local else {}):
        import ray

        for name in ("ray", "ray.tune", "ray.train"):
            logging.getLogger(name).setLevel(logging.ERROR)
        if not local:
            reach.check(str(address))
        common = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
        try:
            if local:
                with _our_sigterm(), head.starting(lost):
                    ray.init(
                        address="local",
                        num_cpus=cpus or cores(),
                        include_dashboard=False,
                        _node_ip_address="127.0.0.1",
                        _temp_dir=os.path.join(temp, "ray"),  # which Ray lets everybody write in; `temp` is ours alone
                        object_store_memory=256 * 2**20,
                        **common,
                    )
            else:
                told = {"runtime_env": {"env_vars": dict(env)}} if env else {}
                with _our_sigterm():
                    ray.init(address=address, **told, **common)
        except Exception as e:
            ray.shutdown()
            why = str(e).strip().splitlines() or [type(e).__name__]
            again = "; the same command tries again" if local else ""
            raise ClusterError(f"Ray {f'at {address} ' if address else ''}could not be started: {why[0]}{again}") from e
        try:
            has = ray.cluster_resources()
            yield Cluster(local, Path(temp) / "tune", has.get("CPU", 1.0), has.get("GPU", 0.0))
        finally:
            gc.collect()  # a reference to an object of Ray that is freed after its shutdown ends the process
            _shutdown()


def _shutdown() -> None:
    """Ray's. Its C++, as it ends, takes the handler of SIGTERM away: it is set again, before Ray waits for its processes."""
    import ray
    from ray._private import worker

    def sigterm() -> None:
        ours = signal.getsignal(signal.SIGTERM)
        if ours is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, ours)

    node = getattr(worker, "_global_node", None)  # Ray's own: where a version has none, nothing is lost but this
    if node is not None and hasattr(node, "kill_all_processes"):
        kill = node.kill_all_processes
        node.kill_all_processes = lambda *args, **how: (sigterm(), kill(*args, **how))
    ray.shutdown()
    sigterm()


@contextmanager
def _our_sigterm() -> Iterator[None]:
    """Ray, as it starts, sets a handler for SIGTERM that exits at once. If there is one already (a sweep's, which drains),
    it stays, from the first moment on."""
    ours = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or not callable(ours):
        yield
        return
    from ray._private import utils

    theirs = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = theirs
        signal.signal(signal.SIGTERM, ours)  # had it been set by other ways


_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",  # what repeats it holds back, and prints past `ray_log` as it ends; we say a thing once
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # its banner prints at verbose=0
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours drains
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # the ledger is the record; Tune's own state is disposable
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # they are in the trial's log, and the driver says so
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


def _local_settings(temp: str) -> dict[str, str]:
    return {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", TOKEN_PATH: _token(temp)}


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _reaped(temp: str) -> Iterator[None]:
    """Nothing of the cluster survives this block, nor the sudden death of this process."""
    reaper = subprocess.Popen(
        [sys.executable, "-m", "distvae.sweeps.reaper", temp], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        yield
    finally:
        reaper.communicate(b"done")


@contextmanager
def _removed(temp: str) -> Iterator[None]:
    try:
        yield
    finally:
        shutil.rmtree(temp, ignore_errors=True)


def _token(folder: str) -> str:
    """A file with the token of this process's clusters, readable by us alone."""
    path = os.path.join(folder, "token")
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as f:
        f.write(_secret())
    return path


@cache
def _secret() -> str:
    """One token a process: Ray reads it once and remembers it, and one process may sweep twice."""
    return secrets.token_hex(32)
