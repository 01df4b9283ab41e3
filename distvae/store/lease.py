"""One owner of an OUT where the file system has no locks: a lease that beats.

`OUT/.lease-<n>` is a JSON of who holds it and a number that grows every BEAT_S. To own OUT is to have created the newest
one, by an exclusive create, which one process alone can win (S3: If-None-Match; a folder: a hard link). Whoever finds a
lease that was not given back watches it: if it beats, OUT is locked; if it stays the same for as long as `patience`, on
the watcher's own monotonic clock, its owner is dead or stalled, and the watcher creates number n + 1. Nobody compares
clocks with anybody, so a clock that is a day off changes nothing.

Fencing: an owner that was stalled and wakes finds `.lease-<n+1>` there and commits nothing more (`Hold.check`). In the
instant between that look and a commit it could be overtaken still: a commit is an exclusive create too, so that row's
file has one author, and a trial's rows are the same whoever trains it.

Leases stay when they are given back: 200 bytes a launch, and a number is never used twice."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distvae import files
from distvae.store.errors import StoreError, UnwrittenError

BEAT_S = 3.0
PATIENCE_S = 30.0  # on S3, which shows what was put at once
SHARED_PATIENCE_S = 90.0  # a node may see a shared folder's names as they were a minute ago
_NAME = re.compile(r"\.lease-(\d{9})")


class OutLockedError(Exception):
    """OUT belongs to another running sweep (exit code 5)."""


def name(number: int) -> str:
    return f".lease-{number:09d}"


def newest(out: Path) -> int:
    """The number of the newest lease, 0 if there was none yet."""
    return max((int(m[1]) for p in out.glob(".lease-*") if (m := _NAME.fullmatch(p.name))), default=0)


def lost(out: Path, number: int | None) -> bool:
    """Does somebody hold a newer lease than `number`? (None: OUT is held by a lock, which is never lost.)"""
    return number is not None and (out / name(number + 1)).exists()


def check(out: Path, number: int | None) -> None:
    """Raises OutLockedError if lease `number` is not the newest: its holder must commit nothing more."""
    if lost(out, number):
        assert number is not None
        by = owner(out, newest(out)) or "another process"
        raise OutLockedError(f"{out} was taken over by {by} while this sweep did not beat: nothing more is committed")


def owner(out: Path, number: int) -> str | None:
    """Whose lease it is, or was: `process 12 on host`; None if it cannot be read."""
    told = _read(out / name(number))
    return f"process {told['pid']} on {told['host']}" if told else None


def _read(path: Path) -> dict[str, Any] | None:
    """A lease; None if it is not there, or half written by one that died."""
    try:
        told = json.loads(path.read_bytes())
        return told if isinstance(told, dict) and {"pid", "host", "id"} <= told.keys() else None
    except (FileNotFoundError, ValueError):
        return None


@dataclass
class Hold:
    """That this process owns OUT. `number` of its lease; None where a lock of the kernel holds it."""

    out: Path
    number: int | None = None
    is_lost: bool = False
    beats: bool = True  # did the last beat get through?
    _told: list[Callable[[str], None]] = field(default_factory=list)

    def check(self) -> None:
        """Before a commit. Raises OutLockedError if OUT is somebody else's by now."""
        if self.is_lost or lost(self.out, self.number):
            self.is_lost = True
            check(self.out, self.number)

    def when_lost(self, tell: Callable[[str], None]) -> None:
        """Have `tell(why)` called, once and from another thread, when OUT is lost."""
        self._told.append(tell)

    def lose(self, why: str) -> None:
        """OUT is somebody else's: whoever asked to be told is."""
        if not self.is_lost:
            self.is_lost = True
            for tell in self._told:
                tell(why)


@contextmanager
def hold(out: Path, say: Callable[[str], None], patience: float | None = None) -> Iterator[Hold]:
    """Own `out` by a lease. Raises OutLockedError naming the owner, StoreError where exclusive creates are not."""
    me = {"id": secrets.token_hex(8), "pid": os.getpid(), "host": socket.gethostname()}
    number = _take(out, me, say, PATIENCE_S if patience is None else patience)
    held, stop = Hold(out, number), threading.Event()
    beats = threading.Thread(target=_beat, args=(held, me, stop), name="lease", daemon=True)
    beats.start()
    try:
        yield held
    finally:
        stop.set()
        beats.join(BEAT_S)
        if not held.is_lost and held.beats and not beats.is_alive():
            with contextlib.suppress(StoreError, UnwrittenError):  # then the next one waits for its patience
                if not lost(out, number):
                    _put(out, number, {**me, "done": True})


def _take(out: Path, me: dict[str, Any], say: Callable[[str], None], patience: float) -> int:
    while True:
        last = newest(out)
        if last:
            _await_silence(out, last, say, patience)
        if _create(out / name(last + 1), me):
            _must_be_exclusive(out, last + 1, me)
            return last + 1
        raise _locked(out, last + 1)


def _await_silence(out: Path, number: int, say: Callable[[str], None], patience: float) -> None:
    """Return when the lease was given back, or has not changed for `patience` seconds; OutLockedError if it beats."""
    path = out / name(number)
    before, since, said = _read(path), time.monotonic(), False
    looked = since  # before the last look, not now: this process may have been stalled itself
    while before is None or not before.get("done"):
        waited = looked - since
        if waited > patience:
            return
        if waited > 2 * BEAT_S and not said:
            said = True
            say(
                f"{out} belongs to {owner(out, number) or 'a process'}, which does not beat: "
                f"it is taken over after {patience:.0f} s of silence"
            )
        time.sleep(min(0.5, BEAT_S / 4))
        looked = time.monotonic()
        now = _read(path)
        if now is not None and before is not None and now != before:
            if now.get("done"):
                return
            raise _locked(out, number)
        if now is not None and before is None:
            before, since = now, time.monotonic()


def _locked(out: Path, number: int) -> OutLockedError:
    who = owner(out, number) or "another process"
    return OutLockedError(f"{out} is being swept by {who}; wait for it, or give another --out")


def _create(path: Path, me: dict[str, Any]) -> bool:
    try:
        with files.creating(path) as f:
            f.write(json.dumps({**me, "beat": 0}).encode())
        return True
    except FileExistsError:
        told = _read(path)  # an answer that was lost, and the request made again: it is ours
        return told is not None and told["id"] == me["id"]


def _must_be_exclusive(out: Path, number: int, me: dict[str, Any]) -> None:
    """A server that ignores conditions would let two sweeps own one OUT."""
    try:
        with files.creating(out / name(number)) as f:
            f.write(json.dumps({**me, "beat": 0}).encode())
    except FileExistsError:
        return
    raise StoreError(
        f"{out}: this place lets two processes create one file (it ignores If-None-Match), "
        "so nobody can own OUT: use a server that heeds it (AWS, MinIO), or a folder"
    )


def _put(out: Path, number: int, told: dict[str, Any]) -> None:
    with files.replacing(out / name(number)) as f:
        f.write(json.dumps(told).encode())


def _beat(held: Hold, me: dict[str, Any], stop: threading.Event) -> None:
    """Until `stop`. A beat that fails is no loss yet: the owner is whoever created the newest lease."""
    assert held.number is not None
    beat = 0
    while not stop.wait(BEAT_S):
        try:
            if lost(held.out, held.number):
                by = owner(held.out, newest(held.out)) or "another process"
                held.lose(f"{held.out} was taken over by {by} while this sweep did not beat")
                return
            beat += 1
            _put(held.out, held.number, {**me, "beat": beat})
            held.beats = True
        except (StoreError, OSError):
            held.beats = False
