"""What stands beside the swept sections, `zip`, `when` and `points`: what it expands to, and how it is counted."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distvae.config import ConfigError, loads, trial_from_data
from distvae.sweeps.tree import dump
from distvae.trial import Trial

BINARIZED = "vae: {prior: {type: binarized}}\n"


def table(text: str, *names: str, sets: tuple[str, ...] = ()) -> list[tuple[Any, ...]]:
    study = loads(text, sets)
    assert loads(study.resolved).trials == study.trials  # what is written back is the same sweep
    return [tuple(t.flat().get(name) for name in names) for t in study.trials]


def test_zipped_names_vary_together_and_cross_the_rest():
    text = BINARIZED + "zip: {vae.prior.r: [0, 0.5, 1], objective.beta: [1, 2, 4]}\ntrain: {lr: {grid: [0.1, 0.2]}}"
    pairs = [(0.0, 1.0), (0.5, 2.0), (1.0, 4.0)]
    assert table(text, "train.lr", "vae.prior.r", "objective.beta") == [(lr, *p) for lr in (0.1, 0.2) for p in pairs]


def test_several_zips_cross_and_their_items_may_be_parts_with_ranges():
    text = """
zip:
  - {vae.prior: [{type: normal}, {type: binarized, r: {grid: [0, 1]}}], vae.latent_dim: [2, 3]}
  - {objective.beta: [1, 4], train.lr: [0.1, 0.2]}
"""
    first = [(None, 2), (0.0, 3), (1.0, 3)]
    expected = [(*a, *b) for a in first for b in [(1.0, 0.1), (4.0, 0.2)]]
    assert table(text, "vae.prior.r", "vae.latent_dim", "objective.beta", "train.lr") == expected


def test_a_draw_in_a_zip_has_the_address_of_its_field():
    text = "zip: {objective.beta: [{uniform: [1, 2]}, 3], train.lr: [0.1, 0.2]}\nsearch: {samples: 4}\n"
    plain = "objective: {type: elbo, beta: {uniform: [1, 2]}}\nsearch: {samples: 4}\n"
    drawn = [beta for (beta,) in table(plain, "objective.beta")]
    expected = [(beta, 0.1) for beta in drawn] + [(3.0, 0.2)]
    assert table(text, "objective.beta", "train.lr") == expected


def test_when_sees_defaults_drawn_and_zipped_values_and_a_later_one_wins():
    text = """
vae: {posterior: {grid: [{type: gaussian}, {type: du}]}}
zip: {vae.latent_dim: [2, 4], train.batch_size: [32, 64]}
when:
  - {if: {vae.latent_dim: {in: [4, 5]}}, then: {train.lr: 0.5, objective.beta: {grid: [1, 4]}}}
  - {if: {vae.posterior.type: du, vae.prior.type: normal, train.clip_norm: null}, then: {train.lr: 0.25}}
  - {if: {vae.prior.type: binarized}, then: {train.lr: 0.125}}
"""
    assert table(text, "vae.posterior.type", "vae.latent_dim", "train.lr", "objective.beta") == [
        ("gaussian", 2, 0.001, 1.0),
        ("gaussian", 4, 0.5, 1.0),
        ("gaussian", 4, 0.5, 4.0),
        ("du", 2, 0.25, 1.0),
        ("du", 4, 0.25, 1.0),
        ("du", 4, 0.25, 4.0),
    ]
    drawn = "vae: {latent_dim: {integer: [1, 3]}}\nwhen: [{if: {vae.latent_dim: 2}, then: {train.lr: 0.5}}]\nsearch: {samples: 60}"
    assert set(table(drawn, "vae.latent_dim", "train.lr")) == {(1, 0.001), (2, 0.5), (3, 0.001)}


def test_a_later_when_replaces_the_ranges_of_an_earlier_one_whole():
    text = """
when:
  - {if: {vae.latent_dim: 16}, then: {vae.prior: {grid: [{type: normal}, {type: mixture}]}, objective.beta: {grid: [1, 2]}}}
  - {if: {train.epochs: 20}, then: {vae.prior: {type: binarized}, vae.latent_dim: 3}}
  - {if: {train.epochs: 20}, then: {vae.prior: {type: binarized, r: {grid: [0, 1]}}}}
