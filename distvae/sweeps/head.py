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
    over = threading.Event()

    def watch() -> None:
        answered = time.monotonic()
        while not over.wait(LOOK_S):
            looked = time.monotonic()
            if _answers(host.strip("[]"), int(port)):
                answered = looked
            elif looked - answered > PATIENCE_S[local] and not over.is_set():
                lost(f"Ray's head at {host}:{port} has not answered for {looked - answered:.0f} s")
                return

    thread = threading.Thread(target=watch, name="head", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()


@contextmanager
def starting(lost: Callable[[str], None]) -> Iterator[None]:
    """While a Ray of our own starts: `lost(why)` is called, from a thread, if its head dies meanwhile."""
    import psutil

    over = threading.Event()

    def watch() -> None:
        head = None
        while not over.wait(START_LOOK_S):
            with contextlib.suppress(psutil.Error):
                if head is None:
                    head = next((p for p in psutil.Process().children() if p.name() == "gcs_server"), None)
                elif (not head.is_running() or head.status() == psutil.STATUS_ZOMBIE) and not over.is_set():
                    lost("Ray's head died as it started")
                    return

    thread = threading.Thread(target=watch, name="head", daemon=True)
    thread.start()
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
