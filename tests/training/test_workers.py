"""One trial on two workers gives the rows of one worker, and DeepSpeed's those of plain torch: every ZeRO stage, offload,
half precision, interruptions, whatever looks at the whole batch; with an uneven last batch (1437 examples, 1437 mod 200 =
37, odd)."""

import os

import pytest
from ranks import train_on
from safetensors.torch import load_file

pytestmark = pytest.mark.timeout(1800)
BASE = {"train": {"epochs": 2, "batch_size": 200}, "vae": {"encoder": {"type": "mlp", "hidden": [32]}, "latent_dim": 5}}
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


def zero(stage, **options):
    """A block of this stage. Stage 3 cuts every weight: by default it would leave a small VAE whole."""
    cut = {"stage3_param_persistence_threshold": 0} if stage == 3 else {}
    return {"zero_optimization": {"stage": stage, **cut, **options}}


CPU = {"device": "cpu"}
STAGES = {
    "zero1": zero(1),
    "zero2 offloaded": zero(2, offload_optimizer=CPU),
    "zero3 offloaded": zero(3, offload_optimizer=CPU, offload_param=CPU),
}
SLOW_STAGES = {
    "zero0": zero(0),
    "zero1 offloaded": zero(1, offload_optimizer=CPU),
    "zero2": zero(2),
    "zero3": zero(3),
    "zero3 in small pieces": zero(3, sub_group_size=100, offload_optimizer=CPU),
    "zero3, small weights whole": {"zero_optimization": {"stage": 3}},
}
SCALED = {"fp16": {"initial_scale_power": 18, "hysteresis": 1, "loss_scale_window": 100}}  # overflows first
HALVES = {"torch": {}, "zero3": zero(3)}
SLOW_HALVES = {
    "zero0": zero(0),
    "zero1": zero(1),
    "zero3 in small pieces": SLOW_STAGES["zero3 in small pieces"],
    "zero2 offloaded": zero(2, offload_optimizer=CPU),
}
WHOLE_BATCH = {"wae": 3, "tcvae": 2, "by label": 3}  # at this ZeRO stage; all of them at all, slow
SLOW_BATCH = (*VARIANTS, "optimal sigma", "learned sigma", "batch capacity")


def variant(name, epochs=1):
    v = {**TRIALS, **VARIANTS}[name]
    train = {**BASE["train"], **v.get("train", {}), "epochs": epochs}
    return {**v, "vae": {**BASE["vae"], **v.get("vae", {})}, "train": train}


def deepspeed(trial, block, **more):
    return {"trial": trial, "engine": "deepspeed", "deepspeed": block, **more}


HALF_DU = {**TRIALS["du"], "train": {**BASE["train"], "dtype": "float16"}}


def launch(jobs, tmp):
    """(workers, *job) -> rows. Two launches for everything: start-up dominates."""
    found, before = {}, os.environ.get("TORCH_EXTENSIONS_DIR")
    os.environ["TORCH_EXTENSIONS_DIR"] = str(tmp / "compiled")
    try:
        for size in (1, 2):
            folder = tmp / f"w{size}"
            folder.mkdir()
            placed = [
                {**job, **({"folder": str(folder / "-".join(k))} if "stops" in job else {})} for k, job in jobs.items()
            ]
            for k, rows in zip(jobs, train_on(size, placed, folder), strict=True):
                found[size, *k] = rows
    finally:
        os.environ.pop("TORCH_EXTENSIONS_DIR")
        if before is not None:
            os.environ["TORCH_EXTENSIONS_DIR"] = before
    assert not (tmp / "compiled").exists()  # DeepSpeed compiles nothing, whatever is asked of it
    return found


@pytest.fixture(scope="module")
def tmp(tmp_path_factory):
    return tmp_path_factory.mktemp("workers")


@pytest.fixture(scope="module")
def rows(tmp):
    jobs = {("torch", name): {"trial": t, "engine": "torch"} for name, t in TRIALS.items()}
    jobs |= {("deepspeed", name): {"trial": t, "engine": "deepspeed"} for name, t in TRIALS.items()}
    jobs["accumulated", "plain"] = deepspeed(TRIALS["plain"], {"gradient_accumulation_steps": 3})
    for name in VARIANTS:
        jobs["torch", name] = {"trial": variant(name), "engine": "torch"}
    for name, block in STAGES.items():
        jobs[name, "du"] = deepspeed(TRIALS["du"], block)
    for name, block in HALVES.items():
        jobs[name, "half"] = {
            **deepspeed(HALF_DU, {**block, **SCALED}),
            **({"engine": "torch"} if name == "torch" else {}),
        }
    for name, stage in WHOLE_BATCH.items():
        jobs["whole batch", name] = deepspeed(variant(name), zero(stage))
    jobs["zero3 offloaded", "stopped"] = deepspeed(TRIALS["du"], STAGES["zero3 offloaded"], stops=7)
    return launch(jobs, tmp)


