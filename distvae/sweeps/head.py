"""Ray's head may die under a sweep: its GCS, which places actors and knows the nodes. Ray itself waits a minute for it to
come back and then ends the driver without a word; what trains meanwhile can tell nobody. So we look ourselves, say it,
and end: what is committed stays, and what ran goes on from its checkpoints under the same command."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOOK_S, START_LOOK_S = 1.0, 0.2
PATIENCE_S = {True: 4.0, False: 40.0}  # our own head never comes back; one of a cluster may be started again


@contextmanager
def watched(local: bool, lost: Callable[[str], None]) -> Iterator[None]:
    """While Ray is connected: `lost(why)` is called, from a thread, once its head has not answered for a while."""
    import ray

    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    answered = time.monotonic()

    def gone() -> str | None:
        nonlocal answered
        looked = time.monotonic()
        if _answers(host.strip("[]"), int(port)):
            answered = looked
        silent = looked - answered
        return (
            f"Ray's head at {host}:{port} has not answered for {silent:.0f} s" if silent > PATIENCE_S[local] else None
        )

    with _looking(LOOK_S, gone, lost):
        yield


@contextmanager
def starting(lost: Callable[[str], None]) -> Iterator[None]:
    """While a Ray of our own starts: `lost(why)` is called, from a thread, if its head dies meanwhile."""
    import psutil

    head: psutil.Process | None = None

    def gone() -> str | None:
        nonlocal head
        with contextlib.suppress(psutil.Error):
            if head is None:
                head = next((p for p in psutil.Process().children() if p.name() == "gcs_server"), None)
            elif not head.is_running() or head.status() == psutil.STATUS_ZOMBIE:
                return "Ray's head died as it started"
        return None

    with _looking(START_LOOK_S, gone, lost):
        yield


@contextmanager
def _looking(every_s: float, gone: Callable[[], str | None], lost: Callable[[str], None]) -> Iterator[None]:
    """A thread asks `gone` until it gives a reason, and tells it."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(every_s):
            why = gone()
            if why is not None and not over.is_set():
                lost(why)
                return

    threading.Thread(target=watch, name="head", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5.0).close()
    except OSError:
        return False
    return True
