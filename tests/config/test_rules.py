"""Which parts go together: every pair that makes no sense is refused at load, in one place, with the fix; and the ways to
sweep over many parts at once."""

import pytest

from distvae.config import ConfigError, loads

REFUSED = [  # (config, field, words of the reason, words of the fix)
    ("vae: {posterior: {type: von_mises_fisher}}", "vae.prior", "lives on the unit sphere", "{type: uniform_sphere}"),
    ("vae: {posterior: {type: bernoulli}}", "vae.prior", "lives on bits", "prior: {type: bernoulli}"),
    ("vae: {posterior: {type: categorical}}", "vae.prior", "lives on one-hot codes", "prior: {type: categorical}"),
    ("vae: {prior: {type: uniform_sphere}}", "vae.prior", "lives on R^d", "normal or binarized or mixture or vamp"),
    (
        "data: {type: gaussian, eigenvalues: [1.0]}\nvae: {likelihood: {type: gaussian}, prior: {type: mixture, by: label}}",
        "vae.prior", "the gaussian data have none", "leave `by` out",
    ),
    ("vae: {prior: {type: mixture, by: label, components: 4}}", "vae.prior", "10 classes", "components: 10"),
    ("vae: {prior: {type: vamp}, posterior: {type: du}}", "vae.prior", "batch of examples", "{type: gaussian}"),
    ("vae: {prior: {type: vamp}, posterior: {type: delta}}\nobjective: {type: wae}", "vae.prior", "Gaussian posteriors", "{type: mixture}"),
    (
        "data: {type: gaussian, eigenvalues: [1.0]}\nvae: {likelihood: {type: gaussian}, prior: {type: vamp}}",
        "vae.prior", "data are real numbers", "squash: none",
    ),
    ("vae: {posterior: {type: delta}}", "objective", "has no KL, and elbo weighs one", "{type: elbo, beta: 0}"),
    ("vae: {posterior: {type: delta}}\nobjective: {type: tcvae}", "objective", "needs a Gaussian posterior", "posterior: {type: gaussian}"),
    ("vae: {prior: {type: mixture}}\nobjective: {type: free_bits}", "objective", "a KL per dimension", "{type: normal}"),
    ("vae: {estimator: {type: gumbel_softmax}}", "vae.estimator", "discrete", "use pathwise"),
    ("vae: {posterior: {type: bernoulli}, prior: {type: bernoulli}, estimator: {type: pathwise}}", "vae.estimator", "no gradient passes", "use score"),
    (
        "vae: {posterior: {type: bernoulli}, prior: {type: bernoulli}, latent_dim: 13, estimator: {type: enumerate}}",
        "vae.estimator", "13 bits have 2^13 codes", "latent_dim <= 12",
    ),
    ("vae: {estimator: {type: score}, prior: {type: mixture}}", "vae.estimator", "Monte Carlo mean", "use pathwise"),
    ("vae: {estimator: {type: score}}\nobjective: {type: wae}", "objective", "trained through z", "estimator: {type: pathwise}"),
    ("vae: {estimator: {type: score, baseline: leave_one_out}}", "train.samples", "1 sample a step", "samples: 2"),
    ("vae: {likelihood: {type: categorical_256}}", "vae.likelihood", "17 levels a pixel", "8-bit data"),
    ("data: {type: gaussian, eigenvalues: [1.0]}", "vae.likelihood", "pixels in [0, 1]", "use gaussian"),
    (
        "data: {type: gaussian, eigenvalues: [1.0]}\nvae: {encoder: {type: conv}, likelihood: {type: gaussian}}",
        "vae.encoder", "image", "mlp",
    ),
    ("objective: {type: beta_input}", "objective", "no net is told it", "set vae.conditioning"),
    ("vae: {conditioning: {type: gate}}", "vae.conditioning", "has one beta for all", "{type: beta_input}"),
    (
        "vae: {conditioning: {type: film}, encoder: {type: mlp, hidden: []}}\nobjective: {type: beta_input}",
        "vae.encoder", "hidden layers", "gate",
    ),
    ("vae: {conditioning: {type: gate}, posterior: {type: du}}\nobjective: {type: beta_input}", "vae.posterior", "mix the betas", "{type: gaussian}"),
    (
        "vae: {conditioning: {type: gate}, likelihood: {type: gaussian, mode: optimal}}\nobjective: {type: beta_input}",
        "vae.likelihood", "mix its betas", "per_image",
    ),
    ("objective: {type: wae}\ndeepspeed: {gradient_accumulation_steps: 2}", "deepspeed.gradient_accumulation_steps", "whole batch", "set it to 1"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "field", "reason", "fix"), REFUSED)
