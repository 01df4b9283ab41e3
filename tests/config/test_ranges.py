"""Ranges: what they expand to, how they are counted, drawn, and written back."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distvae.config import loads
from distvae.json_schema import schema
from distvae.part import Part
from distvae.sweeps import space
from distvae.sweeps.explain import hints, members
from distvae.sweeps.tree import dump, parse, resolve
from distvae.trial import Trial

DESIGN = """\
name: digits-quickstart
data: {type: digits}
vae:
  encoder: {type: mlp, hidden: [256, 128]}
  latent_dim: {grid: [2, 4, 8]}
  posterior: {type: du, gamma: 0.5, p_keep: {grid: [1.0, 0.8]}}
  prior: {type: binarized, r: {grid: [0.0, 0.5, 1.0]}}
  likelihood: {type: bernoulli}
objective: {type: elbo, beta: {loguniform: [0.1, 10]}}
train: {epochs: 20, batch_size: 128, lr: 1e-3}
seeds: 3
search: {samples: 2, seed: 0}
resources: {workers: 1, gpus: 0}
"""


def keys(study: Any) -> list[str]:
    return [t.key for t in study.trials]


def column(text: str, name: str) -> list[Any]:
    return [t.flat().get(name) for t in loads(text).trials]


def tree(text: str) -> Any:
    return parse(text, lambda line, col: f"{line}:{col}", [])


def test_the_design_s_example():
    study = loads(DESIGN)
    assert len(study.trials) == 3 * 2 * 3 * 2 * 3 and study.duplicates == 0
    assert [t.seed for t in study.trials[:6]] == [0, 1, 2, 0, 1, 2]
    assert len({t.config_key for t in study.trials}) == len(study.trials) // 3
    for i in range(0, len(study.trials), 3):  # seeds of a configuration are adjacent
        assert len({t.config_key for t in study.trials[i : i + 3]}) == 1
    assert study.resources.workers == 1 and study.search.samples == 2


def test_grids_cross_in_order_and_items_may_be_parts_with_ranges_of_their_own():
    text = """
vae: {posterior: {grid: [{type: gaussian}, {type: du, gamma: {grid: [0.5, 1]}}]}}
objective: {beta: {grid: [1, 2]}, type: elbo}
"""
    assert column(text, "vae.posterior.gamma") == [None, None, 0.5, 0.5, 1.0, 1.0]
    assert column(text, "objective.beta") == [1.0, 2.0] * 3


def test_a_whole_section_a_list_item_and_a_type_may_be_ranges():
    assert column("train: {grid: [{lr: 0.1}, {lr: 0.2}]}", "train.lr") == [0.1, 0.2]
    assert column("vae: {encoder: {type: mlp, hidden: [{grid: [8, 16]}, 4]}}", "vae.encoder.hidden") == [
        [8, 4],
        [16, 4],
    ]
    assert column("vae: {prior: {type: {grid: [normal, binarized]}}}", "vae.prior.type") == ["normal", "binarized"]
    assert column("train: {clip_norm: {grid: [null, 1]}}", "train.clip_norm") == [None, 1.0]


def test_duplicates_are_dropped_and_counted():
    study = loads("objective: {type: elbo, beta: {grid: [1, 1.0, 2, 1, 0, -0.0]}}\nseeds: 3\n")
    assert len(study.trials) == 9 and study.duplicates == 9
    # a range under a part that another cell replaces: the same trial twice
    study = loads("vae: {prior: {grid: [{type: normal}, {type: normal}]}}")
    assert len(study.trials) == 1 and study.duplicates == 1


def test_draws_only_multiply_the_cells_that_have_one():
    text = """
