"""What a sweep takes besides training: the start of Ray and the workers, the driver's own work for each trial (Tune,
MLflow), the export and pictures at the end. It is measured by sweeps: each leaves its figures in the user's cache,
`$DISTVAE_CACHE`, `$XDG_CACHE_HOME/distvae` or `~/.cache/distvae`, by its engine and about how many trials it had, for the
end of 10,000 is not that of ten. Where there are none yet a small one is run, unless it would say little: by a sweep of 24
trials, 10,000 end in 3 s and need 74 s of the driver; by one of 4,000, in 74 s and 141 s."""

from __future__ import annotations

import contextlib
import json
import math
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distvae.files import cache_folder, replacing
from distvae.sweeps.cluster import cores
from distvae.trial import Trial

if TYPE_CHECKING:
    from distvae.sweeps.outcome import Outcome

FILE = "overhead.json"
TIMEOUT_S = 300.0
LEAST = 16  # trials: what the driver spends on fewer is lost in what it spends on starting
MANY = 1000  # trials: of these a small sweep says little
SMALL = """\
name: overhead
data: {{type: digits}}
vae: {{encoder: {{type: mlp, hidden: [16]}}, latent_dim: 2}}
train: {{epochs: 4, batch_size: 512}}
seeds: 24
engine: {engine}
resources: {{keep: weights}}
"""


@dataclass(frozen=True, kw_only=True)
class Overhead:
    """As one sweep had it."""

    start_s: float  # from the command to the first group
    end_s: float  # from the last trial's end to the command's
    event_s: float  # of the driver's processor time for each event of a trial
    trials: int
    unix_s: float  # when


def mark() -> tuple[float, float]:
    """(unix time, processor seconds of this process)."""
    return time.time(), time.process_time()


def events(trial: Trial) -> int:
    """Of a trial, that the driver handles: its start, rows, end."""
    return 2 + -(-trial.train.epochs // trial.evaluate.every)


def keep(outcome: Outcome, began: float, engine: str, trials: dict[str, Trial]) -> None:
    """Remember what this sweep, whose command `began` (unix time), took. Never raises."""
    path, first, last = _path(), outcome.first, outcome.last
    ran = [trials[key] for key in outcome.ran if key in trials]
    if path is None or first is None or last is None or outcome.interrupted or len(ran) < LEAST:
        return
    found = Overhead(
        start_s=first[0] - began,
        end_s=time.time() - last[0],
        event_s=(last[1] - first[1]) / sum(map(events, ran)),
        trials=len(ran),
        unix_s=time.time(),
    )
    with contextlib.suppress(OSError), replacing(path) as f:
        f.write(json.dumps({**_all(path), f"{_here(engine)}, {_about(len(ran))}": asdict(found)}, indent=1).encode())


def known(engine: str, trials: int) -> Overhead | None:
    """Of the sweep on this machine whose number of trials was the nearest; of those of about as many, the last."""
    path = _path()
    if path is None:
        return None
    found = []
    for name, values in _all(path).items():
        if name.startswith(f"{_here(engine)}, "):
            with contextlib.suppress(TypeError, ValueError):  # a file that somebody edited
                one = Overhead(**values)
                found.append((abs(math.log(one.trials / max(1, trials))), one))
    return min(found, key=lambda pair: pair[0], default=(0.0, None))[1]


def measured(engine: str, trials: int, say: Callable[[str], None]) -> Overhead | None:
    """Known, or, for fewer than `MANY` trials, from a small sweep now; None if that does not run, or there is no cache."""
    if (found := known(engine, trials)) or _path() is None or trials >= MANY:
        return found
    say("a small sweep is run first, once, to see what a sweep takes here besides training")
    with tempfile.TemporaryDirectory(prefix="dv-small-") as folder:
        config = Path(folder) / "small.yaml"
        config.write_text(SMALL.format(engine=engine))
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                [sys.executable, "-m", "distvae.cli", "sweep", config, "--out", Path(folder) / "out"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=TIMEOUT_S,
                check=False,
            )
    return known(engine, trials)


def _path() -> Path | None:
    folder = cache_folder()
    return None if folder is None else folder / FILE


def _here(engine: str) -> str:
    return f"{platform.node()}, {cores()} cores, {engine}"


def _about(trials: int) -> int:
    """A power of ten."""
    return 10 ** round(math.log10(max(1, trials)))


def _all(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}
