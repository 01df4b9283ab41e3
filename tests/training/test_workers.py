"""One trial on two workers gives the rows of one worker, and DeepSpeed's those of plain torch: fp32, 3 epochs,
whatever looks at the whole batch, with an uneven last batch (1437 examples, 1437 mod 100 = 37, odd)."""

import pytest
from ranks import train_on

BASE = {"train": {"epochs": 3, "batch_size": 100}, "vae": {"encoder": {"type": "mlp", "hidden": [32]}, "latent_dim": 5}}
DU = {"posterior": {"type": "du", "gamma": 0.7, "p_keep": 0.8}, "prior": {"type": "binarized", "r": 0.5}}
TRIALS = {
    "plain": BASE,
    "du": {**BASE, "vae": {**BASE["vae"], **DU}},
    "optimal sigma": {**BASE, "vae": {**BASE["vae"], "likelihood": {"type": "gaussian", "mode": "optimal"}}},
    "learned sigma": {**BASE, "vae": {**BASE["vae"], "likelihood": {"type": "gaussian", "mode": "learned"}}},
    "batch capacity": {
        **BASE,
        "objective": {"type": "capacity", "capacity": 50.0, "weight": 2.0, "reduction": "batch_sum"},
    },
    "bfloat16": {**BASE, "train": {**BASE["train"], "dtype": "bfloat16"}},
    "clipped": {**BASE, "train": {**BASE["train"], "clip_norm": 5.0, "optimizer": "adamw", "weight_decay": 0.1}},
}
VARIANTS = {  # of one engine: what looks at other workers' examples is the objective's and the prior's
    "wae": {"vae": {"posterior": {"type": "delta"}}, "objective": {"type": "wae"}},
    "binarized wae": {"vae": {"prior": {"type": "binarized", "r": 0.5}}, "objective": {"type": "wae", "kernel": "rbf"}},
    "infovae": {"objective": {"type": "infovae"}},
    "tcvae": {"objective": {"type": "tcvae"}},
    "stratified": {"objective": {"type": "tcvae", "sampling": "stratified"}},
    "dip": {"objective": {"type": "dip", "version": "II", "lambda_d": 10.0}},
    "free bits": {"objective": {"type": "free_bits", "of": "batch_dim", "nats": 1.0}},
    "by label": {"vae": {"prior": {"type": "mixture", "by": "label"}}},
    "vamp": {"vae": {"prior": {"type": "vamp", "components": 20}}},
    "sphere": {"vae": {"posterior": {"type": "von_mises_fisher"}, "prior": {"type": "uniform_sphere"}}},
    "bits": {
        "vae": {
            "posterior": {"type": "bernoulli"},
            "prior": {"type": "bernoulli"},
            "estimator": {"type": "score", "baseline": "leave_one_out"},
        },
        "train": {"samples": 2},
    },
    "beta input": {"vae": {"conditioning": {"type": "gate"}}, "objective": {"type": "beta_input", "betas": [1.0]}},
}
STAGES = {"zero0": 0, "zero1": 1, "zero2": 2}
METRICS = ("rate_nats", "distortion_nats", "distortion_mse", "elbo_nats", "objective", "rate_se")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """(workers, engine, trial) -> rows. Two launches for everything: start-up dominates."""
    jobs = {("torch", name): {"trial": t, "engine": "torch"} for name, t in TRIALS.items()}
    jobs |= {("deepspeed", name): {"trial": t, "engine": "deepspeed"} for name, t in TRIALS.items()}
    for zero, stage in STAGES.items():
        block = {"zero_optimization": {"stage": stage}}
        jobs[zero, "du"] = {"trial": TRIALS["du"], "engine": "deepspeed", "deepspeed": block}
    jobs["accumulated", "plain"] = {
        "trial": TRIALS["plain"],
        "engine": "deepspeed",
        "deepspeed": {"gradient_accumulation_steps": 3},
    }
    for name, v in VARIANTS.items():
        train = {**BASE["train"], "epochs": 1, **v.get("train", {})}
        own = {"vae": {**BASE["vae"], **v.get("vae", {})}, "train": train}
        jobs["torch", name] = {"trial": {**v, **own}, "engine": "torch"}
    found = {}
    for size in (1, 2):
        for job, r in zip(jobs, train_on(size, list(jobs.values()), tmp_path_factory.mktemp(f"w{size}")), strict=True):
            found[size, *job] = r
    return found


def assert_same(a, b, tolerance=1e-4, epochs=3):
    assert [(r["epoch"], r["split"]) for r in a] == [(r["epoch"], r["split"]) for r in b]
    assert len(a) == 3 * epochs
    for x, y in zip(a, b, strict=True):
        for m in METRICS:
            if x.get(m) is not None:
                assert abs(x[m] - y[m]) <= tolerance * max(1.0, abs(x[m])), (x["epoch"], x["split"], m, x[m], y[m])


@pytest.mark.parametrize("name", TRIALS)
def test_two_workers_give_the_rows_of_one(rows, name):
    tolerance = 0.02 if name == "bfloat16" else 1e-4  # a shard's matrix products round differently
    assert_same(rows[1, "deepspeed", name], rows[2, "deepspeed", name], tolerance)


@pytest.mark.parametrize("name", VARIANTS)
def test_two_workers_give_the_rows_of_one_for_every_statistic_of_the_batch(rows, name):
    assert_same(rows[1, "torch", name], rows[2, "torch", name], epochs=1)


def test_bfloat16_is_close_to_float32_but_not_it(rows):
    plain, half = rows[1, "deepspeed", "plain"], rows[1, "deepspeed", "bfloat16"]
    assert_same(plain, half, 0.02)
    assert plain[-1]["distortion_nats"] != half[-1]["distortion_nats"]


@pytest.mark.parametrize("name", TRIALS)
@pytest.mark.parametrize("size", [1, 2])
def test_the_engines_give_equal_rows(rows, name, size):
    assert_same(rows[size, "torch", name], rows[size, "deepspeed", name], 1e-6)


@pytest.mark.parametrize("zero", STAGES)
@pytest.mark.parametrize("size", [1, 2])
def test_every_zero_stage_gives_the_rows_of_plain_torch(rows, zero, size):
    assert_same(rows[1, "torch", "du"], rows[size, zero, "du"])


@pytest.mark.parametrize("size", [1, 2])
def test_accumulated_gradients_give_the_rows_of_the_whole_batch(rows, size):
    assert_same(rows[1, "torch", "plain"], rows[size, "accumulated", "plain"])