vae: {prior: {grid: [{type: normal}, {type: binarized, r: {uniform: [0, 2]}}]}}
search: {samples: 5, seed: 3}
"""
    study = loads(text)
    assert [t.flat().get("vae.prior.r") is None for t in study.trials] == [True] + [False] * 5
    node = tree("{vae: {prior: {grid: [{type: normal}, {type: binarized, r: {uniform: [0, 2]}}]}}}")
    assert space.count(node) == (1, 1)


def test_draws_are_addressed_by_seed_path_and_sample():
    text = "objective: {type: elbo, beta: {loguniform: [0.1, 10]}}\nsearch: {samples: 50, seed: 1}\n"
    beta = column(text, "objective.beta")
    assert beta == column(text, "objective.beta") and len(set(beta)) == 50
    assert all(0.1 < b < 10 for b in beta) and sum(b < 1 for b in beta) in range(13, 38)  # half, +- 3.5 sigma
    assert column(text.replace("seed: 1", "seed: 2"), "objective.beta") != beta
    # more samples keep the first ones; another axis, drawn or crossed, does not move them
    assert column(text.replace("50", "80"), "objective.beta")[:50] == beta
    crossed = text + "vae: {latent_dim: {grid: [2, 4]}}\ntrain: {lr: {uniform: [0.1, 1]}}\n"
    assert column(crossed, "objective.beta") == beta * 2
    lr = column(crossed, "train.lr")
    assert lr[:50] == lr[50:] and lr[0] != pytest.approx(0.1 + 0.9 * math.log(beta[0] / 0.1) / math.log(100))


def test_choice_draws_items_evenly_and_draws_inside_the_item():
    text = """
