"""A sweep from its plan to its curve: skip what has ended, train the rest on Ray Tune (`driver.py`), export.

Tune schedules, places and retries groups of trials (`groups.py`); its own state is thrown away. The first Ctrl-C (or
SIGTERM) drains: running trials save and stop. A second one stops hard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from distvae import files
from distvae.kernels import backend
from distvae.operate import again, console, verdict
from distvae.operate.desk import Desk
from distvae.results import compaction, ledger
from distvae.store.errors import StoreError
from distvae.study import Study
from distvae.sweeps import measure, searching
from distvae.sweeps.book import Book
from distvae.sweeps.driver import Driver
from distvae.sweeps.lock import hold_out
from distvae.sweeps.outcome import Outcome
from distvae.sweeps.plan import write_plan
from distvae.sweeps.progress import Display, Progress
from distvae.sweeps.remaining import remaining


def sweep(
    study: Study,
    out: Path,
    *,
    address: str | None = None,
    display: bool = True,
    closing: Callable[[Outcome], None] = lambda outcome: None,
) -> Outcome:
    """Run (or resume) `study` into `out`. Idempotent: what has ended is never run again. `closing` is called at the end,
    while OUT is still ours.

    Raises OutLockedError if another sweep owns `out`, KernelsUnavailable if DISTVAE_KERNELS asks for what is not here."""
    backend.require()
    with hold_out(out) as hold:
        ended, damaged = ledger.scan(out)
        damaged += compaction.mend(out)
        marked = again.read(out)
        suggestions = searching.known(out, searching.Configurations(study.source)) if study.source else []
        if study.source:
            study = replace(study, trials=searching.distinct(suggestions))
        write_plan(out, study, keep=set(ended), suggested=searching.by_config(suggestions))
        todo = remaining(study, ended, marked)
        more = study.search.algorithm.trials - len(suggestions) if study.search.algorithm else 0
        outcome = Outcome(out, len(study.trials))
        outcome.notes += damaged
        compaction.tidy(out, {key: end.status for key, end in ended.items()}, outcome.notes, running=False)
        progress = Progress(total=len(study.trials), skipped=len(study.trials) - len(todo))
        progress.epochs = sum(t.train.epochs for t, _ in todo)
        busy = bool(todo) or more > 0 or bool(measure.tasks(out, study.trials, study.metrics))
        console.begin(out)
        shown = Display(progress, shown=display and busy, record=lambda line: console.tell(out, line))
        with Desk(out, study.name, progress, shown, hold) as desk:
            with shown:
                for line in damaged:
                    shown.say(line)
                book = Book(study, out, todo, outcome, progress, shown.say, desk)
                book.past, book.suggestions = ended, suggestions
                driver = Driver(book, shown, address, desk)
                hold.when_lost(driver.lost)
                try:
                    driver.run(more)
                except Exception:
                    hold.check()  # who woke up to a Ray that has given everything up need not read of that
                    raise
            if outcome.unwritten and files.is_remote(out) and not hold.is_lost:
                raise StoreError(outcome.unwritten)  # what is left to do here would only wait for it, minutes
            hold.check()
            study = book.study
            outcome.planned = len(study.trials)
            latest, _ = ledger.scan(out)
            outcome.status = {t.key: latest[t.key].status for t in study.trials if t.key in latest}
            compaction.tidy(out, {key: end.status for key, end in latest.items()}, outcome.notes, running=False)
            left = [t for t, _ in remaining(study, latest, marked) if outcome.status.get(t.key) != "failed"]
            outcome.left = len(left)
            if study.search.algorithm:
                outcome.unasked = max(0, study.search.algorithm.trials - len(book.suggestions))
            desk.phase = "exporting"
            closing(outcome)
            desk.close(outcome.exit_code, verdict.why(outcome))
        return outcome