"""
    with pytest.raises(ConfigError, match=r"when\.0\.if\.vae\.latent_dim: is set by when\.1\.then at 4:"):
        loads(text)
    text = text.replace(", vae.latent_dim: 3", "")
    assert table(text, "vae.prior.r", "objective.beta") == [(0.0, 1.0), (1.0, 1.0), (0.0, 2.0), (1.0, 2.0)]
    inside = """
when:
  - {if: {train.epochs: 20}, then: {vae.prior: {grid: [{type: binarized}, {type: binarized, r: 2}]}}}
  - {if: {train.epochs: 20}, then: {vae.prior.r: 1}}
"""
    study = loads(inside)
    assert [t.vae.prior.r for t in study.trials] == [1.0] and study.duplicates == 1


def test_a_range_in_a_when_is_drawn_in_the_sample_of_its_configuration():
    text = """
vae: {latent_dim: {grid: [2, 3]}}
when: [{if: {vae.latent_dim: 3}, then: {objective.beta: {uniform: [1, 2]}}}]
search: {samples: 4}
"""
    beta = [
        b for (b,) in table("objective: {type: elbo, beta: {uniform: [1, 2]}}\nsearch: {samples: 4}", "objective.beta")
    ]
    assert table(text, "vae.latent_dim", "objective.beta") == [(2, 1.0), *((3, b) for b in beta)]
    both = text + "train: {lr: {uniform: [0.1, 1]}}\n"
    rows = table(both, "vae.latent_dim", "objective.beta", "train.lr")
    assert len(rows) == 8 and [b for d, b, _ in rows if d == 3] == beta
    assert [lr for d, _, lr in rows if d == 2] == [lr for d, _, lr in rows if d == 3]


def test_points_come_after_the_space_and_no_when_changes_them():
    text = """
vae: {latent_dim: {grid: [2, 3]}}
train: {lr: 0.1}
when: [{if: {train.lr: 0.1}, then: {objective.beta: 2}}]
points: [{vae.latent_dim: 9}, {vae.latent_dim: 3, objective.beta: 2, train.lr: 0.1}, {vae.latent_dim: 2, vae.prior.type: binarized, vae.prior.r: 3}]
seeds: 2
"""
    study = loads(text)
    got = [(t.vae.latent_dim, t.objective.beta, t.flat().get("vae.prior.r"), t.train.lr) for t in study.trials[::2]]
    assert got == [(2, 2.0, None, 0.1), (3, 2.0, None, 0.1), (9, 1.0, None, 0.1), (2, 1.0, 3.0, 0.1)]
    assert study.duplicates == 2


def test_points_alone_replace_the_base():
    assert table("train: {lr: 0.1}\npoints: [{vae.latent_dim: 3}, {train.lr: 0.2}]", "vae.latent_dim", "train.lr") == [
        (3, 0.1),
        (16, 0.2),
    ]
    assert table("points: [{}]", "vae.latent_dim") == [(16,)]


def test_a_block_has_its_own_or_the_top_level_s():
    text = """
zip: {vae.latent_dim: [2, 3], train.lr: [0.1, 0.2]}
when: [{if: {objective.type: wae}, then: {train.samples: 4}}]
blocks:
  - {objective: {type: elbo}}
  - {objective: {type: wae}, zip: null}
  - {zip: null, points: [{train.lr: 0.5}], when: null}