@pytest.fixture(scope="module")
def slow_rows(tmp):
    jobs = {(name, "du"): deepspeed(TRIALS["du"], block) for name, block in SLOW_STAGES.items()}
    for name, block in SLOW_HALVES.items():
        jobs[name, "half"] = deepspeed(HALF_DU, {**block, **SCALED})
    jobs |= {("torch", name): {"trial": variant(name), "engine": "torch"} for name in SLOW_BATCH}
    for stage in (2, 3):
        jobs |= {(f"stage {stage}", name): deepspeed(variant(name), zero(stage)) for name in SLOW_BATCH}
    for name, block in {**STAGES, **SLOW_STAGES}.items():
        jobs[name, "stopped"] = deepspeed(TRIALS["du"], block, stops=4)
        jobs[name, "half stopped"] = deepspeed(HALF_DU, {**block, **SCALED}, stops=5)
    jobs["accumulated", "plain"] = deepspeed(TRIALS["plain"], {"gradient_accumulation_steps": 3})
    jobs["accumulated", "stopped"] = deepspeed(TRIALS["plain"], {"gradient_accumulation_steps": 3, **zero(2)}, stops=4)
    (tmp / "slow").mkdir()
    return launch(jobs, tmp / "slow")


METRICS = ("rate_nats", "distortion_nats", "distortion_mse", "elbo_nats", "objective", "rate_se")


def assert_same(a, b, tolerance=1e-4, epochs=2):
    assert [(r["epoch"], r["split"]) for r in a] == [(r["epoch"], r["split"]) for r in b]
    assert len(a) == 3 * epochs
    for x, y in zip(a, b, strict=True):
        for m in METRICS:
            if x.get(m) is not None:
                assert abs(x[m] - y[m]) <= tolerance * max(1.0, abs(x[m])), (x["epoch"], x["split"], m, x[m], y[m])


@pytest.mark.parametrize("name", TRIALS)
def test_two_workers_give_the_rows_of_one(rows, name):
    tolerance = 5e-3 if name == "bfloat16" else 1e-4  # a shard's matrix products round differently
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


@pytest.mark.parametrize("size", [1, 2])
def test_accumulated_gradients_give_the_rows_of_the_whole_batch(rows, size):
    assert_same(rows[1, "torch", "plain"], rows[size, "accumulated", "plain"])


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("size", [1, 2])
def test_every_zero_stage_gives_the_rows_of_plain_torch(rows, stage, size):
    assert_same(rows[1, "torch", "du"], rows[size, stage, "du"])


@pytest.mark.slow
@pytest.mark.parametrize("stage", SLOW_STAGES)
@pytest.mark.parametrize("size", [1, 2])
def test_every_other_zero_stage_does(rows, slow_rows, stage, size):
    assert_same(rows[1, "torch", "du"], slow_rows[size, stage, "du"])


@pytest.mark.parametrize("name", WHOLE_BATCH)
@pytest.mark.parametrize("size", [1, 2])
def test_statistics_of_the_batch_are_global_under_zero(rows, name, size):
    assert_same(rows[1, "torch", name], rows[size, "whole batch", name], epochs=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_BATCH)
@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize("size", [1, 2])
def test_every_variant_is_the_same_under_every_stage(slow_rows, stage, name, size):
    assert_same(slow_rows[1, "torch", name], slow_rows[size, f"stage {stage}", name], epochs=1)


@pytest.mark.parametrize("engine", HALVES)
def test_float16_gives_the_rows_of_one_worker_and_of_torch(rows, engine):
    assert_same(rows[1, "torch", "half"], rows[1, engine, "half"], 1e-6)
    assert_same(rows[1, "torch", "half"], rows[2, engine, "half"], 5e-3)


@pytest.mark.slow
@pytest.mark.parametrize("engine", SLOW_HALVES)
def test_float16_does_with_every_other_stage(rows, slow_rows, engine):
    assert_same(rows[1, "torch", "half"], slow_rows[1, engine, "half"], 1e-6)
    assert_same(rows[1, "torch", "half"], slow_rows[2, engine, "half"], 5e-3)


def assert_taken_up(whole, stopped, folder):
    """Bit for bit, on any number of workers; and the weights left behind are whole."""
    assert [{**r, "wall_s": 0} for r in whole] == [{**r, "wall_s": 0} for r in stopped]
    weights = load_file(folder / "model.safetensors")
    assert weights["encoder.1.weight"].shape == (32, 64) and weights["encoder.1.weight"].abs().min() > 0


@pytest.mark.parametrize("size", [1, 2])
def test_a_gang_that_is_stopped_goes_on_where_it_was(rows, tmp, size):
    name = "zero3 offloaded"
    assert_taken_up(rows[size, name, "du"], rows[size, name, "stopped"], tmp / f"w{size}" / f"{name}-stopped")


@pytest.mark.slow
@pytest.mark.parametrize("name", {**STAGES, **SLOW_STAGES})
@pytest.mark.parametrize("size", [1, 2])
def test_a_gang_of_any_stage_does(rows, slow_rows, tmp, name, size):
    every = {**slow_rows, **rows}
    assert_taken_up(
        every[size, name, "du"], slow_rows[size, name, "stopped"], tmp / "slow" / f"w{size}" / f"{name}-stopped"
    )
    if (size, name, "half") in every:
        half = tmp / "slow" / f"w{size}" / f"{name}-half stopped"
        assert_taken_up(every[size, name, "half"], slow_rows[size, name, "half stopped"], half)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2])
def test_accumulation_is_stopped_between_optimizer_steps(slow_rows, size):
    assert_same(slow_rows[size, "accumulated", "plain"], slow_rows[size, "accumulated", "stopped"])
