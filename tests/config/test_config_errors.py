"""Each class of bad input: the exact place, what is wrong, what is allowed and the hint."""

from __future__ import annotations

import re
import time

import pytest

from distvae.config import ConfigError, load, loads
from distvae.posteriors import Posterior
from distvae.priors import Prior
from distvae.sweeps.explain import members
from distvae.sweeps.tree import MAX_BYTES

GOOD = """\
name: digits
data: {type: digits}
vae:
  encoder: {type: mlp, hidden: [16]}
  latent_dim: 2
  posterior: {type: gaussian}
  prior:
    type: binarized
    r: 0.5
  likelihood: {type: bernoulli}
objective: {type: elbo, beta: 1.0}
train: {epochs: 1, lr: 1e-3}
seeds: 2
"""
PRIORS, POSTERIORS = (", ".join(m.__dataclass_fields__["type"].default for m in members(u)) for u in (Prior, Posterior))


def said(text: str, sets: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(ConfigError) as e:
        loads(text, sets, label="x.yaml")
    assert str(e.value).splitlines() == e.value.problems[:20]  # a line per problem
    return e.value.problems


def swap(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


def test_the_config_they_break_is_good():
    study = loads(GOOD)
    assert len(study.trials) == 2 and study.trials[1].seed == 1 and study.trials[0].train.lr == 0.001


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        # the type and the value of a part
        (
            "type: binarized",
            "type: binarised",
            f"x.yaml:8:11: vae.prior.type: 'binarised' is not one of {PRIORS} - did you mean 'binarized'?",
        ),
        (
            "r: 0.5",
            "r: -1.0",
            "x.yaml:9:8: vae.prior.r: -1.0 is below 0.0 (distance of a mode from its mean (S1 Eq. 3))",
        ),
        (
            "r: 0.5",
            "r: 101",
            "x.yaml:9:8: vae.prior.r: 101 is above 100.0 (distance of a mode from its mean (S1 Eq. 3))",
        ),
        ("lr: 1e-3", "lr: 0", "x.yaml:12:24: train.lr: 0 is not above 0.0 (learning rate)"),
        ("latent_dim: 2", "latent_dim: 0", "x.yaml:5:15: vae.latent_dim: 0 is below 1 (dimensions of z)"),
        (
            "{type: gaussian}",
            "{gamma: 1}",
            f"x.yaml:6:14: vae.posterior.type: is missing, one of {POSTERIORS} (q(z|x))",
        ),
        (
            "{type: gaussian}",
            "du",
            f"x.yaml:6:14: vae.posterior: 'du' is not a mapping (q(z|x); types: {POSTERIORS}) - did you mean {{type: du}}?",
        ),
        (
            "{type: digits}",
            "{type: digit}",
            "x.yaml:2:14: data.type: 'digit' is not one of digits, mnist, fashion_mnist, gaussian, binarized_mnist, omniglot, "
            "dsprites, cifar10, svhn, celeba, images, npz - did you mean 'digits'?",
        ),
        (
            "beta: 1.0",
            "schedule: {type: cyclic}",
            "x.yaml:11:35: objective.schedule.period: is required (optimizer steps of one cycle)",
        ),
        # unknown keys
        (
            "latent_dim: 2",
            "latnt_dim: 2",
            "x.yaml:5:3: vae.latnt_dim: unknown key 'latnt_dim' (allowed: encoder, decoder, conditioning, latent_dim, posterior, prior, likelihood, estimator) - did you mean 'latent_dim'?",
        ),
        (
            "{type: gaussian}",
            "{type: gaussian, gamma: 1}",
            "x.yaml:6:31: vae.posterior.gamma: unknown key 'gamma' (allowed: type; gamma is a knob of type du)",
        ),
        (
            "name: digits",
            "seed: 3",
            "x.yaml:1:1: seed: unknown key 'seed' (allowed: name, data, vae, objective, train, evaluate, zip, when, points, blocks, seeds, search, resources, tracking, metrics, engine, deepspeed) - did you mean 'seeds'?",
        ),
        (
            "seeds: 2",
            "resources: {worker: 2}",
            "x.yaml:13:13: resources.worker: unknown key 'worker' (allowed: workers, gpus, threads, concurrency, checkpoint_s, keep, fuse) - did you mean 'workers'?",
        ),
        # a unit, a wrong kind of value
        (
            "epochs: 1,",
            "epochs: 10 epochs,",
            "x.yaml:12:17: train.epochs: '10 epochs' is not a whole number (write 10, without a unit)",
        ),
        ("lr: 1e-3", "lr: 1e-3s", "x.yaml:12:24: train.lr: '1e-3s' is not a number (write 1e-3, without a unit)"),
        ("lr: 1e-3", "lr: 1_000", "x.yaml:12:24: train.lr: '1_000' is not a number (write 1000)"),
        ("epochs: 1,", "epochs: 1.0,", "x.yaml:12:17: train.epochs: 1.0 is not a whole number (write 1)"),
        (
            "epochs: 1,",
            "epochs: true,",
            "x.yaml:12:17: train.epochs: true is not a whole number (passes over the training examples)",
        ),
        (
            "epochs: 1,",
            "optimizer: adma,",
            "x.yaml:12:20: train.optimizer: 'adma' is not one of adam, adamw, sgd - did you mean 'adam'?",
        ),
        (
            "{type: gaussian}",
            "{type: du, fixed_gamma: no}",
            "x.yaml:6:38: vae.posterior.fixed_gamma: 'no' is not true or false (write false)",
        ),
        ("hidden: [16]", "hidden: 16", "x.yaml:4:32: vae.encoder.hidden: 16 is not a list (write [16])"),
        (
            "hidden: [16]",
            "hidden: [16, x]",
            "x.yaml:4:37: vae.encoder.hidden.1: 'x' is not a whole number (widths of the hidden layers, encoder order)",
        ),
        (
            "hidden: [16]",
            "hidden: [16, 0]",
            "x.yaml:4:37: vae.encoder.hidden.1: 0 is below 1 (widths of the hidden layers, encoder order)",
        ),
        (
            "latent_dim: 2",
            "latent_dim: 2020-01-01",
            "x.yaml:5:15: vae.latent_dim: '2020-01-01' is not a whole number (write 2020, without a unit)",
        ),
        # numbers that are none
        ("lr: 1e-3", "lr: .nan", "x.yaml:12:24: train.lr: .nan is not a finite number"),
        ("lr: 1e-3", "lr: -.inf", "x.yaml:12:24: train.lr: -.inf is not a finite number"),
        ("lr: 1e-3", "lr: 1e400", "x.yaml:12:24: train.lr: 1e400 is not a finite number"),
        ("lr: 1e-3", "lr: " + "9" * 5000, "x.yaml:12:24: train.lr: a number of 5000 characters is out of range"),
        # YAML
        ("lr: 1e-3", "lr: 1, lr: 2", "x.yaml:12:27: train.lr: duplicate key (first at 12:20; keep one)"),
        ("seeds: 2", "seeds: 2\nseeds: 3", "x.yaml:14:1: seeds: duplicate key (first at 13:1; keep one)"),
        (
            "lr: 1e-3",
            "lr: !!python/object:os.system 1",
            "x.yaml:12:24: train.lr: tag tag:yaml.org,2002:python/object:os.system is not allowed (write the plain value)",
        ),
        ("name: digits", "1: digits", "x.yaml:1:1: key 1 is not a name (quote it if it is one)"),
        (
            "hidden: [16]",
            "<<: {}",
            "x.yaml:4:24: vae.encoder: merge keys (<<) are YAML 1.1 (repeat the keys, or alias the whole mapping)",
        ),
        ("lr: 1e-3", "lr: *missing", "x.yaml:12:24: train.lr: alias *missing has no anchor before it"),
        ("hidden: [16]", "hidden: &a [*a]", "x.yaml:4:36: vae.encoder.hidden: alias *a has no anchor before it"),
        ("seeds: 2", "---\nseeds: 2", "x.yaml:13:1: file: a second document starts here (one config per file)"),
        ("lr: 1e-3}", "lr: 1e-3", "x.yaml:13:6: YAML syntax: expected ',' or '}', but got ':'"),
        (
            "    r: 0.5",
            "\tr: 0.5",
            "x.yaml:9:1: YAML syntax: found character '\\t' that cannot start any token (indent with spaces)",
        ),
        ("r: 0.5", "r: 0.5\0", "x.yaml:9:11: YAML syntax: character U+0000 is not allowed in YAML"),
        ("name: digits", 'name: "\\ud800"', "x.yaml:1:7: name: '\\ud800' is not text (a lone surrogate)"),
        # ranges
        ("r: 0.5", "r: {grid: []}", "x.yaml:9:15: vae.prior.r: empty grid: no values to try (list at least one)"),
        ("r: 0.5", "r: {choice: []}", "x.yaml:9:17: vae.prior.r: empty choice: no values to try (list at least one)"),
        ("r: 0.5", "r: {grid: 3}", "x.yaml:9:15: vae.prior.r: grid takes a list, not 3 (write {grid: [a, b]})"),
        (
            "r: 0.5",
            "r: {grid: [0.5, -1.0]}",
            "x.yaml:9:21: vae.prior.r: -1.0 is below 0.0 (distance of a mode from its mean (S1 Eq. 3))",
        ),
        (
            "r: 0.5",
            "r: {gird: [0.5]}",
            "x.yaml:9:8: vae.prior.r: a mapping is not a number (a range is one of {grid: [...]}, {choice: [...]}, {uniform: [...]}, {loguniform: [...]}, {integer: [...]}) - did you mean 'grid'?",
        ),
        (
            "r: 0.5",
            "r: {grid: [0.5], samples: 3}",
            "x.yaml:9:9: vae.prior.r: a range has one key, and grid has others beside it (nest it)",
        ),
        ("r: 0.5", "r: {uniform: [2, 1]}", "x.yaml:9:18: vae.prior.r: uniform needs low < high, and 2 is not below 1"),
        (
            "r: 0.5",
            "r: {uniform: [1, 2, 3]}",
            "x.yaml:9:18: vae.prior.r: uniform takes two numbers (write {uniform: [low, high]})",
        ),
        (
            "r: 0.5",
            "r: {loguniform: [0, 1]}",
            "x.yaml:9:21: vae.prior.r: loguniform needs both ends above 0, and 0 is not (use uniform)",
        ),
        (
            "r: 0.5",
            "r: {uniform: [-1, 1]}",
            "x.yaml:9:19: vae.prior.r: -1.0 is below 0.0 (distance of a mode from its mean (S1 Eq. 3))",
        ),
        (
            "r: 0.5",
            "r: {choice: [{grid: [1]}]}",
            "x.yaml:9:18: vae.prior.r: a grid inside a choice has no fixed number of cells (put the grid outside)",
        ),
        (
            "latent_dim: 2",
            "latent_dim: {uniform: [2, 8]}",
            "x.yaml:5:15: vae.latent_dim: a draw between two numbers is not a whole number (dimensions of z) (use integer, grid or choice)",
        ),
        (
            "seeds: 2",
            "seeds: {grid: [1, 2]}",
            "x.yaml:13:8: seeds: a grid cannot be here: every configuration runs all seeds (write seeds: 3, or seeds: [0, 1, 2])",
        ),
        (
            "seeds: 2",
            "resources: {workers: {choice: [1, 2]}}",
            "x.yaml:13:22: resources.workers: a choice cannot be here: resources cannot change a trial's numbers, so there is nothing to sweep (run the sweep twice with --set)",
        ),
        (
            "epochs: 1,",
            "epochs: {grid: [1, 2]},",
            "x.yaml:12:28: train.epochs: 1 and 2 for what is otherwise the same trial, and it cannot change its numbers (write the largest: a longer run contains a shorter one)",
        ),
        # seeds, names, engines
        ("seeds: 2", "seeds: 0", "x.yaml:13:8: seeds: 0 is not a number of seeds (1 or more, or a list: [0, 1, 2])"),
        ("seeds: 2", "seeds: []", "x.yaml:13:8: seeds: no seeds: nothing would run (write seeds: 1)"),
        ("seeds: 2", "seeds: [3, 3]", "x.yaml:13:12: seeds: 3 is there 2 times (each seed runs once)"),
        ("seeds: 2", "seeds: [1, -3]", "x.yaml:13:12: seeds: -3 is not a seed (a whole number from 0 to 2^63 - 1)"),
        (
            "name: digits",
            "name: ../../etc",
            "x.yaml:1:7: name: '../../etc' is not a name (letters, digits, '.', '_' and '-', at most 80, first a letter or digit, no '..': it names files; write name: etc)",
        ),
        (
            "name: digits",
            "name: a..b",
            "x.yaml:1:7: name: 'a..b' is not a name (letters, digits, '.', '_' and '-', at most 80, first a letter or digit, no '..': it names files; write name: a-b)",
        ),
        ("name: digits", "name: 2020", "x.yaml:1:7: name: 2020 is not a string (put it in quotes)"),
        (
            "seeds: 2",
            "engine: torhc",
            "x.yaml:13:9: engine: 'torhc' is not one of deepspeed, torch - did you mean 'torch'?",
        ),
        (
            "seeds: 2",
            "deepspeed: {optimizer: {}}",
            "x.yaml:13:13: deepspeed.optimizer: has one home, train.optimizer and train.lr (move it there)",
        ),
        (
            "seeds: 2",
            "deepspeed: {train_batch_size: 3}",
            "x.yaml:13:13: deepspeed.train_batch_size: has one home, train.batch_size (move it there)",
        ),
        (
            "seeds: 2",
            "deepspeed: {scheduler: 3}",
            "x.yaml:13:13: deepspeed.scheduler: has one home, train.lr_schedule (move it there)",
        ),
        (
            "seeds: 2",
            "deepspeed: {gradient_clipping: 3}",
            "x.yaml:13:13: deepspeed.gradient_clipping: has one home, train.clip_norm (move it there)",
        ),
        (
            "seeds: 2",
            "deepspeed: {fp16: {enabled: true}}",
            "x.yaml:13:20: deepspeed.fp16.enabled: has one home, train.dtype: float16 (move it there)",
        ),
        (
            "seeds: 2",
            "deepspeed: {zero_optimization: {stage: 4}}",
            "x.yaml:13:40: deepspeed.zero_optimization.stage: 4 is not a whole number from 0 to 3",
        ),
        (
            "seeds: 2",
            "deepspeed: {bf16: {enabled: true}}",
            "x.yaml:13:13: deepspeed.bf16: has one home, train.dtype: bfloat16 (move it there)",
        ),
        (
            "seeds: 2",
            "deepspeed: {zero_optimization: true}",
            "x.yaml:13:32: deepspeed.zero_optimization: true is not a mapping of DeepSpeed's options",
        ),
        (
            "seeds: 2",
            f"seeds: {10**40}",
            f"x.yaml:13:8: seeds: {10**40} is not a number of seeds (1 or more, or a list: [0, 1, 2])",
        ),
        (
            "seeds: 2",
            f"search: {{samples: {10**40}}}",
            f"x.yaml:13:19: search.samples: {10**40} is above 100000 (draws per grid cell)",
        ),
        (
            "seeds: 2",
            "resources: {fuse: of}",
            "x.yaml:13:19: resources.fuse: 'of' is not one of auto, off, a whole number in [1, 4096] - did you mean 'off'?",
        ),
        (
            "seeds: 2",
            "resources: {fuse: 0}",
            "x.yaml:13:19: resources.fuse: 0 is not one of auto, off, a whole number in [1, 4096]",
        ),
        (
            "seeds: 2",
            "search: {scheduler: {type: halvin}}",
            "x.yaml:13:28: search.scheduler.type: 'halvin' is not one of halving, asha, median, hyperband - did you mean 'halving'?",
        ),
        (
            "seeds: 2",
            "search: {scheduler: {type: halving, eta: 1}}",
            "x.yaml:13:42: search.scheduler.eta: 1 is not above 1.0 (1 / eta of the configurations pass a rung)",
        ),
        # pairs that make no sense
        (
            "seeds: 2",
            "search: {scheduler: {type: halving}}\nresources: {workers: 2}",
            "x.yaml:13:21: search.scheduler: halving trains the trials it compares in one process, and resources.workers is 2 (write workers: 1)",
        ),
        (
            "lr: 1e-3",
            "momentum: 0.9",
            "x.yaml:12:30: train.momentum: momentum is a knob of sgd, and the optimizer is adam: remove it, or optimizer: sgd",
        ),
    ],
)
def test_place_and_hint(old: str, new: str, line: str):
    assert said(swap(old, new)) == [line]


