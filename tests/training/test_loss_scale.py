"""Dynamic loss scaling: the rule is DeepSpeed's, the step torch's GradScaler's; a float16 trial is a float32 one to what
half can tell, and gradients that overflow change no weight."""

from dataclasses import replace

import pytest
import torch

from distvae.nets import Mlp
from distvae.posteriors import Du
from distvae.training.deepspeed_engine import import_deepspeed
from distvae.training.loop import Runner
from distvae.training.loss_scale import LossScale
from distvae.training.world import World, meet
from distvae.trial import Train, Trial
from distvae.vae import Model

TRIAL = Trial(
    vae=Model(encoder=Mlp(hidden=(16,)), latent_dim=3, posterior=Du(p_keep=0.7)),
    train=Train(epochs=2, batch_size=300, lr=3e-3, dtype="float16"),
)


@pytest.mark.parametrize("hysteresis", [1, 2, 3])
def test_the_scale_follows_deepspeeds_rule(hysteresis):
    import_deepspeed()
    meet(0, 1)
    from deepspeed import comm
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler

    comm.init_distributed(dist_init_required=False)
    theirs = DynamicLossScaler(2.0**8, 3, 2.0, hysteresis, False, raise_error_at_min_scale=False)
    options = {"initial_scale_power": 8, "loss_scale_window": 3, "hysteresis": hysteresis, "min_loss_scale": 2}
    ours, p = LossScale(options, World()), torch.zeros(2, requires_grad=True)
    sgd = torch.optim.SGD([p], lr=1.0)
    ours.guard(sgd, None, sharded=False)
    draws = torch.rand(300, generator=torch.Generator().manual_seed(1)).tolist()
    seen = set()
    for i, u in enumerate(draws):
        overflow = u < (0.1, 0.6, 0.9)[i // 100]
        p.grad = torch.full((2,), torch.inf if overflow else 1.0)
        sgd.step()
        ours.settle()
        theirs.update_scale(overflow)
        assert ours.value == theirs.cur_scale, i
        seen.add(ours.value)
    assert ours.lost and min(seen) == 2.0 and max(seen) > 2.0**8


@pytest.mark.parametrize("clip", [None, 0.5])
def test_a_step_is_that_of_torchs_grad_scaler(clip):
    weights = [torch.randn(5, 3, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    x = torch.randn(40, 8, 3, generator=torch.Generator().manual_seed(9))
    x[[4, 17, 18]] *= 1e38  # their gradients overflow float32
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**6, growth_interval=10**6)
    theirs = [w.clone().requires_grad_() for w in weights]
    adam = torch.optim.Adam(theirs, lr=0.1)
    ours = [w.clone().requires_grad_() for w in weights]
    guarded = torch.optim.Adam(ours, lr=0.1)
    scale = LossScale({"initial_scale_power": 6, "hysteresis": 1, "loss_scale_window": 10**6}, World())
    scale.guard(guarded, clip, sharded=False)

    def loss(w, x):
        return (x @ w[0].T).tanh().square().mean() + (x @ w[1].T).square().mean()

    for batch in x:
        adam.zero_grad()
        scaler.scale(loss(theirs, batch)).backward()
        if clip is not None:
            scaler.unscale_(adam)
            torch.nn.utils.clip_grad_norm_(theirs, clip)
        scaler.step(adam)
        scaler.update()
        guarded.zero_grad()
        scale.scaled(loss(ours, batch)).backward()
        guarded.step()
        scale.settle()
        assert scale.value == scaler.get_scale()
    assert scale.value == 2.0**3
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def rows_of(dtype, engine="torch", **fp16):
    trial = replace(TRIAL, train=replace(TRIAL.train, dtype=dtype))
    runner = Runner(trial, world=meet(0, 1), engine=engine, deepspeed={"fp16": fp16})
    runner.advance()
    runner.close()
    return runner


def test_float16_is_close_to_float32_but_not_it():
    single, half = rows_of("float32"), rows_of("float16", initial_scale_power=10)
    for a, b in zip(single.rows, half.rows, strict=True):
        for m in ("rate_nats", "distortion_nats", "objective"):
            assert a[m] == pytest.approx(b[m], rel=5e-3)
    assert single.rows[-1]["distortion_nats"] != half.rows[-1]["distortion_nats"]
    assert all(v.dtype == torch.float32 for v in half.vae.parameters())


@pytest.mark.parametrize("engine", ["torch", "deepspeed"])
def test_an_overflow_moves_nothing_but_the_scale(engine):
    runner = Runner(TRIAL, world=meet(0, 1), engine=engine, deepspeed={"fp16": {"initial_scale_power": 32}})
    before = {k: v.clone() for k, v in runner.vae.named_parameters()}
    moved = []
    for _ in range(5):
        runner.advance(0)
        moved.append(any(not torch.equal(v, before[k]) for k, v in runner.vae.named_parameters()))
        if not moved[-1]:
            assert runner.engine.scale.value == 2.0 ** (33 - len(moved) if len(moved) > 1 else 32)  # hysteresis 2
    assert moved[0] is False and runner.step_count == 5  # the data go on
    runner.close()


def test_gradients_that_overflow_at_the_least_scale_are_a_divergence():
    runner = rows_of("float16", initial_scale_power=32, min_loss_scale=2**32)
    assert runner.status == "diverged" and runner.epoch == 1