vae: {prior: {choice: [{type: normal}, {type: binarized, r: {uniform: [1, 2]}}]}}
objective: {type: elbo, beta: {uniform: [0, 1]}}
search: {samples: 200}
"""
    r = column(text, "vae.prior.r")
    assert sum(v is None for v in r) in range(65, 136)  # half, +- 5 sigma
    assert all(1 < v < 2 for v in r if v is not None)


def test_uniform_is_uniform():
    x = sorted(column("objective: {type: elbo, beta: {uniform: [2, 4]}}\nsearch: {samples: 1000}", "objective.beta"))
    gap = max(abs((v - 2) / 2 - (i + 0.5) / 1000) for i, v in enumerate(x))
    assert gap < 1.95 / math.sqrt(1000)  # Kolmogorov-Smirnov at 1e-3; the draws are fixed, so it holds or it does not


def test_integers_are_drawn_evenly_with_both_ends():
    d = column(
        "vae: {latent_dim: {integer: [3, 6]}}\ntrain: {lr: {uniform: [0.1, 1]}}\nsearch: {samples: 1000}",
        "vae.latent_dim",
    )
    assert len(d) == 1000 and all(type(v) is int for v in d)
    chi = sum((d.count(v) - 250) ** 2 / 250 for v in (3, 4, 5, 6))
    assert set(d) == {3, 4, 5, 6} and chi < 16.3  # chi-square of 3 degrees at 1e-3; the draws are fixed
    assert column("objective: {type: elbo, beta: {integer: [1, 2]}}\nsearch: {samples: 9}", "objective.beta").count(
        2.0
    ) in range(1, 9)


# --- count = length, and the resolved text is the same space -----------------------------------------------------------------

reals = st.floats(0.01, 50, allow_nan=False).map(lambda x: round(x, 3))


def real(depth: int = 2) -> st.SearchStrategy[Any]:
    leaf = reals | st.integers(1, 9)
    if depth == 0:
        return leaf
    ends = st.tuples(reals, reals).filter(lambda p: p[0] < p[1]).map(list)
    drawn = st.sampled_from(["uniform", "loguniform"]).flatmap(lambda k: st.fixed_dictionaries({k: ends}))
    whole = st.integers(1, 9).map(lambda low: {"integer": [low, low + 4]})
    return leaf | st.lists(real(depth - 1), min_size=1, max_size=3).map(lambda v: {"grid": v}) | drawn | whole


def grid_of(*options: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    one = st.one_of(*options)
    return one | st.lists(one, min_size=1, max_size=2).map(lambda v: {"grid": v})


configs = st.fixed_dictionaries(
    {},
    optional={
        "vae": st.fixed_dictionaries(
            {},
            optional={
                "latent_dim": st.integers(1, 9)
                | st.just({"integer": [1, 9]})
                | st.lists(st.integers(1, 9), min_size=1, max_size=3).map(lambda v: {"grid": v}),
                "posterior": grid_of(
                    st.just({"type": "gaussian"}), st.fixed_dictionaries({"type": st.just("du"), "gamma": real(1)})
                ),
                "prior": grid_of(
                    st.just({"type": "normal"}), st.fixed_dictionaries({"type": st.just("binarized"), "r": real()})
                ),
            },
        ),
        "objective": st.fixed_dictionaries({"type": st.just("elbo"), "beta": real()}),
        "seeds": st.integers(1, 3) | st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=3, unique=True),
        "search": st.fixed_dictionaries({"samples": st.integers(1, 3), "seed": st.integers(0, 2**63 - 1)}),
    },
)


@given(configs)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_count_is_the_length_and_resolved_is_the_same_space(config: dict[str, Any]):
    study = loads(dump(config))
    node = tree(dump({k: v for k, v in config.items() if k in ("vae", "objective")}))
    plain, drawn = space.count(node)
    n_seeds = config.get("seeds", 1)
    n_seeds = n_seeds if isinstance(n_seeds, int) else len(n_seeds)
    assert len(study.trials) + study.duplicates == (plain + drawn * study.search.samples) * n_seeds
    again = loads(study.resolved)
    assert keys(again) == keys(study) and again.trials == study.trials
    assert (again.name, again.duplicates, again.resolved) == (study.name, study.duplicates, study.resolved)


@given(st.recursive(st.none() | st.booleans() | st.integers(-(10**98), 10**98) | st.floats(allow_nan=False, allow_infinity=False).map(lambda x: x + 0.0) | st.text(), lambda x: st.lists(x, max_size=4) | st.dictionaries(st.text(max_size=20).filter(lambda k: k != "<<"), x, max_size=4), max_leaves=15))  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_dump_is_read_back_as_it_was(value: Any):
    problems: list[str] = []
    node = parse(dump({"a": value}), lambda line, col: f"{line}:{col}", problems)
    assert node is not None and not problems
    assert repr(node.plain()) == repr({"a": value})


def test_scalars_are_yaml_1_2():
    cases = {
        "1e-3": 0.001,
        "no": "no",
        "1_000": "1_000",
        "0x10": 16,
        "0o17": 15,
        "010": 10,
        "~": None,
        "2020-01-01": "2020-01-01",
    }
    cases |= {
        "+1": 1,
        "-.5": -0.5,
        "1.": 1.0,
        "TRUE": True,
        "0b1": "0b1",
        "1e": "1e",
        ".": ".",
        "12:30": "12:30",
        "": None,
    }
    for text, value in cases.items():
        assert repr(resolve(text)) == repr(value), text


def test_resolved_holds_the_name_and_set():
    study = loads(
        DESIGN, ["objective.beta=2", "vae.prior.r={grid: [0, 1]}", "name=other", "tracking.uri=sqlite:///x.db"]
    )
    assert study.name == "other" and study.tracking.uri == "sqlite:///x.db"
    assert study.resolved.startswith("name: other\n") and "loguniform" not in study.resolved
    assert keys(loads(study.resolved)) == keys(study) and len(study.trials) == 3 * 2 * 2 * 3
    assert {t.objective.beta for t in study.trials} == {2.0}


def test_set_makes_sections_and_leaves_aliases_of_the_same_mapping_alone():
    assert loads("train:\n", ["train.lr=0.5"]).trials[0].train.lr == 0.5
    assert loads("seeds: 1", ["vae.prior.type=binarized", "vae.prior.r=2"]).trials[0].vae.prior.r == 2.0
    text = "vae: {encoder: &net {type: mlp, hidden: [8]}, decoder: *net}"
    vae = loads(text, ["vae.decoder.hidden=[4]"]).trials[0].vae
    assert vae.encoder.hidden == (8,) and vae.decoder.hidden == (4,)


def test_fields_out_of_the_key_do_not_split_a_trial():
    a, b = loads("train: {epochs: 3}").trials[0], loads("evaluate: {every: 2}").trials[0]
    assert a.key == b.key == Trial().key and a != b


# --- the schema --------------------------------------------------------------------------------------------------------------


def test_no_part_has_a_field_named_as_a_range():
    seen, queue = set(), [Trial]
    while queue:
        part: type[Part] = queue.pop()
        if part in seen:
            continue
        seen.add(part)
        assert is_dataclass(part) and not {f.name for f in fields(part)} & set(space.RANGES)
        queue += [m for f in fields(part) for m in members(hints(part)[f.name])]
    assert len(seen) >= 15  # the walk did find the parts


GOOD = [
    DESIGN,
    "seeds: [3, 5]\nengine: torch\ndeepspeed: {zero_optimization: {stage: 2}}\ntracking: {uri: null}\ntrain:\n",
    "vae: {posterior: {grid: [{type: gaussian}, {type: du, gamma: {grid: [0.5, {uniform: [1, 2]}]}}]}}",
    "vae: {prior: {type: {grid: [normal, binarized]}}, encoder: {type: mlp, hidden: [{grid: [8, 16]}, 4]}}",
    "vae: {latent_dim: {integer: [2, 8]}}\nobjective: {type: elbo, beta: {integer: [1, 4]}}",
    "zip: {vae.prior: [{type: normal}, {type: binarized, r: {grid: [0, 1]}}], objective.beta: [1, 4]}",
    "zip: [{vae.latent_dim: [1, 2], train.lr: [0.1, 1]}, {train.samples: [1, 2], evaluate.samples: [1, 2]}]\npoints: null",
    "when: [{if: {vae.prior.type: {in: [normal, vamp]}, train.clip_norm: null}, then: {train.lr: {grid: [1, 2]}}}]",
    "points: [{}, {vae.latent_dim: 3}]",
    "zip: {train.lr: [0.1, 1], objective.beta: [1, 2]}\nblocks: [{zip: null}, {points: [{train.lr: 1, objective.beta: 3}]}]",
    "train: {grid: [{lr: 0.1}, {clip_norm: {choice: [null, 1]}, lr_schedule: {type: linear, steps: 10}}]}",
    "resources: {fuse: off}\nsearch: {scheduler: {type: halving, eta: 2.5}}",
    "resources: {fuse: 64}\nsearch: {scheduler: null}",
]
BAD = [
    "vea: {}",
    "vae: {prior: {type: binarised}}",
    "vae: {prior: {r: 1}}",
    "vae: {prior: {type: normal, r: 1}}",
    "vae: {prior: {type: binarized, r: -1}}",
    "vae: {prior: {type: binarized, r: {grid: [0, -1]}}}",
    "vae: {prior: {type: binarized, r: {grid: []}}}",
    "vae: {prior: {type: binarized, r: {gird: [1]}}}",
    "vae: {latent_dim: {uniform: [1, 2]}}",
    "train: {lrr: 1}",
    "train: {lr: fast}",
    "seeds: 0",
    "seeds: {grid: [1]}",
    "name: ../x",
    "engine: jax",
    "deepspeed: {optimizer: {}}",
    "vae: {latent_dim: {integer: [2.5, 8]}}",
    "vae: {prior: {type: {integer: [1, 2]}}}",
    "zip: {train.lr: [0.1, 1]}",
    "zip: {train.lr: [0.1, 1], seeds: [1, 2]}",
    "zip: {train.lr: [0.1, 1], train.samples: {grid: [1, 2]}}",
    "zip: []",
    "when: {train.lr: 1}",
    "when: [{then: {train.lr: 1}}]",
    "when: [{if: {train.lr: {not: 1}}, then: {train.samples: 2}}]",
    "points: {train.lr: 1}",
    "points: [{search.seed: 1}]",
    "resources: {fuse: 0}",
    "resources: {fuse: 2.5}",
    "resources: {fuse: on}",
    "search: {scheduler: {type: halving, grace: 0}}",
    "search: {scheduler: {type: halving, eta: {grid: [2, 3]}}}",
]


def test_the_schema_agrees_with_the_loader():
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(schema())
    validator.check_schema(schema())
    for text in GOOD:
        loads(text)
        assert not list(validator.iter_errors(tree(text).plain())), text
    for text in BAD:
        with pytest.raises(Exception, match="<config>:1:"):
            loads(text)
        assert list(validator.iter_errors(tree(text).plain())), text


def test_the_schema_describes_every_knob():
    defs = schema()["$defs"]
    assert defs["Binarized"]["properties"]["r"]["description"].startswith("distance of a mode from its mean")
    assert set(space.RANGES) == {k for o in defs["Binarized.r"]["anyOf"][1:] for k in o["properties"]}