@pytest.mark.parametrize(
    ("part", "said_of"),
    [
        ("posterior: {grid: [{type: gaussian}, {type: delta}]}", "posterior: {type: delta}"),
        ("likelihood: {type: gaussian, mode: optimal_per_image}", "likelihood: {type: gaussian}"),
    ],
)
def test_halving_by_a_bound_needs_one(part: str, said_of: str):
    text = f"vae: {{{part}}}\nobjective: {{type: wae}}\nsearch: {{scheduler: {{type: halving, metric: %s}}}}\n"
    (line,) = said(text % "elbo_nats")
    assert "3:45: search.scheduler.metric: ranks by the bound" in line
    assert f"with {said_of} there is none (write metric: objective" in line
    assert loads(text % "objective").search.scheduler is not None


def test_a_statistic_of_the_whole_batch_is_refused_with_accumulation():
    bad = swap("{type: gaussian}", "{type: du}") + "deepspeed: {gradient_accumulation_steps: 2}\n"
    assert said(bad) == [
        "x.yaml:14:42: deepspeed.gradient_accumulation_steps: 2 splits the batch, and vae.posterior (du) is a statistic of the whole batch "
        "(set it to 1, or use another vae.posterior)"
    ]
    assert loads(bad.replace("steps: 2", "steps: 1")).deepspeed == {"gradient_accumulation_steps": 1}


