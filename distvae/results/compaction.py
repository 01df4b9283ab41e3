"""What keeps the number of files in OUT bounded, however many trials: rows of ended attempts move into packs, what was
measured later and the logs of trials that ended well into zips, once there are `ledger.MANY` of a kind. (A trial's weights
stay where they are: `resources: {keep: ...}` says whether there are any.)"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from distvae.operate import logs
from distvae.results import ledger, measurements
from distvae.store.errors import StoreError


def compact(out: Path, status: Mapping[str, str], *, running: bool) -> int:
    """Of the trials with these statuses, in whose groups nothing runs any more; of others too unless something is
    `running`. For the owner of OUT, after a `scan`. Returns how many attempts were packed. Raises UnwrittenError,
    StoreError, OSError; what has not moved by then stays as it is."""
    over: Collection[str] | None = status if running else None
    well = {key for key, how in status.items() if how != "failed"}
    packed = ledger.compact(out, over)
    logs.fold(out, well, ledger.MANY)
    if not running:
        measurements.fold(out, ledger.MANY)
    return packed


def tidy(out: Path, status: Mapping[str, str], notes: list[str], *, running: bool) -> int:
    """`compact`, where a place that cannot be written is noted, once, and the files stay."""
    try:
        return compact(out, status, running=running)
    except (OSError, StoreError) as e:
        note = f"the files of ended trials could not be packed ({e}): nothing is lost, the next sweep tries again"
        notes += [] if note in notes else [note]
        return 0


def mend(out: Path) -> list[str]:
    """For the owner of OUT: make damaged zips again from their spares. A line for each."""
    return [*measurements.check(out, mend=True), *logs.check(out, mend=True)]
