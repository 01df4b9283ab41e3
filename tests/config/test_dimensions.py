"""A space one value a range, as a search asks for it: `dimensions`, `at`, `Loader.configure` and `Loader.suggest`."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from distvae.config import ConfigError, loads, reader
from distvae.sweeps import space
from distvae.sweeps.tree import parse

TREE = """
vae:
  latent_dim: {integer: [2, 8]}
  posterior: {grid: [{type: gaussian}, {type: du, gamma: {uniform: [0.5, 1]}, p_keep: {choice: [1, {uniform: [0.2, 0.9]}]}}]}
objective: {type: elbo, beta: {loguniform: [0.1, 10]}}
"""


def tree(text: str) -> Any:
    return parse(text, lambda line, col: f"{line}:{col}", [])


def test_every_range_has_a_name_of_its_own():
    found = space.dimensions(tree(TREE))
    assert [(d.name, d.path, d.kind, d.ends or d.size, d.parents) for d in found] == [
        ("vae.latent_dim", "vae.latent_dim", "integer", (2, 8), ()),
        ("vae.posterior", "vae.posterior", "grid", 2, ()),
        ("vae.posterior[1].gamma", "vae.posterior.gamma", "uniform", (0.5, 1.0), (("vae.posterior", 1),)),
        ("vae.posterior[1].p_keep", "vae.posterior.p_keep", "choice", 2, (("vae.posterior", 1),)),
        (
            "vae.posterior[1].p_keep[1]",
            "vae.posterior.p_keep",
            "uniform",
            (0.2, 0.9),
            (("vae.posterior", 1), ("vae.posterior[1].p_keep", 1)),
        ),
        ("objective.beta", "objective.beta", "loguniform", (0.1, 10.0), ()),
    ]
    assert found[1].items[0] == {"type": "gaussian"} and found[3].items == [1, {"uniform": [0.2, 0.9]}]


def test_at_puts_the_given_values():
    values = {"vae.latent_dim": 3, "vae.posterior": 1, "vae.posterior[1].gamma": 0.75, "vae.posterior[1].p_keep": 1}
    values |= {"vae.posterior[1].p_keep[1]": 0.5, "objective.beta": 4.0}
    assert space.at(tree(TREE), values).plain() == {
        "vae": {"latent_dim": 3, "posterior": {"type": "du", "gamma": 0.75, "p_keep": 0.5}},
        "objective": {"type": "elbo", "beta": 4.0},
    }
    few = {"vae.latent_dim": 8, "vae.posterior": 0, "objective.beta": 0.1}  # the others do not count
    assert space.at(tree(TREE), few).plain()["vae"] == {"latent_dim": 8, "posterior": {"type": "gaussian"}}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"vae.latent_dim": 9}, r"vae\.latent_dim: 9 is not a whole number from 2 to 8"),
        ({"vae.latent_dim": 2.0}, r"2\.0 is not a whole number"),
        ({"vae.posterior": 2}, r"vae\.posterior: 2 is not the number of an item, 0 to 1"),
        ({"vae.posterior": True}, "true is not the number of an item"),
        ({"objective.beta": 11.0}, r"objective\.beta: 11\.0 is not a number from 0\.1 to 10\.0"),
        ({"vae.posterior": 1}, r"vae\.posterior\[1\]\.gamma: a uniform without a value"),
        ({"train.lr": 1}, r"train\.lr: is no range \(ranges: vae\.latent_dim, "),
    ],
)
def test_values_that_the_ranges_do_not_hold(change: dict[str, Any], why: str):
    with pytest.raises(ValueError, match=why):
        space.at(tree(TREE), {"vae.latent_dim": 3, "vae.posterior": 0, "objective.beta": 1, **change})


SWEEP = """
vae: {prior: {grid: [{type: normal}, {type: binarized, r: {grid: [0, 1]}}]}}
zip: {vae.latent_dim: [2, {grid: [3, 4]}], train.lr: [0.1, 0.2]}
when:
  - {if: {vae.prior.type: binarized}, then: {objective.beta: {grid: [1, 2]}}}
  - {if: {vae.prior.type: binarized, vae.latent_dim: 2}, then: {objective.beta: {grid: [3, 4]}}}
seeds: [5, 7]
"""
BLOCKS = SWEEP + "blocks: [{}, {zip: null, when: null}]\n"


@pytest.mark.parametrize("text", [SWEEP, BLOCKS])
def test_all_values_of_all_ranges_are_the_sweep(text: str):
    loader = reader(text)
    assert loader.space is not None
    names = [d.name for d in loader.space.dimensions]
    assert len(set(names)) == len(names)
    sizes = [range(d.size) for d in loader.space.dimensions]
    found = {t.key: t for pick in product(*sizes) for t in loader.configure(dict(zip(names, pick, strict=True)))}
    study = loads(text)
    assert found == {t.key: t for t in study.trials}
    assert [t.seed for t in loader.configure(dict.fromkeys(names, 0))] == [5, 7]


def test_a_search_is_asked_only_for_what_counts():
    loader = reader(SWEEP)
    asked: list[tuple[str, str]] = []

    def last(dimension: space.Dimension) -> int:
        asked.append((dimension.name, dimension.clause))
        return dimension.size - 1

    trial, _ = loader.suggest(last)
    assert asked == [
        ("vae.prior", ""),
        ("vae.prior[1].r", ""),
        ("zip(vae.latent_dim, train.lr)", ""),
        ("zip(vae.latent_dim, train.lr)[1].vae.latent_dim", ""),
        ("when.0.objective.beta", "when.0"),
    ]
    assert (trial.vae.prior.r, trial.vae.latent_dim, trial.objective.beta) == (1.0, 4, 2.0)
    asked.clear()
    (trial, _) = loader.suggest(lambda d: last(d) if d.path.startswith(("vae.prior", "objective")) else 0)
    assert trial.objective.beta == 4.0 and asked[-1] == ("when.1.objective.beta", "when.1")
    known = {d.name for d in loader.space.dimensions}  # type: ignore[union-attr]
    assert {name for name, _ in asked} <= known


def test_nonsense_is_refused_or_left_out_one_configuration_at_a_time():
    text = "vae: {posterior: {grid: [{type: gaussian}, {type: bernoulli}]}, prior: {grid: [{type: normal}, {type: bernoulli}]}}\n"
    loader = reader(text, label="x.yaml")
    with pytest.raises(ConfigError, match=r"x\.yaml:1:80: vae\.prior: normal is a prior on R\^d"):
        loader.configure({"vae.posterior": 1, "vae.prior": 0})
    assert len(loader.configure({"vae.posterior": 1, "vae.prior": 1})) == 1  # and it is forgotten
    assert reader(text + "search: {nonsense: skip}").configure({"vae.posterior": 1, "vae.prior": 0}) == ()
    with pytest.raises(ConfigError, match=r"train\.lr: -1 is not above 0"):
        reader("train: {lr: -1}").configure({})
