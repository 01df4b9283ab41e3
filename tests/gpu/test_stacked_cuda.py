"""Stacked trials on a GPU: recorded as a CUDA graph, step for step what they are eagerly, and what they are on the CPU."""

import math
from dataclasses import replace

import pytest
import torch

from distvae.config import loads
from distvae.training.fused import Fused
from distvae.training.graphs import WARM
from distvae.training.group import Lockstep, Setting, open_group
from distvae.training.loop import Runner
from distvae.training.world import World

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

YAML = """
data: {type: digits}
vae:
  encoder: {type: mlp, hidden: [32]}
  latent_dim: {grid: [2, 5]}
  posterior: {type: du, gamma: 0.5, p_keep: 0.8}
  prior: {type: binarized, r: {grid: [0.0, 0.5]}}
  likelihood: {type: bernoulli}
objective: {type: elbo, schedule: {type: linear, steps: 10}}
train: {epochs: 4, batch_size: 128, lr: 0.004, lr_schedule: {type: cosine, steps: 40}, clip_norm: 20.0}
evaluate: {every: 2}
"""
CUDA = Setting(world=World(device="cuda"), note=pytest.fail)


def trials(*sets):
    members = loads(YAML, sets).trials
    assert len({t.fusion_group for t in members}) == 1
    return members


def rows_of(trainer, members, setting=CUDA):
    news = Lockstep(members, trainer, setting, None, ()).advance(math.inf)
    return {k: [{n: v for n, v in r.items() if n != "wall_s"} for r in report.rows] for k, report in news.items()}


def close(a, b, tolerance):
    for x, y in zip(a, b, strict=True):
        for name in ("rate_nats", "distortion_nats", "distortion_mse", "elbo_nats", "objective"):
            assert abs(x[name] - y[name]) <= tolerance * max(1.0, abs(x[name])), (name, x[name], y[name])


def test_a_recorded_step_is_the_eager_one():
    members = trials()
    recorded, eager = Fused(members, CUDA), Fused(members, CUDA)
    graph, plain = (f._form(tuple(t.key for t in members)) for f in (recorded, eager))
    assert graph.records
    plain.records = False
    graph.stack.train()
    plain.stack.train()
    for step in range(3 * WARM):
        rows = torch.arange(128 * (step % 4), 128 * (step % 4 + 1), device="cuda")
        torch.testing.assert_close(recorded.step_on(graph, rows), eager.step_on(plain, rows), rtol=1e-5, atol=1e-4)
    for a, b in zip(graph.stack.learning, plain.stack.learning, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_stack_on_the_gpu_has_the_rows_of_the_cpu_and_of_each_trial_alone():
    members = trials("vae.prior.r=0.0")
    on_gpu = rows_of(Fused(members, CUDA), members)
    on_cpu = rows_of(Fused(members, Setting(note=pytest.fail)), members, Setting(note=pytest.fail))
    for trial in members:
        close(on_cpu[trial.key], on_gpu[trial.key], 1e-3)
        close(Runner(trial, world=CUDA.world).advance().rows, on_gpu[trial.key], 1e-3)


def test_pixels_are_binarised_on_the_device():
    members = trials(
        "data={type: mnist, binarize: dynamic, n_train: 512, n_test: 128}", "vae.latent_dim=3", "train.epochs=1"
    )
    trainer = Fused(members, CUDA)
    assert trainer.examples.x.dtype == torch.uint8 and trainer.examples.x.is_cuda
    close(rows_of(trainer, members)[members[0].key], Runner(members[0], world=CUDA.world).advance().rows, 1e-3)


def test_who_diverges_leaves_and_the_graph_is_recorded_anew():
    members = list(trials("vae.latent_dim=3", "train.clip_norm=null"))
    members[0] = replace(members[0], train=replace(members[0].train, lr=90.0))
    news = open_group(members, CUDA, stacked=True).advance(math.inf)
    assert news[members[1].key].status == "finished"
    close(Runner(members[1], world=CUDA.world).advance().rows, news[members[1].key].rows, 1e-3)