def test_every_problem_is_reported_once_and_in_order():
    bad = (
        swap("r: 0.5", "r: {grid: [-1.0, 0.5, -2.0]}")
        .replace("epochs: 1,", "epochs: one, lrr: 3,")
        .replace("2\n", "{grid: [2, 0]}\n", 1)
    )
    places = [p.split(": ")[0] for p in said(bad + "nmae: x\n")]
    assert places == ["x.yaml:5:26", "x.yaml:9:16", "x.yaml:9:27", "x.yaml:12:17", "x.yaml:12:22", "x.yaml:14:1"]


def test_at_most_twenty():
    with pytest.raises(ConfigError) as e:
        loads("".join(f"key{i}: 1\n" for i in range(30)))
    lines = str(e.value).splitlines()
    assert len(lines) == 21 and lines[-1] == "... and 10 more problems"


def test_set_names_itself():
    assert said(GOOD, ("vae.prior.r=-1",)) == [
        "--set vae.prior.r=-1: vae.prior.r: -1 is below 0.0 (distance of a mode from its mean (S1 Eq. 3))"
    ]
    assert said(GOOD, ("train.lr={grid: [1, .nan]}",)) == [
        "--set train.lr={grid: [1, .nan]}: train.lr: .nan is not a finite number"
    ]
    assert said(GOOD, ("vae.prior",)) == ["--set vae.prior: vae.prior: is not path=value (write --set vae.prior.r=0.5)"]
    assert said(GOOD, ("vae.latent_dim.x=1",)) == [
        "--set vae.latent_dim.x=1: vae.latent_dim.x: vae.latent_dim is 2, with no key x (set vae.latent_dim whole)"
    ]
    assert said(GOOD, ("train.lr=[",))[0].startswith("--set train.lr=[: YAML syntax: ")
    assert said(GOOD, ("trian.lr=1",))[0].startswith("--set trian.lr=1: trian: unknown key 'trian' ")


