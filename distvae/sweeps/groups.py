"""How the trials that are left are cut into groups, the unit that Ray Tune schedules (`training/group.py`).

A group is a stack (trials that differ in float knobs, seed and latent_dim, trained as one model), or trials that take
turns because halving compares them or because they are the seeds of a configuration on which Tune decides, or one trial. Halving's groups are of the *plan*, ended trials too, so that a
resumed sweep forms the same ones; they do not depend on the machine."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from distvae.study import Study
from distvae.trial import Trial

MOST_CPU = 16  # trials in a stack
MOST_GPU = 64  # on one rank's share of a GPU
HALVED = 64  # trials that halving compares
PAYS = 512  # hidden units of the widest mlp that gains from stacking on a CPU (`distvae bench sweep`: 400 gains 1.5x)
OUTPUTS = (
    2  # numbers per pixel of a likelihood there: what a stack of more gains is not measured, and K of it are large
)


@dataclass(frozen=True)
class GroupPlan:
    """Trials that one process trains together."""

    trials: tuple[Trial, ...]
    stacked: bool
    why: str | None = None  # not stacked
    ended: tuple[Trial, ...] = ()  # of the plan's group, ended earlier: halving ranks them still

    def epochs(self, study: Study) -> int:
        """Epochs they will train, all together; under halving, of those that go on at each rung."""
        halving = study.search.scheduler
        if halving is None or halving.type != "halving" or len(self.trials) == 1:
            return sum(t.train.epochs for t in self.trials)
        left, last, total = float(len(self.trials)), 0, 0.0
        for rung in [*halving.rungs(self.trials[0].train.epochs), self.trials[0].train.epochs]:
            total += left * (rung - last)
            left, last = max(1.0, left / halving.eta), rung
        return round(total)


def why_not(trial: Trial, study: Study) -> str | None:
    """Why a trial cannot, or is not to, be stacked with others."""
    r = study.resources
    zero = study.deepspeed.get("zero_optimization") or {}
    if r.fuse == "off":
        return "resources.fuse: off"
    if r.workers > 1:
        return f"a trial has {r.workers} workers"
    if study.search.tuned is not None:
        return f"{study.search.tuned} is Ray Tune's, which schedules one configuration at a time"
    if study.deepspeed.get("gradient_accumulation_steps", 1) > 1:
        return "gradient accumulation"
    if zero.get("stage", 0) or any(name.startswith("offload") for name in zero):
        return "ZeRO shards or offloads a trial's optimizer"
    if str(trial.train.dtype) == "float16":
        return "float16 needs a loss scale of each trial's own"
    if r.fuse == "auto" and not _pays(trial, r.gpus):
        return "its nets are too large to gain on a CPU (resources.fuse: K stacks them all the same)"
    return None


def _pays(trial: Trial, gpus: float) -> bool:
    if gpus:
        return True
    nets = [net for net in (trial.vae.encoder, trial.vae.decoder) if net is not None]
    if trial.vae.likelihood.width((1, 1, 1)) > OUTPUTS:
        return False
    return all(net.type == "mlp" and max(net.hidden, default=0) <= PAYS for net in nets)


def partition(study: Study, todo: Sequence[Trial], slots: int = 1) -> list[GroupPlan]:
    """`todo`, each trial in one group, the largest groups first. `slots`: groups that train at a time."""
    if study.search.scheduler is not None and study.search.scheduler.type == "halving":
        groups = _halved(study, {t.key for t in todo})
    elif study.search.tuned is not None:
        return _configurations(study, {t.key for t in todo})
    else:
        groups = _stacks(study, todo, slots)
    return sorted(groups, key=lambda g: -len(g.trials))


def _stacks(study: Study, todo: Sequence[Trial], slots: int) -> list[GroupPlan]:
    alone: list[GroupPlan] = []
    families: dict[str, list[Trial]] = {}
    for t in todo:
        why = why_not(t, study)
        if why is None:
            families.setdefault(t.fusion_group, []).append(t)
        else:
            alone.append(GroupPlan((t,), False, why))
    cuts = _even(list(families.values()), most(study), slots, len(alone))
    lonely = "no other trial that is left differs from it in float knobs, seed and latent_dim only"
    split = "as many groups as train at a time: nothing is gained by stacking so few"
    stacks = []
    for family, cut in zip(families.values(), cuts, strict=True):
        for c in cut:
            why = None if len(c) > 1 else lonely if len(family) == 1 else split
            stacks.append(GroupPlan(tuple(c), why is None, why))
    return [*stacks, *alone]


def most(study: Study) -> int:
    """Trials in a stack, at most."""
    r = study.resources
    return r.fuse if isinstance(r.fuse, int) else MOST_GPU if r.gpus else MOST_CPU


def _even(families: Sequence[list[Trial]], most: int, slots: int, alone: int) -> list[list[list[Trial]]]:
    """Each family in pieces of at most `most`, their number in all a multiple of `slots` where it can be, so that every
    core stays busy to the end."""
    counts = [-(-len(f) // most) for f in families]
    cuts = [cut(f, n, most) for f, n in zip(families, counts, strict=True)]
    while (sum(map(len, cuts)) + alone) % slots:
        longest = max(range(len(cuts)), key=lambda i: max(map(len, cuts[i])), default=None)
        if longest is None or max(map(len, cuts[longest])) == 1:
            break
        cuts[longest] = cut(families[longest], len(cuts[longest]) + 1, most)
    return cuts


def cut(trials: Sequence[Trial], pieces: int, most: int) -> list[list[Trial]]:
    """`trials` in at least `pieces` of nearly one size, at most `most`, all seeds of a configuration in one where they
    fit."""
    whole = _runs(trials)
    units = whole if len(whole) >= pieces and max(map(len, whole)) <= most else [[t] for t in trials]
    while True:
        found: list[list[Trial]] = [[] for _ in range(pieces)]
        before = 0
        for unit in units:
            middle = before + len(unit) / 2
            found[int(middle * pieces / len(trials))] += unit
            before += len(unit)
        found = [f for f in found if f]
        if max(map(len, found)) <= most:
            return found
        pieces += 1


def _runs(trials: Sequence[Trial]) -> list[list[Trial]]:
    """The seeds of each configuration."""
    found: dict[str, list[Trial]] = {}
    for t in trials:
        found.setdefault(t.config_key, []).append(t)
    return list(found.values())


def _configurations(study: Study, todo: Collection[str]) -> list[GroupPlan]:
    """Each configuration with all its seeds, in the order of the plan."""
    groups = []
    for seeds in _runs(study.trials):
        left = tuple(t for t in seeds if t.key in todo)
        if left:
            groups.append(GroupPlan(left, False, why_not(left[0], study), tuple(t for t in seeds if t.key not in todo)))
    return groups


def _halved(study: Study, todo: Collection[str]) -> list[GroupPlan]:
    """Groups of the plan, of one skeleton each, in which all seeds of a configuration are together."""
    families: dict[str, list[Trial]] = {}
    for t in study.trials:
        kind = t.fusion_group if why_not(t, study) is None else t.skeleton
        families.setdefault(kind, []).append(t)
    limit = study.resources.fuse if isinstance(study.resources.fuse, int) else HALVED
    groups = []
    for family in families.values():
        most_here = max(limit, *map(len, _runs(family)))
        for members in cut(family, math.ceil(len(family) / most_here), most_here):
            left = tuple(t for t in members if t.key in todo)
            if left:
                why = next((w for t in left if (w := why_not(t, study))), None)
                why = "one trial is left" if why is None and len(left) == 1 else why
                ended = tuple(t for t in members if t.key not in todo)
                groups.append(GroupPlan(left, why is None, why, ended))
    return groups
