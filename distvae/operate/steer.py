"""`distvae stop`, `retry`, `extend`: what a person asks of a sweep, whether it runs or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distvae.operate import again, kept, requests
from distvae.operate.pulse import Pulse
from distvae.results import ledger, rows
from distvae.sweeps.lock import hold_out
from distvae.sweeps.plan import SWEEP, read_plan, trial_from_json

Say = Callable[[str], None]


class KeyNotFoundError(Exception):
    """What was given names no trial of the plan, or several (exit code 2)."""


class CannotExtendError(Exception):
    """The sweep cannot go on to so many epochs (exit code 2)."""


def planned(out: Path) -> dict[str, dict[str, Any]]:
    """Trial key -> its row of the plan (trial_key, current, epochs, config_json)."""
    table = read_plan(out).select(["trial_key", "current", "epochs", "config_json"])
    return {row["trial_key"]: row for row in table.to_pylist()}


def named(plan: dict[str, Any], prefixes: Sequence[str]) -> list[str]:
    """The trials whose keys begin so, each by one. Raises KeyNotFoundError."""
    found = []
    for prefix in prefixes:
        keys = [key for key in plan if key.startswith(prefix)] if prefix else []
        if len(keys) != 1:
            what = "begins the keys of several trials" if keys else "begins no trial's key"
            some = ", ".join((keys or sorted(plan))[:8])
            raise KeyNotFoundError(f"{prefix!r} {what} ({some}{', ...' if len(keys or plan) > 8 else ''})")
        found += keys
    return list(dict.fromkeys(found))


# --- stop -----------------------------------------------------------------------------------------------------------


def drain(out: Path, say: Say) -> None:
    """The sweep saves and stops, as at Ctrl-C; returns once its driver has taken the request."""
    told = _ask(out, "drain")
    if told is None:
        say(f"no sweep is running in {out}")
    else:
        say(f"taken: {told['sweep']} (distvae status {out} --watch shows it; the same command goes on from there)")


def stop(out: Path, prefixes: Sequence[str], say: Say) -> dict[str, str]:
    """These trials end where they are, with the rows they have, as `stopped`, and are not run again before `retry`. Returns
    what becomes of each. Where no sweep runs, their ends are committed here, with the rows of their checkpoints."""
    keys = named(planned(out), prefixes)
    answer = _ask(out, "stop", keys)
    told = answer["trials"] if answer is not None else _stop_here(out, keys)
    for key, what in told.items():
        say(f"trial {key} {what}")
    return told


def _ask(out: Path, what: str, keys: Sequence[str] = ()) -> dict[str, Any] | None:
    """The answer of the sweep that runs; None if none does."""
    pulse = Pulse(out)
    if pulse.tell() != "running" or pulse.seen is None:
        return None
    return requests.answer(pulse, requests.send(out, pulse.seen["run"], what, keys))


def _stop_here(out: Path, keys: Sequence[str]) -> dict[str, str]:
    from distvae.results.provenance import git_sha
    from distvae.sweeps.rank import log
    from distvae.sweeps.remaining import is_over

    told = {}
    with hold_out(out):
        plan, (ended, _) = planned(out), ledger.scan(out, mend=False)
        for key in keys:
            trial, past = trial_from_json(plan[key]["config_json"]), ended.get(key)
            if past is not None and is_over(trial, past.status, past.epoch):
                told[key] = f"has ended already: {past.status}"
                continue
            attempt, after = (0, 0) if past is None else (past.attempt + 1, past.epoch)
            measured = [r for r in kept.rows(out, key) if r["epoch"] > after]
            facts = {"sweep": _name(out), "status": "stopped", "attempt": attempt, "device": "", "git_sha": git_sha()}
            ledger.commit(out, rows.table(trial, measured, **facts))
            log(out, key, event="end", status="stopped", attempt=attempt, by="distvae stop")
            told[key] = f"is stopped, with {len(measured)} rows (no sweep is running)"
        ledger.export(out)
    return told


def _name(out: Path) -> str:
    from ruamel.yaml import YAML

    return str(YAML(typ="safe").load((out / SWEEP).read_text())["name"])


# --- run again, run on ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GoOn:
    """What `distvae sweep` is to do with OUT/sweep.yaml."""

    config: Path
    sets: tuple[str, ...] = ()


def retry(out: Path, prefixes: Sequence[str], *, failed: bool, say: Say) -> GoOn:
    """Mark trials that ended to be run again: all that failed, or those named. Then the sweep goes on."""
    with hold_out(out):
        plan, (ended, _) = planned(out), ledger.scan(out, mend=False)
        keys = named(plan, prefixes)
        if failed:
            keys += [k for k, past in ended.items() if past.status == "failed" and k in plan and k not in keys]
        marks = {}
        for key in keys:
            past = ended.get(key)
            if not plan[key]["current"]:
                raise KeyNotFoundError(f"{key!r} is of an earlier plan: the config has no such trial any more")
            if past is None:
                say(f"trial {key} has not ended: it runs anyway")
            elif past.status == "finished":
                say(f"trial {key} has finished: there is nothing to run again")
            else:
                marks[key] = past.attempt
                where = "goes on from its checkpoint" if kept.is_there(out, key) else "is trained from the start"
                say(f"trial {key} ({past.status}) {where}")
        again.add(out, marks)
    if failed and not keys:
        say("no trial has failed")
    return GoOn(out / SWEEP)


def extend(out: Path, epochs: int, say: Say) -> GoOn:
    """Let every trial go on to `epochs`. Raises CannotExtendError if that is less than it has, or if not all would."""
    from distvae.config import load

    plan, (ended, _) = planned(out), ledger.scan(out, mend=False)
    most = max((row["epochs"] for row in plan.values() if row["current"]), default=0)
    if epochs < most:
        raise CannotExtendError(f"--epochs {epochs} is less than the {most} that are planned: nothing is taken back")
    sets = (f"train.epochs={epochs}",)
    others = [t for t in load(out / SWEEP, sets).trials if t.train.epochs != epochs]
    if others:
        raise CannotExtendError(
            f"{out / SWEEP} gives {len(others)} trials epochs of their own (a block, `when` or `points`; trial "
            f"{others[0].key}: {others[0].train.epochs}): change train.epochs there, then run: "
            f"distvae sweep {out / SWEEP} --out {out}"
        )
    done = [k for k, past in ended.items() if past.status == "finished" and past.epoch < epochs and k in plan]
    there = sum(kept.is_there(out, key) for key in done)
    if there:
        say(f"{there} finished trials go on from their checkpoints to epoch {epochs}")
    if len(done) > there:
        say(
            f"{len(done) - there} finished trials have no checkpoint (resources.keep: all keeps them): they are trained "
            "from the start, to the same rows and then on"
        )
    stay = sum(past.status in ("stopped", "diverged") for past in ended.values())
    if stay:
        say(f"{stay} stopped or diverged trials stay as they are (distvae retry OUT --key KEY runs one again)")
    return GoOn(out / SWEEP, sets)