def test_a_sweep_of_a_billion_is_refused_at_once():
    values = ", ".join(str(i / 10) for i in range(1000))
    text = swap("r: 0.5", f"r: {{grid: [{values}]}}").replace(
        "latent_dim: 2", f"latent_dim: {{grid: [{', '.join(map(str, range(1, 1001)))}]}}"
    )
    text = text.replace("seeds: 2", "seeds: 1000")
    start = time.process_time()
    (line,) = said(text)
    assert time.process_time() - start < 5.0  # reading 2,000 numbers; expanding would be days
    assert line == (
        "x.yaml:5:15: sweep: 1000000000 trials are more than 100000 (vae.latent_dim: 1000 values x vae.prior.r: 1000 values x seeds: 1000; "
        "drop values, draw them with uniform or choice, or split the sweep)"
    )
    many = said(swap("seeds: 2", f"seeds: {10**18}"))
    assert many[0].startswith(f"x.yaml:13:8: sweep: {10**18} trials are more than 100000 (seeds: {10**18}; ")


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", "1:1: file: is empty (start with `data: {type: digits}`)"),
        (b"# only this\n", "1:1: file: is empty (start with `data: {type: digits}`)"),
        (
            b"- 1\n",
            "1:1: file: the top level is a list, not a mapping (keys: name, data, vae, objective, train, evaluate, zip, when, points, blocks, seeds, search, resources, tracking, metrics, engine, deepspeed)",
        ),
        (b"a: 1\nb: \xff\n", "2:4: file: byte 0xff is not UTF-8 (save the file as UTF-8)"),
        (b"seeds: 1\nname: \0\n", "2:7: YAML syntax: character U+0000 is not allowed in YAML"),
        (
            b"#" * (MAX_BYTES + 1),
            f"1:1: file: is larger than {MAX_BYTES} bytes (a config is text of a few hundred lines)",
        ),
    ],
    ids=["empty", "comment", "list", "latin1", "nul", "large"],
)
def test_files_that_are_no_config(tmp_path, data: bytes, line: str):
    path = tmp_path / "x.yaml"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as e:
        load(path)
    assert e.value.problems == [f"{path}:{line}"]


