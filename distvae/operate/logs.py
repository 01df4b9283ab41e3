"""`distvae logs OUT KEY`: one trial's life in readable form: when it was started, what it measured, what it raised, how it
ended."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from distvae import files
from distvae.operate import kept, look
from distvae.operate.pulse import LOOK_S, Pulse
from distvae.results import ledger
from distvae.store import folded

SHOWN = ("rate_nats", "distortion_nats", "elbo_nats", "objective")


def path(out: Path, key: str) -> Path:
    return out / "logs" / f"{key}.jsonl"


def events(text: str) -> list[dict[str, Any]]:
    """The lines of a log that are whole: one that a dying process cut short is left out."""
    found = []
    for line in text.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and "event" in event:
            found.append(event)
    return found


def texts(out: Path, keys: Collection[str]) -> dict[str, str]:
    """The logs of these trials, also where logs have been folded into zips; one that is not there is empty. Single
    files first: one that goes while we look has been folded. What is damaged has no lines: no number comes from a log."""
    single = dict(
        zip(keys, files.each([path(out, key) for key in keys], _bytes, remote=files.is_remote(out)), strict=True)
    )
    pieces: dict[str, list[bytes]] = {key: [] for key in keys}
    for member in folded.members(out / "logs"):
        if (key := member.name.removesuffix(".jsonl")) in pieces:
            _add(pieces[key], _bytes(member))
    for key in keys:
        _add(pieces[key], single[key])
    return {key: b"".join(pieces[key]).decode(errors="replace") for key in keys}


def _add(pieces: list[bytes], piece: bytes) -> None:
    """One that begins with the last is that, read later: who folds may die before the file goes."""
    if pieces and piece.startswith(pieces[-1]):
        pieces.pop()
    if piece:
        pieces.append(piece)


def text(out: Path, key: str) -> str:
    """One trial's."""
    return texts(out, [key])[key]


def _bytes(file: Path | folded.Member) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def check(out: Path, *, mend: bool) -> list[str]:
    """A line for each zip of logs that is damaged; with `mend`, for the owner of OUT, it is mended."""
    return folded.check(out, out / "logs", mend=mend, lost="no number was in them")


def fold(out: Path, keys: Collection[str], least: int) -> int:
    """Fold the logs of these trials into zips if there are at least so many; nobody is writing them. Returns how many
    went."""
    folder = out / "logs"
    found = sorted(f for f in folder.glob("*.jsonl") if f.stem in keys) if folder.is_dir() else []
    return folded.fold(folder, found, least)


def _read(out: Path, key: str) -> list[dict[str, Any]]:
    return events(text(out, key))


def words(event: dict[str, Any]) -> str:
    """One event, its traceback indented below."""
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.get("unix_s", 0)))
    rest = {k: v for k, v in event.items() if k not in ("unix_s", "event", "traceback")}
    told = f"{at}  {event['event']}" + "".join(f"  {k} {v}" for k, v in rest.items())
    below = str(event.get("traceback", "")).rstrip()
    return told + "".join(f"\n    {line}" for line in below.splitlines())


def measured(out: Path, key: str) -> tuple[str, list[dict[str, Any]]]:
    """(where from, rows): committed ones, or those of the checkpoint of a trial that has not ended."""
    past = ledger.history(out, key)
    if past is not None and past.rows:
        return "committed", past.rows
    return "in its checkpoint", kept.peek(out, key)


def table(rows: list[dict[str, Any]]) -> list[str]:
    """A line for each epoch and split."""
    lines = [f"{'epoch':>6} {'step':>8}  {'split':<6}" + "".join(f" {name:>16}" for name in SHOWN)]
    for r in sorted(rows, key=lambda r: (r["epoch"], r["split"], r["point"])):
        values = "".join(f" {'' if r.get(n) is None else format(r[n], '.4f'):>16}" for n in SHOWN)
        lines.append(f"{r['epoch']:>6} {r['step']:>8}  {r['split']:<6}{values}")
    return lines


def data(out: Path, key: str) -> dict[str, Any]:
    """All of it, for programs."""
    where, rows = measured(out, key)
    return {"trial_key": key, "events": _read(out, key), "rows": rows, "rows_are": where}


def show(out: Path, key: str) -> list[str]:
    """All of it, for people."""
    lines = [words(event) for event in _read(out, key)] or ["nothing is logged: it has not been started"]
    where, rows = measured(out, key)
    return [*lines, "", f"rows {where}, nats per example:", *table(rows)] if rows else lines


def follow(out: Path, key: str, sleep: Callable[[float], None] = time.sleep) -> Iterator[str]:
    """Events from now on, and epochs as the sweep's record tells them, until the trial or the sweep ends."""
    pulse, seen, at = Pulse(out), len(_read(out, key)), ""
    while True:
        state, found = pulse.look(), _read(out, key)
        yield from map(words, found[seen:])
        seen = len(found)
        if state in (None, "ended", "died"):
            if pulse.seen is not None:
                yield from look.lines(state, pulse.seen)
            return
        assert pulse.seen is not None
        mine = next((t for t in pulse.seen["running"] if t["key"] == key), None)
        if mine is not None and at != (at := f"epoch {mine['epoch']}/{mine['epochs']}"):
            yield at
        if mine is None and found and found[-1]["event"] == "end":
            return
        sleep(LOOK_S)