def test_a_pair_that_makes_no_sense_is_refused_with_the_reason_and_the_fix(text, field, reason, fix):
    with pytest.raises(ConfigError) as e:
        loads(text, label="x.yaml")
    assert len(e.value.problems) == 1, e.value.problems
    place, _, said = e.value.problems[0].partition(f": {field}: ")
    assert place.startswith("x.yaml:") and reason in said and fix in said, e.value.problems


def test_nonsense_may_be_skipped_and_is_counted():
    crossed = "vae: {posterior: {grid: [{type: gaussian}, {type: bernoulli}]}, prior: {grid: [{type: normal}, {type: bernoulli}]}}\n"
    with pytest.raises(ConfigError) as e:
        loads(crossed)
    assert len(e.value.problems) == 2  # one for each nonsense pair
    study = loads(crossed + "search: {nonsense: skip}\nseeds: 2\n")
    pairs = [(t.vae.posterior.type, t.vae.prior.type) for t in study.trials]
    assert pairs == [("gaussian", "normal")] * 2 + [("bernoulli", "bernoulli")] * 2 and study.skipped == 2
    with pytest.raises(ConfigError, match="every combination of parts is nonsense"):
        loads("vae: {posterior: {type: bernoulli}}\nsearch: {nonsense: skip}\n")


def test_skipping_nonsense_skips_no_other_error():
    text = "vae: {prior: {type: binarized, r: -1.0}}\nsearch: {nonsense: skip}\n"
    with pytest.raises(ConfigError, match=r"vae\.prior\.r: -1\.0 is below 0"):
        loads(text)


def test_blocks_are_several_spaces_in_one_sweep():
    study = loads("""
train: {epochs: 2}
vae: {latent_dim: 3}
blocks:
  - {objective: {type: elbo, beta: {grid: [1, 2]}}}
  - {vae: {latent_dim: {grid: [4, 5]}}, objective: {type: capacity}}
  - {objective: {type: elbo, beta: 2}}
seeds: 2
""")
    got = [(t.vae.latent_dim, t.objective.type, getattr(t.objective, "beta", None), t.seed) for t in study.trials]
    assert got == [
        *((3, "elbo", beta, seed) for beta in (1.0, 2.0) for seed in (0, 1)),
        *((d, "capacity", None, seed) for d in (4, 5) for seed in (0, 1)),
    ]
    assert study.duplicates == 2 and {t.train.epochs for t in study.trials} == {2}


def test_blocks_say_where_they_are_wrong():
    with pytest.raises(ConfigError) as e:
        loads("blocks:\n  - {vea: {latent_dim: 2}}\n  - 3\n  - {vae: {latent_dim: -2}}\n", label="x.yaml")
    one, two, three = e.value.problems
    assert one.startswith("x.yaml:2:6: blocks.0.vea: unknown key 'vea'") and "did you mean 'vae'?" in one
    assert two.startswith("x.yaml:3:5: blocks.1: 3 is not a mapping")
    assert three.startswith("x.yaml:4:24: vae.latent_dim: -2 is below 1")
    with pytest.raises(ConfigError, match=r"blocks: \[\] is not a list of blocks|blocks: .*not a list"):
        loads("blocks: []\n")