def test_paths_that_are_no_file(tmp_path):
    for path, why in [
        (tmp_path, "is a directory, not a YAML file"),
        (tmp_path / "missing.yaml", "does not exist"),
        ("nul\0.yaml", "cannot be read"),
        (tmp_path / "x.yaml" / "y\n.yaml", "does not exist"),
    ]:
        with pytest.raises(ConfigError, match=rf":1:1: file: {why}") as e:
            load(path)
        assert len(str(e.value).splitlines()) == 1


def test_the_name_is_the_file_s_stem_unless_given(tmp_path):
    (tmp_path / "dürer 1.yaml").write_text("seeds: 1\n")
    with pytest.raises(ConfigError, match=re.escape("1:1: name: 'dürer 1', the file's name, is not a name")):
        load(tmp_path / "dürer 1.yaml")
    assert load(tmp_path / "dürer 1.yaml", ["name=durer"]).name == "durer"
    (tmp_path / "ok.yaml").write_bytes(b"\xef\xbb\xbfseeds: 1\n")
    assert load(tmp_path / "ok.yaml").name == "ok"


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [1, 1]\n" + "".join(f"a{i}: &a [{', '.join(['*a'] * 10)}]\n" for i in range(20)),  # 10^20 nodes
        "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 500)),  # 500 deep
        "a: " + "[" * 100_000,
        "a: " + "{a: " * 100_000,
        "- " * 100_000,
        "? " * 100_000,
        "a: [" + "1, " * 100_000,
    ],
    ids=["alias-bomb", "alias-chain", "lists", "mappings", "dashes", "keys", "long"],
)
def test_bombs_are_refused_fast(text: str):
    start = time.process_time()
    with pytest.raises(ConfigError):
        loads(text)
    assert time.process_time() - start < 5.0
