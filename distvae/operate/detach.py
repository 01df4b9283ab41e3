"""A sweep without a terminal: `--detach` starts it in a session of its own, so that no hang-up and no Ctrl-C of this one
reaches it; `attach` shows what it says until it ends."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from distvae.operate import console, look, record
from distvae.operate.pulse import LOOK_S, Pulse

LINES = 50  # of the past that `attach` shows


def start(args: Sequence[str], out: Path, show: Callable[[str], None]) -> int | None:
    """Run `distvae args...` in the background. Returns when it has taken OUT (None), or has ended before that (its exit
    code), having shown what it said till then."""
    with tempfile.TemporaryFile() as said:  # its words before it has OUT; the file goes with the process
        command = [sys.executable, "-m", "distvae.cli", *args]
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True)
        shown = 0
        try:
            while True:
                code, found = child.poll(), record.read(out)
                mine = found is not None and found["owner"]["pid"] == child.pid
                said_by_then = _from(said.fileno(), shown)
                show(said_by_then.decode(errors="replace"))
                shown += len(said_by_then)
                if mine and found is not None and found["owner"]["started"] == record.started(child.pid):
                    child.returncode = 0  # it is on its own: nobody waits for it
                    return None
                if code is not None:
                    show(_from(said.fileno(), shown).decode(errors="replace"))
                    return code
                time.sleep(0.1)
        except KeyboardInterrupt:
            child.terminate()
            raise


def _from(file: int, at: int) -> bytes:
    """What a file holds from there on, wherever its writers stand in it."""
    import os

    return os.pread(file, 1 << 20, at)


def attach(out: Path, show: Callable[[str], None], sleep: Callable[[float], None] = time.sleep) -> int:
    """Show the console of the last launch, from a little before now to its end. Returns the sweep's exit code."""
    pulse, tail = Pulse(out), console.Tail(console.path(out), LINES)
    state = None
    for state in look.looks(pulse, lambda s: None):
        show(tail())
        if state in ("running", "unknown"):
            sleep(LOOK_S)
    show(tail())
    if pulse.seen is None:
        show(f"no sweep has run in {out} that says how it is\n")
        return 0
    if state == "died":
        show("".join(line + "\n" for line in look.lines(state, pulse.seen)))
    return look.exit_code(state, pulse.seen)
