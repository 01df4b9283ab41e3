"""2,000 damaged configs: each is a `Study` or a `ConfigError`, and fast."""

from __future__ import annotations

import re
import time
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distvae.config import ConfigError, loads
from distvae.study import Study
from distvae.sweeps.tree import dump, parse
from distvae.trial import Trial

BASE = """\
name: fuzz
data: {type: digits}
vae:
  encoder: &net {type: mlp, hidden: [16, 8], activation: relu}
  decoder: *net
  latent_dim: {grid: [2, 4]}
  posterior: {grid: [{type: gaussian}, {type: du, gamma: 0.5, p_keep: {choice: [1.0, 0.8]}}]}
  prior:
    type: binarized
    r: {grid: [0.0, 0.5]}
  likelihood: {type: gaussian, mode: optimal}
objective: {type: elbo, beta: {loguniform: [0.1, 10]}, schedule: {type: linear, steps: 100}}
train: {epochs: 2, batch_size: 128, lr: 1e-3, clip_norm: null}
seeds: 2
search: {samples: 2, seed: 0}
resources: {workers: 1, gpus: 0}
deepspeed: {gradient_accumulation_steps: 1, zero_optimization: {stage: 0}}
"""
BESIDE = """\
vae: {latent_dim: {integer: [2, 4]}, prior: {type: binarized}}
zip: {vae.prior.r: [0, 0.5], objective.beta: [1, {uniform: [2, 4]}]}
when:
  - {if: {vae.prior.r: 0.5, train.samples: {in: [1, 3]}}, then: {train.weight_decay: {grid: [0, 0.1]}}}
  - {if: {vae.posterior.type: gaussian}, then: {vae.estimator.type: pathwise}}
points: [{vae.latent_dim: 3, vae.prior.r: 1, objective.beta: 2}]
"""
JUNK = [
    ".nan", "-.inf", "1e400", "9" * 400, "-1", "0", "1e-3s", "[[[[]]]]", "{}", "[]", "~", "no", "\t", "\0", "é☃😀", "\u2028", "\x85",
    "&a", "*a", "*net", "&net", "!!python/object:x", "!x", "<<", "? ", ": ", "- ", "---", "...", "%YAML 1.1", "|", ">", "'", '"', "{", "}", "[",
    "]", ",", "#", "\n", "\r", "  ", "grid", "{grid: [1, 2]}", "{grid: []}", "{grid: [{grid: [1]}]}", "{choice: [{grid: [1]}]}",
    "{uniform: [0, 1]}", "{integer: [0, 3]}", "{integer: [0, 0.5]}", "{in: []}", "{if: {train.lr: 1}, then: {train.lr: 2}}", "vae.prior", "train..lr", "zip", "{loguniform: [1, 1e300]}", "{uniform: [1e308, -1e308]}", "{uniform: [-1e308, 1e308]}", "true", "type: du", "0x_", "''",
    '"\\ud800"', "0o9", "2020-01-01", "type", "../..", "=", "[" * 60, "{a: " * 60, "x" * 2000,
]  # fmt: skip

edit = st.tuples(
    st.sampled_from(["delete", "repeat", "replace", "insert", "swap", "word", "word", "word"]),
    st.integers(0, 1000),
    st.integers(0, 40),
    st.sampled_from(JUNK) | st.text(max_size=3),
)


def damage(text: str, edits: list[tuple[str, int, int, str]]) -> str:
    for kind, start, length, junk in edits:
        if kind == "word" and (words := [m.span() for m in re.finditer(r"[\w.-]+|\[[^\[\]]*\]", text)]):
            a, b = words[start % len(words)]  # a key, a value or a list
            text = text[:a] + junk + text[b:]
            continue
        start = min(start, len(text))
        chunk, rest = text[start : start + length], text[start + length :]
        new = {
            "word": junk,
            "delete": "",
            "repeat": chunk * 2,
            "replace": junk,
            "insert": junk + chunk,
            "swap": rest[:length] + chunk,
        }
        text = text[:start] + new[kind] + (rest[length:] if kind == "swap" else rest)
    return text


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([10**40, -1, 0, 2**63])
)
values = st.recursive(
    scalars | st.sampled_from(["du", "normal", "binarized", "elbo", "gaussian", "adam"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "grid",
                    "choice",
                    "uniform",
                    "loguniform",
                    "integer",
                    "type",
                    "r",
                    "steps",
                    "if",
                    "then",
                    "in",
                    "vae.prior.r",
                ]
            )
            | st.text(max_size=5),
            inner,
            max_size=2,
        )
    ),
    max_leaves=6,
)


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(p for k, v in inside for p in places(v, (*path, k)))]


TREES = [parse(text, lambda line, column: "", []).plain() for text in (BASE, BESIDE)]  # type: ignore[union-attr]


def put(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    if isinstance(data, list):
        return [put(v, path[1:], value) if i == path[0] else v for i, v in enumerate(data)]
    if not isinstance(data, dict):
        return data  # an earlier change replaced the parent
    return {k: put(v, path[1:], value) if k == path[0] else v for k, v in data.items()}


def check(text: str, sets: tuple[str, ...] = ()) -> None:
    start = time.process_time()
    try:
        study = loads(text, sets, label="x.yaml")
    except ConfigError as e:
        trials, lines = 0, str(e).splitlines()
        assert e.problems and len(lines) == min(len(e.problems), 20) + (len(e.problems) > 20)
        assert all(p.startswith(("x.yaml:", "--set ")) and len(p) < 3000 for p in e.problems)
    else:
        assert isinstance(study, Study) and study.trials and all(isinstance(t, Trial) for t in study.trials)
        trials = len(study.trials) + study.duplicates
        if trials <= 200:
            assert [t.key for t in loads(study.resolved).trials] == [t.key for t in study.trials]
            trials *= 2
    seconds = time.process_time() - start
    assert seconds < 1.0 + 1e-3 * trials, f"{seconds:.2f} s of CPU for {trials} trials"


quiet = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@given(st.sampled_from([BASE, BESIDE]), st.lists(edit, min_size=1, max_size=4))
@settings(quiet, max_examples=700)
def test_damaged_text(base, edits):
    check(damage(base, edits))


@given(
    st.sampled_from(TREES).flatmap(
        lambda tree: st.tuples(
            st.just(tree),
            st.lists(
                st.tuples(
                    st.sampled_from([p for p in places(tree) if len(p) == 1]) | st.sampled_from(places(tree)[1:]),
                    values,
                ),
                min_size=1,
                max_size=3,
            ),
        )
    )
)
@settings(quiet, max_examples=300)
def test_damaged_trees(case):
    data, changes = case
    for path, value in changes:
        data = put(data, path, value)
    try:
        text = dump(data)
    except UnicodeEncodeError:
        return
    check(text)


@given(
    st.sampled_from(
        [
            "",
            "vae.prior.r",
            "vae.prior",
            "train",
            "train.lr",
            "a.b.c",
            "seeds",
            "deepspeed.x",
            ".",
            "zip",
            "zip.train.samples",
            "when",
            "points",
        ]
    ),
    st.sampled_from(JUNK) | st.text(max_size=20),
)
@settings(quiet, max_examples=200)
def test_damaged_sets(path, value):
    check(BESIDE if path[:4] in ("zip", "zip.", "when", "poin") else BASE, (f"{path}={value}",))
