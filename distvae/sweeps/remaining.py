"""What is left to do of a plan. The ledger decides, never Tune: a trial with a committed end is not planned again, a failed
one always is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from distvae.study import Study
from distvae.sweeps.groups import GroupPlan
from distvae.trial import Trial


def is_over(trial: Trial, status: str, epoch: int) -> bool:
    """Is a trial whose last attempt ended so never run again?"""
    return status in ("diverged", "stopped") or (status == "finished" and epoch >= trial.train.epochs)


def remaining(
    study: Study, ended: dict[str, Any], again: Mapping[str, int] | None = None
) -> list[tuple[Trial, dict[str, Any]]]:
    """The trials left to run, with their tasks: no end committed, a failed one, one planned for more epochs than it has, or
    one whose attempts up to `again[key]` do not count."""
    todo = []
    for trial in study.trials:
        past = ended.get(trial.key)
        counts = past is not None and past.attempt > (again or {}).get(trial.key, -1)
        if past is not None and counts and is_over(trial, past.status, past.epoch):
            continue
        task = {
            "key": trial.key,
            "config_json": json.dumps(trial.config()),
            "attempt": 0 if past is None else past.attempt + 1,
            "committed_epoch": 0 if past is None else past.epoch,
        }
        todo.append((trial, task))
    return todo


def group_task(group: GroupPlan, tasks: dict[str, Any]) -> dict[str, Any]:
    """What a gang is handed: the tasks of a group's trials, by key, and how they are trained."""
    return {
        "id": group.trials[0].key,
        "members": [tasks[t.key] for t in group.trials],
        "stacked": group.stacked,
        "ended": [t.key for t in group.ended],
    }
