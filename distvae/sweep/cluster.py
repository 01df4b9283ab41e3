"""The Ray cluster of a sweep: an embedded one of its own by default, or one that runs already (`--address`).

A local cluster lives in a temporary directory of its own, with a token of its own, listens on loopback only, has no dashboard, and goes when the sweep goes: Ray's
processes share the fate of the driver, and `stop` waits for them."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def connect(address: str | None) -> Iterator[bool]:
    """Ray, initialised; yields whether it is our own local cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # its banner prints at verbose=0
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "3600"  # the ledger is the record; Tune's own state is disposable
    os.environ["TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S"] = "0"
    local = address in (None, "local")
    temp = None
    if local:
        temp = tempfile.mkdtemp(prefix="dv-", dir="/tmp" if os.path.isdir("/tmp") else None)  # socket paths are short
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        os.environ["RAY_AUTH_TOKEN_PATH"] = _token(temp)
    import ray

    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    common = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    try:
        if local:
            ray.init(
                address="local",
                num_cpus=cores(),
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                _temp_dir=temp,
                object_store_memory=256 * 2**20,
                **common,
            )
        else:
            ray.init(address=address, **common)
        yield local
    finally:
        ray.shutdown()
        if temp:
            shutil.rmtree(temp, ignore_errors=True)


def _token(folder: str) -> str:
    """A token file of this cluster alone, readable by us alone."""
    path = os.path.join(folder, "token")
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as f:
        f.write(secrets.token_hex(32))
    return path


def storage() -> Path:
    """A scratch folder for Tune's disposable state."""
    return Path(tempfile.mkdtemp(prefix="dv-tune-"))


def kill_children() -> None:
    """End every process below this one, now. For the second Ctrl-C."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
