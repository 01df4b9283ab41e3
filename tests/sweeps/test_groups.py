"""How trials are cut into groups."""

from pathlib import Path

import pytest

from distvae.config import load, loads
from distvae.sweeps.groups import partition, why_not

QUICKSTART = Path(__file__).parents[2] / "tune_configs" / "quickstart.yaml"
HALVING = "search={scheduler: {type: halving}}"
SMALL = """
vae: {encoder: {type: mlp, hidden: [16]}, prior: {type: binarized, r: {grid: [0.0, 0.5, 1.0]}}}
objective: {type: elbo, beta: {grid: [0.1, 1, 4, 8]}}
seeds: 3
"""


def sizes(study, slots, todo=None):
    """Of the groups, after what holds for all: every trial is in one, and those of a stack go together."""
    groups = partition(study, study.trials if todo is None else todo, slots)
    keys = [t.key for g in groups for t in g.trials]
    assert sorted(keys) == sorted(t.key for t in (study.trials if todo is None else todo))
    for g in groups:
        assert g.stacked == (g.why is None) and (len(g.trials) > 1 or not g.stacked)
        assert not g.stacked or len({t.fusion_group for t in g.trials}) == 1
    return [len(g.trials) for g in groups]


def homes(study, slots):
    """The groups in which each configuration's seeds are."""
    found = {}
    for i, g in enumerate(partition(study, study.trials, slots)):
        for t in g.trials:
            found.setdefault(t.config_key, set()).add(i)
    return found


@pytest.mark.parametrize(
    ("slots", "expected"),
    [(1, [15] * 8 + [12] * 2), (2, [15] * 8 + [12] * 2), (4, [12] * 12), (16, [9] * 16), (48, [3] * 48), (144, [1] * 144)],
)  # fmt: skip
def test_every_core_is_busy_to_the_end(slots, expected):
    study = load(QUICKSTART)
    assert sizes(study, slots) == expected
    assert {len(h) for h in homes(study, slots).values()} == ({1} if slots <= 48 else {3})


@pytest.mark.parametrize(
    ("fuse", "slots", "largest"), [("auto", 1, 12), ("7", 1, 6), ("2", 1, 2), ("1", 2, 1), ("off", 2, 1), ("100", 1, 36)]
)  # fmt: skip
def test_a_stack_has_at_most_k(fuse, slots, largest):
    found = sizes(loads(SMALL, [f"resources.fuse={fuse}"]), slots)
    assert max(found) == largest and max(found) - min(found) <= 6


def test_what_is_left_is_evened_out_anew():
    study = loads(SMALL)
    assert sizes(study, 2, study.trials[:4]) == [3, 1] and sizes(study, 2, study.trials[1:3]) == [1, 1]
    assert sizes(study, 2, ()) == []


def test_nets_are_small_or_on_a_gpu():
    wide = "vae.encoder={type: mlp, hidden: [513]}"
    assert max(sizes(loads(SMALL, [wide]), 1)) == 1
    assert max(sizes(loads(SMALL, [wide, "resources.gpus=0.5"]), 1)) == 36
    assert max(sizes(loads(SMALL, [wide, "resources.fuse=8"]), 1)) == 6  # asked for


@pytest.mark.parametrize(
    ("sets", "why"),
    [
        (["resources.fuse=off"], "resources.fuse: off"),
        (["resources.workers=2", "resources.fuse=8"], "a trial has 2 workers"),
        (["deepspeed.gradient_accumulation_steps=2"], "gradient accumulation"),
        (["deepspeed.zero_optimization.stage=1"], "ZeRO"),
        (["vae.encoder={type: conv}", "data={type: mnist, root: x}"], "too large to gain on a CPU"),
        (["vae.likelihood={type: categorical_256}", "data={type: mnist, root: x}"], "too large to gain on a CPU"),
        (["vae.encoder={type: mlp, hidden: {grid: [[1], [2], [3], [4]]}}", "objective.beta=1", "vae.prior={type: normal}",
          "seeds=1"], "no other trial that is left differs"),
    ],
)  # fmt: skip
def test_what_is_not_stacked_says_why(sets, why):
    study = loads(SMALL, sets)
    groups = partition(study, study.trials, 2)
    assert all(not g.stacked and len(g.trials) == 1 and why in (g.why or "") for g in groups)
    assert why_not(loads(SMALL).trials[0], loads(SMALL)) is None


def test_halving_compares_whole_configurations_of_one_skeleton():
    study = loads(SMALL + "resources: {fuse: 10}\n", [HALVING, "vae.encoder={type: mlp, hidden: {grid: [[8], [16]]}}"])
    groups = partition(study, study.trials, 7)
    assert [len(g.trials) for g in groups] == [9] * 8 and all(g.stacked for g in groups)
    assert all(len({t.skeleton for t in g.trials}) == 1 for g in groups)
    assert all(len(h) == 1 for h in homes(study, 7).values())
    (one,) = partition(loads(SMALL, [HALVING, "resources.fuse=off"]), loads(SMALL).trials, 7)
    assert len(one.trials) == 36 and not one.stacked and one.why == "resources.fuse: off"
    assert [len(g.trials) for g in partition(loads(SMALL, [HALVING, "seeds=40"]), (), 1)] == []
    assert {len(h) for h in homes(loads(SMALL, [HALVING, "seeds=80"]), 1).values()} == {1}  # of more seeds than fit


def test_halving_groups_are_of_the_plan_whatever_is_left():
    study = loads(SMALL + "resources: {fuse: 10}\n", [HALVING])
    planned = {frozenset(t.key for t in g.trials) for g in partition(study, study.trials, 1)}
    left = study.trials[1:20:2]
    groups = partition(study, left, 3)
    assert {frozenset(t.key for t in (*g.trials, *g.ended)) for g in groups} < planned
    assert sorted(t.key for g in groups for t in g.trials) == sorted(t.key for t in left)


def test_epochs_foreseen_are_those_of_the_survivors():
    study = loads(SMALL + "train: {epochs: 9}\n", ["search={scheduler: {type: halving, eta: 3}}"])
    (group,) = partition(study, study.trials)
    assert group.epochs(study) == 36 * 1 + 12 * 2 + 4 * 6  # 12 configurations, 3 seeds, rungs at 1 and 3
    assert sum(g.epochs(loads(SMALL)) for g in partition(loads(SMALL), loads(SMALL).trials)) == 36 * 20