"""
    assert table(text, "objective.type", "vae.latent_dim", "train.lr", "train.samples") == [
        ("elbo", 2, 0.1, 1),
        ("elbo", 3, 0.2, 1),
        ("wae", 16, 0.001, 4),
        ("elbo", 16, 0.5, 1),
    ]


def test_set_reaches_them():
    text = (
        BINARIZED + "zip: {vae.prior.r: [0, 1], objective.beta: [1, 2]}\npoints: [{vae.prior.r: 5, objective.beta: 5}]"
    )
    names = ("vae.prior.r", "objective.beta")
    assert table(text, *names, sets=("zip.vae.prior.r=[2, 3]",)) == [(2.0, 1.0), (3.0, 2.0), (5.0, 5.0)]
    assert table(text, *names, sets=("zip=null", "objective.beta=7", "points=null")) == [(0.5, 7.0)]
    assert table(text, *names, sets=("zip.train.lr=[0.1, 0.2]", "points=null")) == [(0.0, 1.0), (1.0, 2.0)]
    assert table("seeds: 1", "train.lr", sets=("points=[{train.lr: 0.5}]",)) == [(0.5,)]


# --- against brute force ----------------------------------------------------------------------------------------------

NAMES = {  # name -> some values, one the default
    "vae.latent_dim": [16, 2, 3],
    "vae.prior.type": ["normal", "binarized"],
    "objective.beta": [1.0, 2.0, 4.0],
    "train.lr": [0.001, 0.1, 0.2],
    "train.samples": [1, 2],
}
DEFAULTS = {name: values[0] for name, values in NAMES.items()}


@st.composite
def spaces(draw: Any) -> dict[str, Any]:
    names = draw(st.permutations(sorted(NAMES)))
    n_file, n_zip = draw(st.integers(0, 2)), draw(st.sampled_from([0, 2]))
    some = lambda name, least=1: draw(st.lists(st.sampled_from(NAMES[name]), min_size=least, max_size=3))  # noqa: E731
    size = draw(st.integers(1, 3))
    grids = {name: some(name) for name in names[:n_file]}
    zipped = {
        name: draw(st.lists(st.sampled_from(NAMES[name]), min_size=size, max_size=size))
        for name in names[n_file:][:n_zip]
    }
    n_if = draw(st.integers(1, 3))
    whens = [
        {
            "if": {
                name: some(name)
                for name in draw(st.lists(st.sampled_from(names[:n_if]), min_size=1, max_size=2, unique=True))
            },
            "then": {
                name: some(name)
                for name in draw(st.lists(st.sampled_from(names[n_if:]), min_size=1, max_size=2, unique=True))
            },
        }
        for _ in range(draw(st.integers(0, 3)))
    ]
    points = [
        {
            name: draw(st.sampled_from(NAMES[name]))
            for name in (*grids, *zipped, *draw(st.sets(st.sampled_from(names), max_size=2)))
        }
        for _ in range(draw(st.integers(0, 2)))
    ]
    return {"grids": grids, "zip": zipped, "when": whens, "points": points}


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in flat.items():
        *owners, last = name.split(".")
        at = out
        for step in owners:
            at = at.setdefault(step, {})
        at[last] = value
    if "beta" in out.get("objective", {}):
        out["objective"]["type"] = "elbo"
    return out


def brute(s: dict[str, Any]) -> list[dict[str, Any]]:
    """Every configuration as name -> value, by the words of the README."""
    sections: dict[str, list[str]] = {}
    for name in s["grids"]:  # in the order of the file, where a section stands at its first name
        sections.setdefault(name.split(".")[0], []).append(name)
    order = [n for key in ("vae", "objective", "train") for n in sections.get(key, [])]
    rows = [dict(zip(s["zip"], row, strict=True)) for row in zip(*s["zip"].values(), strict=True)] or [{}]
    found = []
    for *values, row in product(*(s["grids"][n] for n in order), rows):
        config = {**DEFAULTS, **dict(zip(order, values, strict=True)), **row}
        then: dict[str, list[Any]] = {}
        for when in s["when"]:
            if all(config[name] in values for name, values in when["if"].items()):
                for name, values in when["then"].items():
                    then.pop(name, None)
                    then[name] = values
        found += [{**config, **dict(zip(then, pick, strict=True))} for pick in product(*then.values())]
    if s["points"] and not (s["grids"] or s["zip"] or s["when"]):
        found = []
    return found + [{**DEFAULTS, **point} for point in s["points"]]


@given(spaces())
@settings(max_examples=60, deadline=None)
def test_a_space_is_what_brute_force_says(s: dict[str, Any]):
    when = [
        {"if": {n: {"in": v} for n, v in w["if"].items()}, "then": {n: {"grid": v} for n, v in w["then"].items()}}
        for w in s["when"]
    ]
    beside = {key: value for key, value in [("zip", s["zip"]), ("when", when), ("points", s["points"])] if value}
    study = loads(dump({**nested({n: {"grid": v} for n, v in s["grids"].items()}), **beside}))
    expected = [trial_from_data(nested(config)) for config in brute(s)]
    assert list(study.trials) == list({t.key: t for t in expected}.values())
    assert study.duplicates == len(expected) - len(study.trials)
    assert loads(study.resolved).trials == study.trials


def test_what_when_adds_is_counted_before_anything_is_planned():
    grid = "{grid: [" + ", ".join(str(i / 100) for i in range(1, 301)) + "]}"
    text = f"train: {{lr: {grid}, samples: {{grid: [1, 2]}}}}\nwhen: [{{if: {{train.samples: 2}}, then: {{objective.beta: {grid}}}}}]\n"
    with pytest.raises(ConfigError) as e:
        loads(text + "seeds: 2", label="x.yaml")
    n = (300 + 300 * 300) * 2
    assert e.value.problems[0].startswith(
        f"x.yaml:1:13: sweep: {n} trials are more than 100000 (train.lr: 300 values x train.samples: 2 values x "
    )
    with pytest.raises(ConfigError, match=r"zip\(train\.lr, objective\.beta\): 2 values x seeds: 90000;"):
        loads("zip: {train.lr: [1, 2], objective.beta: [1, 2]}\nseeds: 90000")
    with pytest.raises(ConfigError, match=r"\(points: 2 x seeds: 90000;"):
        loads("points: [{}, {train.lr: 1}]\nseeds: 90000")


# --- errors -----------------------------------------------------------------------------------------------------------

ZIP = "write zip: {vae.prior.r: [0, 1], objective.beta: [1, 4]}"
WHEN = "write when: [{if: {vae.prior.type: binarized}, then: {train.lr: 1.0e-3}}]"
POINTS = "write points: [{vae.prior.r: 0.5, objective.beta: 2}]"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        # integer
        ("vae: {latent_dim: {integer: [2, 2.5]}}", ["1:33: vae.latent_dim: integer takes whole numbers from -2^31 to 2^31, and 2.5 is none (or use uniform)"]),
        ("vae: {latent_dim: {integer: [2, 3.0]}}", ["1:33: vae.latent_dim: integer takes whole numbers from -2^31 to 2^31, and 3.0 is none (write 3)"]),
        ("vae: {latent_dim: {integer: [4, 2]}}", ["1:29: vae.latent_dim: integer needs low < high, and 4 is not below 2"]),
        ("vae: {latent_dim: {integer: 4}}", ["1:29: vae.latent_dim: integer takes two numbers (write {integer: [low, high]})"]),
        (f"vae: {{latent_dim: {{integer: [1, {10**15}]}}}}", [f"1:33: vae.latent_dim: integer takes whole numbers from -2^31 to 2^31, and {10**15} is none (or use uniform)"]),
        ("vae: {latent_dim: {integer: [0, 4]}}", ["1:30: vae.latent_dim: 0 is below 1 (dimensions of z)"]),
        # zip
        ("zip: 3", [f"1:6: zip: 3 is not a mapping of names to lists ({ZIP}; several: a list of such)"]),
        ("zip: [3]", [f"1:7: zip.0: 3 is not a mapping (write a list of mappings, or {ZIP.removeprefix('write ')})"]),
        ("zip: {train.lr: [0.1, 1]}", ["1:6: zip: one name, and nothing to vary it with (zip two or more names, or give train.lr itself a range: {grid: [a, b]})"]),
        ("zip: {train.lr: [0.1, 1], train.samples: [1]}", ["1:42: zip.train.samples: 1 value, and train.lr at 1:7 has 2 (they are taken together, one of each: give as many)"]),
        ("zip: {train.lr: {grid: [0.1, 1]}, train.samples: 3}", ["1:17: zip.train.lr: a grid is not a list of values (write train.lr: [a, b])", "1:50: zip.train.samples: 3 is not a list of values (write train.samples: [a, b])"]),
        ("zip: {train.lr: [], train.samples: [1, 2]}", ["1:17: zip.train.lr: no values to try (list at least one)"]),
        ("zip: {train.lr: [1, -1], train.samples: [1, {grid: []}]}", ["1:21: train.lr: -1 is not above 0.0 (learning rate)", "1:52: train.samples: empty grid: no values to try (list at least one)"]),
        ("zip: {train.lrr: [1, 2], seeds: [1, 2]}", ["1:7: zip.train.lrr: unknown key 'lrr' (allowed: epochs, batch_size, optimizer, lr, lr_schedule, weight_decay, momentum, clip_norm, samples, dtype) - did you mean 'lr'?", "1:26: zip.seeds: unknown key 'seeds' (allowed: data, vae, objective, train, evaluate)"]),
        ("zip: {train.lr.x: [1, 2], train..lr: [1, 2]}", ["1:7: zip.train.lr.x: train.lr is a value, with no key x (set train.lr)", "1:27: zip.train..lr: 'train..lr' is not a dotted name (write one like vae.prior.r)"]),
        ("zip: {vae.prior.r: [0, 1], train.lr: [1, 2]}", ["1:7: vae.prior.r: unknown key 'r' (allowed: type; r is a knob of type binarized)"]),
        ("train: {lr: 1}\nzip: {train.lr: [1, 2], train.samples: [1, 2]}", ["2:7: zip.train.lr: train.lr is set at 1:9 too (remove one of the two)"]),
        ("train: {lr: {grid: [1]}}\nzip: {train: [{}, {}], vae.latent_dim: [1, 2]}", ["2:7: zip.train: train is set at 1:1 too (remove one of the two)"]),
        ("vae: {prior: {grid: [{type: binarized}]}}\nzip: {vae.prior.r: [0, 1], train.lr: [1, 2]}", ["2:7: zip.vae.prior.r: vae.prior is a grid at 1:14, and a zip does not reach inside (zip vae.prior whole, or put the values into the items)"]),
        ("train: 3\nzip: {vae.latent_dim: [1, 2], train.lr: [1, 2]}", ["1:8: train: 3 is not a mapping (its keys: epochs, batch_size, optimizer, lr, lr_schedule, weight_decay, momentum, clip_norm, samples, dtype)", "2:31: zip.train.lr: train is 3 at 1:8, with no key lr"]),
        ("zip: {vae.prior: [{type: normal}], vae.prior.r: [0]}", ["1:36: zip.vae.prior.r: overlaps vae.prior at 1:7 (set one of them)"]),
        ("zip: [{vae.latent_dim: [1], train.lr: [1]}, {train.lr: [2], train.samples: [1]}]", ["1:46: zip.1.train.lr: overlaps train.lr at 1:29 (a name is in one zip)"]),
        ("blocks: [{zip: {train.lr: [1]}}]", ["1:16: blocks.0.zip: one name, and nothing to vary it with (zip two or more names, or give train.lr itself a range: {grid: [a, b]})"]),
        # when
        ("when: 3", [f"1:7: when: 3 is not a list with something in it ({WHEN})"]),
        ("when: [3]", [f"1:8: when.0: 3 is not a mapping ({WHEN})"]),
        ("when: [{iff: {train.lr: 1}, then: {train.lr: 2}}]", [f"1:8: when.0: if is missing ({WHEN})", "1:9: when.0.iff: unknown key 'iff' (allowed: if, then) - did you mean 'if'?"]),
        ("when: [{if: {}, then: 3}]", [f"1:13: when.0.if: an empty mapping is not a mapping of names to values ({WHEN})", f"1:23: when.0.then: 3 is not a mapping of names to values ({WHEN})"]),
        ("when: [{if: {vae.prior.type: binarised}, then: {train.lr: 2}}]", ["1:30: when.0.if.vae.prior.type: 'binarised' is not one of normal, binarized, mixture, vamp, uniform_sphere, bernoulli, categorical - did you mean 'binarized'?"]),
        ("when: [{if: {train.samples: 0.5, vae.prior: normal}, then: {train.lr: 2}}]", ["1:29: when.0.if.train.samples: 0.5 is not a value it can have (latent samples z per x in a step, [1, 4096])", "1:45: when.0.if.vae.prior: vae.prior is a part, and a condition looks at a value (write vae.prior.type: ...)"]),
        ("when: [{if: {train.samples: [1, 2], train.lr: {grid: [1]}}, then: {train.clip_norm: 2}}]", ["1:29: when.0.if.train.samples: a list is not a value it can have (latent samples z per x in a step, [1, 4096]) (one of several: {in: [a, b]})", "1:47: when.0.if.train.lr: a grid is not a value or {in: [a, b]} (a condition is one of these)"]),
        ("when: [{if: {vae.latent_dm: 1}, then: {train.lrr: 1}}]", ["1:14: when.0.if.vae.latent_dm: unknown key 'latent_dm' (allowed: encoder, decoder, conditioning, latent_dim, posterior, prior, likelihood, estimator) - did you mean 'latent_dim'?", "1:40: when.0.then.train.lrr: unknown key 'lrr' (allowed: epochs, batch_size, optimizer, lr, lr_schedule, weight_decay, momentum, clip_norm, samples, dtype) - did you mean 'lr'?"]),
        ("when: [{if: {train.lr: 1}, then: {train: {samples: 2}}}]", ["1:14: when.0.if.train.lr: is set by when.0.then at 1:35 (conditions are judged before any when is applied: look at what decides it)"]),
        ("when: [{if: {vae.latent_dim: 16}, then: {train.lr: -1, vae.prior.r: 2}}]", ["1:52: train.lr: -1 is not above 0.0 (learning rate)", "1:56: vae.prior.r: unknown key 'r' (allowed: type; r is a knob of type binarized)"]),
        (  # met only by the second item of one grid with the second of another: found all the same
            "vae: {latent_dim: {grid: [1, 2, 3]}, posterior: {grid: [{type: gaussian}, {type: du}]}}\n"
            "when: [{if: {vae.latent_dim: 3, vae.posterior.type: gaussian}, then: {train.lr: {uniform: [-1, 1]}}}]",
            ["2:92: train.lr: -1.0 is not above 0.0 (learning rate)"],
        ),
        ("vae: {conditioning: null}\nwhen: [{if: {train.epochs: 20}, then: {vae.conditioning.type: film}}]", ["2:40: vae.conditioning.type: vae.conditioning is null, with no key type (set vae.conditioning whole)"]),
        # points
        ("points: 3", [f"1:9: points: 3 is not a list with something in it ({POINTS})"]),
        ("points: [3]", [f"1:10: points.0: 3 is not a mapping ({POINTS})"]),
        ("points: [{train.lr: {grid: [1, 2]}}]", ["1:21: points.0.train.lr: a grid cannot be here (a point is one configuration: write a point for each value)"]),
        ("points: [{vae.encoder: {type: mlp, hidden: [{integer: [1, 2]}]}}]", ["1:45: points.0.vae.encoder.hidden.0: an integer range cannot be here (a point is one configuration: write a point for each value)"]),
        ("points: [{train.lr: -1, trian.lr: 1}]", ["1:25: points.0.trian.lr: unknown key 'trian' (allowed: data, vae, objective, train, evaluate) - did you mean 'train'?"]),
        ("points: [{train.lr: -1}]", ["1:21: train.lr: -1 is not above 0.0 (learning rate)"]),
        ("train: {lr: {grid: [1, 2]}}\npoints: [{vae.latent_dim: 2}]", ["2:10: points.0: train.lr is a grid at 1:13, and this point gives it no value (add train.lr: one value)"]),
        ("zip: {train.lr: [1, 2], train.samples: [1, 2]}\npoints: [{train.samples: 2}]", ["2:10: points.0: train.lr is a zip at 1:7, and this point gives it no value (add train.lr: one value)"]),
        ("vae: {prior: {grid: [{type: binarized}]}}\npoints: [{vae.prior.r: 2}]", ["2:11: points.0.vae.prior.r: vae.prior is a grid, with no key r (set vae.prior whole)"]),
    ],
)  # fmt: skip
def test_place_and_fix(text: str, lines: list[str]):
    with pytest.raises(ConfigError) as e:
        loads(text, label="x.yaml")
    assert e.value.problems == [f"x.yaml:{line}" for line in lines]


def test_a_name_set_on_the_command_line_and_in_a_zip_names_both():
    with pytest.raises(ConfigError) as e:
        loads("zip: {train.lr: [1, 2], train.samples: [1, 2]}", ["train.lr=3"], label="x.yaml")
    assert e.value.problems == [
        "x.yaml:1:7: zip.train.lr: train.lr is set at --set train.lr=3 too (to leave the zip out: zip: null)"
    ]


def test_a_dotted_name_into_a_part_that_is_left_out_is_of_the_default_part():
    (trial,) = loads("points: [{objective.beta: 3}]").trials
    assert trial.objective == type(Trial().objective)(beta=3.0)
    assert loads("seeds: 1", ["objective.beta=3"]).trials == (trial,)
