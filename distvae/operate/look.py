"""`distvae status` while a sweep runs: what its record says, once or until it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from distvae.operate import ray_log
from distvae.operate.pulse import LOOK_S, Pulse, State
from distvae.sweeps.progress import duration

SHOWN = 8  # running trials that are named
LEFT_UNDONE = 3  # the exit code of a sweep that died
PLAIN_S = 10.0  # between lines where there is no terminal


def run(out: Path) -> dict[str, Any] | None:
    """The last launch as data: its record, and `state` (running, ended, died). None if none has left a record."""
    pulse = Pulse(out)
    state = pulse.tell()
    return None if state is None else {"state": state, **(pulse.seen or {})}


def exit_code(state: State | None, record: dict[str, Any]) -> int:
    """Of the sweep."""
    if state == "ended":
        return int(record["ended"]["exit_code"])
    return 130 if record["draining"] else LEFT_UNDONE


def lines(state: State | None, record: dict[str, Any]) -> list[str]:
    """The record in words."""
    who = f"process {record['owner']['pid']} on {record['owner']['host']}"
    if state == "ended":
        return [f"ended after {duration(record['so_far_s'])}: {record['ended']['why']}"]
    if state == "died":
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record["written_unix_s"]))
        how = "was stopped hard while it was saving" if record["draining"] else "died without saying so"
        return [
            f"the sweep ({who}) {how}: last sign of life {at} by its clock, at: {record['line']}",
            "nothing that was committed is lost; run the same command to go on",
        ]
    words = [] if state == "running" else [f"no sign of life yet of {who}: waiting for one"]
    words += [f"running ({who})" + (", saving and stopping" if record["draining"] else "") + f": {record['line']}"]
    trials = record["running"]
    words += [f"  {t['key']}  epoch {t['epoch']}/{t['epochs']}" for t in trials[:SHOWN]]
    words += [f"  and {len(trials) - SHOWN} more" for _ in range(len(trials) > SHOWN)]
    words += [f"  failed: {key}, see: distvae logs OUT {key}" for key in record["failed"][:SHOWN]]
    return words


def looks(pulse: Pulse, sleep: Callable[[float], None] = time.sleep) -> Iterator[State | None]:
    """Look by look, the last one at the sweep's end or death."""
    while True:
        state = pulse.look()
        yield state
        if state in (None, "ended", "died"):
            return
        sleep(LOOK_S)


def watch(out: Path, console: Console, sleep: Callable[[float], None] = time.sleep) -> int:
    """Show the sweep until it ends. Returns its exit code."""
    pulse = Pulse(out)
    state = _drawn(pulse, console, sleep) if console.is_terminal else _told(pulse, console, sleep)
    if state is None or pulse.seen is None:
        console.print(f"no sweep has run in {out} that says how it is", markup=False)
        return 0
    for line in lines(state, pulse.seen):
        console.print(line, markup=False)
    if state == "died" and (noise := ray_log.last(out)):
        console.print(f"the last of {ray_log.path(out)}:\n{noise}", markup=False)
    return exit_code(state, pulse.seen)


def _drawn(pulse: Pulse, console: Console, sleep: Callable[[float], None]) -> State | None:
    state: State | None = None
    with Live(console=console, auto_refresh=False, transient=True) as live:
        for state in looks(pulse, sleep):
            if pulse.seen is not None:
                live.update(_picture(state, pulse.seen), refresh=True)
    return state


def _picture(state: State | None, record: dict[str, Any]) -> Group:
    width, ended = 40, sum(record["counts"].values())
    full = int(width * ended / max(1, record["planned"]))
    bar = Text.assemble(
        ("█" * full, "green"), ("─" * (width - full), "dim"), f" {ended}/{record['planned']} {record['name']}"
    )
    return Group(bar, *(Text(line, overflow="fold") for line in lines(state, record)))


def _told(pulse: Pulse, console: Console, sleep: Callable[[float], None]) -> State | None:
    state: State | None = None
    due, shown = -float("inf"), ""
    for state in looks(pulse, sleep):
        if pulse.seen is None or state in ("ended", "died") or pulse.now() < due:
            continue
        line = lines(state, pulse.seen)[0]
        if line != shown:
            console.print(line, markup=False)
            shown, due = line, pulse.now() + PLAIN_S
    return state
