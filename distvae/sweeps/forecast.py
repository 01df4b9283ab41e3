"""How long the groups of a sweep will train, and what memory they take: every kind of group from a probe of it, or
scaled from the nearest kind that was probed; then the groups laid out in time on the slots they run on."""

from __future__ import annotations

import heapq
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from distvae.study import Study
from distvae.sweeps.groups import GroupPlan, most
from distvae.trial import flatten

SLOWED = 1.25  # a probe that took so many times its processor time had to share its cores: it is said


@dataclass(frozen=True)
class Kind:
    """Groups that cost the same but for their epochs."""

    groups: tuple[GroupPlan, ...]
    most: int  # trials in a stack

    @property
    def group(self) -> GroupPlan:
        """The one that is probed: the most trials, the widest."""
        return max(self.groups, key=lambda g: (len(g.trials), max(t.vae.latent_dim for t in g.trials)))

    @property
    def members(self) -> int:
        """Trained together."""
        return min(len(self.group.trials), self.most) if self.group.stacked else 1


def kinds(groups: Sequence[GroupPlan], study: Study) -> list[Kind]:
    """The kinds of groups, in the order in which they are worth a probe: first that with most to train, then always the
    one that has most to train for how unlike it is to those before it."""
    found: dict[tuple[Any, ...], list[GroupPlan]] = {}
    for g in groups:
        size = len(g.trials) if g.stacked else 1
        found.setdefault((g.stacked, g.why, size, g.trials[0].fusion_group), []).append(g)
    left = [Kind(tuple(gs), most(study)) for gs in found.values()]
    described = {id(k): _description(k) for k in left}
    weight = {id(k): sum(g.epochs(study) for g in k.groups) for k in left}
    unlike = dict.fromkeys(described, 0)  # choices in which a kind differs from the nearest before it
    order: list[Kind] = []
    while left:
        best = max(left, key=lambda k: weight[id(k)] * (1 + unlike[id(k)]))
        left.remove(best)
        for k in left:
            differs = len(described[id(k)] - described[id(best)])
            unlike[id(k)] = min(unlike[id(k)], differs) if order else differs
        order.append(best)
    return order


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of a kind of group: seconds, bytes."""

    probed: bool
    stacked: bool
    why: str | None
    members: int
    open_s: float
    step_s: float  # of all members together
    evaluate_s: float
    commit_s: float  # of a trial
    memory_bytes: float
    gpu_bytes: float

    def seconds(self, group: GroupPlan, study: Study, examples: int) -> float:
        """A group from its opening to its last commit."""
        train, every = group.trials[0].train, group.trials[0].evaluate.every
        epochs = group.epochs(study) / self.members  # of all members together
        evaluations = epochs / train.epochs * -(-train.epochs // every)
        opened = 1 if self.stacked else len(group.trials)
        steps = epochs * -(-examples // train.batch_size)
        commits = len(group.trials) * self.commit_s
        return opened * self.open_s + steps * self.step_s + evaluations * self.evaluate_s + commits


def slowdown(answers: Sequence[Mapping[str, Any]]) -> float:
    """Seconds by the clock for a second of a worker's processor time, in all that was timed."""
    return sum(a["timed_s"] for a in answers) / max(1e-9, sum(a["timed_cpu_s"] for a in answers))


def cost(answers: Sequence[Mapping[str, Any]], slowed: float | None = None) -> Cost:
    """The mean of what the gangs measured, the most of memory. Times are processor time, `slowed` as the whole
    probe was: on a busy machine a single one says little by the clock. None: they are by the clock (of a GPU, of ranks
    that wait for each other)."""

    def mean(name: str) -> float:
        if slowed is None:
            return sum(a[f"{name}_s"] for a in answers) / len(answers)
        return slowed * sum(a[f"{name}_cpu_s"] for a in answers) / len(answers)

    first = answers[0]
    return Cost(
        probed=True,
        stacked=first["stacked"],
        why=first["why"],
        members=first["members"],
        open_s=mean("open"),
        step_s=mean("step"),
        evaluate_s=mean("evaluate"),
        commit_s=sum(a["commit_s"] for a in answers) / len(answers),
        memory_bytes=max(a["memory_bytes"] for a in answers),
        gpu_bytes=max(a["gpu_bytes"] for a in answers),
    )


def costs(all_kinds: Sequence[Kind], probed: Mapping[int, Cost]) -> list[Cost]:
    """Of every kind; what was not probed is scaled, trial for trial, from the probed kind most like it. Raises ValueError
    if none was."""
    if not probed:
        raise ValueError("no kind of group was probed")
    described = [_description(k) for k in all_kinds]

    def likeness(i: int, j: int) -> tuple[bool, int, int]:
        alike = all_kinds[i].group.stacked == all_kinds[j].group.stacked
        return alike, len(described[i] & described[j]), -abs(all_kinds[i].members - all_kinds[j].members)

    found = []
    for i, kind in enumerate(all_kinds):
        if i in probed:
            found.append(probed[i])
            continue
        near = probed[max(probed, key=lambda j: likeness(i, j))]
        times = kind.members / near.members
        found.append(
            replace(
                near,
                probed=False,
                stacked=kind.group.stacked,
                why=kind.group.why,
                members=kind.members,
                open_s=near.open_s * times,
                step_s=near.step_s * times,
                evaluate_s=near.evaluate_s * times,
                memory_bytes=near.memory_bytes * times,
                gpu_bytes=near.gpu_bytes * times,
            )
        )
    return found


def _description(kind: Kind) -> set[tuple[str, str]]:
    return {(name, json.dumps(value)) for name, value in flatten(kind.group.trials[0].config()) if name != "seed"}


def makespan(seconds: Sequence[float], slots: int) -> float:
    """When the last of the groups ends: each, in order, goes to the slot that is free first."""
    free = [0.0] * slots
    for s in seconds:
        heapq.heappush(free, heapq.heappop(free) + s)
    return max(free)


def needed(worker_bytes: float, groups: Sequence[float], slots: int, workers: int) -> float:
    """Bytes of all workers when the largest groups meet."""
    at_once = sorted(groups, reverse=True)[:slots]
    return workers * (len(at_once) * worker_bytes + sum(at_once))
