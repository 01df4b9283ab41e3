"""Every part of every union, in a trial of its own (conformance.py): it trains on CPU in float32 and bfloat16, its
gradients are those of finite differences, its YAML is itself, a step lowers its loss, and the bound it reports is one."""

import math
from dataclasses import replace
from functools import cache
from typing import get_args

import numpy as np
import pytest
import torch
from conformance import ALL, CASES, DATA, UNIONS, members
from torch.autograd import gradcheck

from distvae.batch import Batch, Noise
from distvae.config import adapter, loads
from distvae.estimators import Enumerate, Pathwise
from distvae.kernels.philox import Stream
from distvae.menu import FAMILIES
from distvae.part import Part, knobs
from distvae.priors import Binarized
from distvae.rules import refusals
from distvae.sweeps.tree import dump
from distvae.training.group import Setting, open_group
from distvae.training.loop import Runner
from distvae.trial import Trial
from distvae.vae import Model, Vae

F = torch.float64
every = pytest.mark.parametrize("name", ALL)


def test_the_cases_are_every_part_of_every_union():
    for family, union in UNIONS.items():
        seen = {type(getattr(t.vae, family, None) or t.objective) for t in CASES.values() if family != "net"}
        seen |= {type(t.vae.encoder) for t in CASES.values()} if family == "net" else set()
        assert set(members(union)) <= seen, family
    tested_elsewhere = ("data", "schedules", "samplers", "search", "metrics", "feature nets")
    unions = {n: u for n, u in FAMILIES.items() if get_args(u) and not n.startswith(tested_elsewhere)}
    assert all(u in UNIONS.values() for u in unions.values()), unions.keys()
    assert not [(name, why) for name, t in CASES.items() for why in refusals(t)]


# --- it trains --------------------------------------------------------------------------------------------------------


@cache
def trained(name: str, dtype: str = "float32") -> tuple[Runner, list]:
    trial = CASES[name]
    runner = Runner(replace(trial, train=replace(trial.train, dtype=dtype)))
    report = runner.advance()
    assert report.status == "finished"
    return runner, report.rows


@every
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_trains_and_its_rows_are_complete(name, dtype):
    runner, rows = trained(name, dtype)
    model, grid = runner.trial.vae, runner.trial.objective.grid()
    assert len(rows) == 3 * len(grid)
    for row in rows:
        assert math.isfinite(row["objective"]) and math.isfinite(row["distortion_mse"])
        bound = row.get("elbo_nats")
        assert (bound is not None) == model.bound  # null exactly where there is no valid bound
        if bound is not None:
            assert bound == pytest.approx(-row["rate_nats"] - row["distortion_nats"], rel=1e-12)
            assert row["rate_nats"] > -1.0  # Monte Carlo of something that is at least 0
        assert (row["rate_surrogate_nats"] is not None) == (model.prior.surrogate and model.posterior.density)
    for parameter in runner.vae.parameters():
        assert parameter.isfinite().all() and parameter.dim() > 0  # DeepSpeed cannot broadcast a 0-d one


@every
def test_it_diverges_without_an_error(name):
    """lr = 100: a diverged trial is a result, whatever NaN meets on its way through a part."""
    trial = CASES[name]
    wild = replace(trial.train, optimizer="sgd", lr=100.0, epochs=3)
    runner = Runner(replace(trial, train=wild, evaluate=replace(trial.evaluate, gradient_draws=2)))
    assert runner.advance().status in ("diverged", "finished")


# --- its gradients ----------------------------------------------------------------------------------------------------


def a_batch(trial: Trial, n: int, *, samples: int, rows: slice = slice(None)) -> Batch:
    split = runner_data(trial)
    x = torch.from_numpy(split.x[:n].astype(np.float64) / 255)
    noise = Noise(3, 1, split.index[:n])
    beta = None if trial.vae.conditioning is None else torch.linspace(0.2, 4.0, n, dtype=F)
    y = torch.from_numpy(split.y[:n])
    return Batch(x=x, y=y, noise=noise, total=n, samples=samples, beta=beta, dataset=4 * n, step=1)


def runner_data(trial: Trial):
    from distvae.data import load

    return load(trial.data).train


@every
def test_its_gradients_are_those_of_finite_differences(name):
    """Of the loss, in every parameter where the estimator is the derivative of a value; else in those behind z."""
    trial = CASES[name]
    vae, objective = Vae(trial.vae, (1, 8, 8), seed=1, dtype=F), trial.objective.build().to(F)
    batch, model = a_batch(trial, 3, samples=2), trial.vae
    estimator = model.gradient()
    exact = estimator.type in ("pathwise", "enumerate") or (estimator.type == "gumbel_softmax" and not estimator.hard)
    if model.posterior.space == "sphere":
        exact = False  # its velocity field is exact in expectation only (tests/posteriors)
    inside = ("decoder", "likelihood", *(("encoder", "posterior", "prior") if exact else ()))
    learned = [p for n, p in vae.named_parameters() if p.requires_grad and n.startswith(inside)]
    assert learned

    def loss(*_):
        return objective(vae(batch), batch).sum()

    assert gradcheck(loss, learned, atol=1e-5, rtol=1e-3, fast_mode=True)


# --- its YAML ---------------------------------------------------------------------------------------------------------


@every
def test_its_yaml_is_itself(name):
    trial = CASES[name]
    config = {k: v for k, v in trial.config().items() if k != "seed"}
    (again,) = loads(dump(config)).trials
    assert again == trial and again.key == trial.key


@pytest.mark.parametrize("part", DATA, ids=lambda part: part.type)
def test_a_data_parts_yaml_is_itself(part):
    from distvae.config import trial_from_data

    trial = Trial(data=part)
    assert trial_from_data(trial.config()) == trial


# --- a step lowers its loss -------------------------------------------------------------------------------------------


@every
def test_a_step_along_its_gradient_lowers_its_loss(name):
    """The loss before and after is exact (enumerated) or on one fixed draw; the step is the estimator's own."""
    trial = CASES[name]
    model = trial.vae
    vae, objective = Vae(model, (1, 8, 8), seed=1, dtype=F), trial.objective.build().to(F)
    exact = Enumerate() if model.posterior.space in ("bits", "onehot") else Pathwise()
    judge = Vae(replace(model, estimator=exact), (1, 8, 8), seed=1, dtype=F)
    batch = a_batch(trial, 32, samples=64)
    objective(vae(batch), batch).mean().backward()
    learned = {n: p for n, p in vae.named_parameters() if p.grad is not None}
    norm = torch.stack([p.grad.square().sum() for p in learned.values()]).sum().sqrt()
    assert norm > 0

    @torch.no_grad()
    def loss_after(size: float) -> float:
        judge.load_state_dict(vae.state_dict())
        for n, p in judge.named_parameters():
            if n in learned:
                p -= size * learned[n].grad / norm
        return float(objective(judge(batch), batch).mean())

    assert loss_after(0.03) < loss_after(0.0)


# --- its bound is one -------------------------------------------------------------------------------------------------

EXAMPLES, SAMPLES = 4, 5000


@torch.no_grad()
@torch.no_grad()
def bounds(vae: Vae, model: Model, trial: Trial, beta: float | None) -> tuple[np.ndarray, ...]:
    """Per example: the reported -(rate + distortion), what it would be with the surrogate, the importance-weighted log
    p(x), and the standard error of their difference. Densities come from the parts, the weighting from here."""
    vae.eval()
    full = a_batch(trial, EXAMPLES, samples=SAMPLES)
    log_w, told, surrogate, spread = [], [], [], []
    for i in range(EXAMPLES if model.likelihood.width((1, 8, 8)) < 1000 else 1):
        at = None if beta is None else torch.full((1,), beta)
        noise = Noise(7, 0, full.noise.index[i : i + 1], Stream.EVALUATE)
        batch = Batch(
            x=full.x[i : i + 1].to(vae.dtype), y=full.y[i : i + 1], noise=noise, total=1, samples=SAMPLES, beta=at
        )
        m = vae.measure(batch)
        told.append(float(-(m.rate + m.distortion)))
        surrogate.append(float(-(m.divergence.sum() + m.distortion)))
        q, p, x = vae._infer(batch)
        z = q.rsample(noise, SAMPLES)
        y = [vae._generate(some, at) for some in z.split(500, 1)]
        nll = torch.cat([vae.likelihood.nll(some, x, batch).double() for some in y], 1)[0]
        log_w.append(p.log_prob(z.double())[0] - q.double().log_prob(z.double())[0] - nll)
        w = (log_w[-1] - log_w[-1].max()).exp()
        spread.append(float((log_w[-1].var() / SAMPLES + w.var() / SAMPLES / w.mean().square()).sqrt()))
    iw = [float(torch.logsumexp(v, 0) - math.log(SAMPLES)) for v in log_w]
    return np.array(told), np.array(surrogate), np.array(iw), np.array(spread)


@pytest.mark.parametrize("name", [n for n in ALL if CASES[n].vae.bound])
def test_its_bound_is_below_the_importance_weighted_likelihood(name):
    runner, _ = trained(name)
    for beta in runner.trial.objective.grid():
        told, _, iw, spread = bounds(runner.vae, runner.trial.vae, runner.trial, beta)
        assert (told <= iw + 4 * spread + 1e-6 * np.abs(iw)).all(), (told, iw, spread)


def test_that_check_sees_a_surrogate():
    """A binarized VAE whose posterior sits on a mode: the nearest-mode KL would report more than log p(x)."""
    trial = replace(CASES["prior-normal"], vae=replace(CASES["prior-normal"].vae, prior=Binarized(r=4.0)))
    runner = Runner(replace(trial, train=replace(trial.train, epochs=30, lr=1e-2)))
    runner.advance()
    told, surrogate, iw, spread = bounds(runner.vae, trial.vae, trial, None)
    assert (told <= iw + 4 * spread).all()
    assert (surrogate > iw + 4 * spread).all()


# --- the same on a GPU ------------------------------------------------------------------------------------------------


def a_step(name: str, device: str) -> list[torch.Tensor]:
    """Loss and gradients in float64."""
    trial = CASES[name]
    vae = Vae(trial.vae, (1, 8, 8), seed=1, dtype=F).to(device)
    objective = trial.objective.build().to(device, F)
    batch = a_batch(trial, 8, samples=2)
    batch = replace(batch, x=batch.x.to(device), y=batch.y.to(device))
    batch = batch if batch.beta is None else replace(batch, beta=batch.beta.to(device))
    loss = objective(vae(batch), batch).mean()
    loss.backward()
    return [loss.detach().cpu(), *(p.grad.cpu() for p in vae.parameters() if p.grad is not None)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@every
def test_a_step_on_a_gpu_is_that_of_the_cpu(name):
    on_cpu, on_gpu = a_step(name, "cpu"), a_step(name, "cuda")
    assert len(on_cpu) == len(on_gpu) > 2
    for a, b in zip(on_cpu, on_gpu, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


# --- it can be stacked ------------------------------------------------------------------------------------------------


def moved(part: Part) -> Part:
    """The part with every float that may differ between stacked trials moved a little."""
    for f, _, hyper in knobs(type(part)):
        value = getattr(part, f.name)
        if isinstance(value, Part):
            part = replace(part, **{f.name: moved(value)})
        elif isinstance(value, float) and not hyper.static:
            for other in (0.9 * value + 0.01, 0.9 * value, 1.1 * value):
                try:
                    changed = replace(part, **{f.name: other})
                    adapter(type(part)).validate_python(changed.__dict__)
                except ValueError:
                    continue
                part = changed
                break
    return part


@every
def test_it_is_itself_in_a_stack_beside_another(name):
    """Its float knobs reach the mathematics as tensors, and nothing in it asks a tensor for a number, or else says so
    (`Hyper(static=True)`)."""
    runner, rows = trained(name)
    trial = runner.trial
    other = replace(trial, vae=moved(trial.vae), objective=moved(trial.objective), train=moved(trial.train), seed=1)
    assert other.fusion_group == trial.fusion_group
    group = open_group([other, trial], Setting(note=pytest.fail), stacked=True)
    news = group.advance(math.inf)
    for expected, stacked in ((rows, news[trial.key].rows), (Runner(other).advance().rows, news[other.key].rows)):
        for a, b in zip(expected, stacked, strict=True):
            for column in ("rate_nats", "rate_surrogate_nats", "distortion_nats", "distortion_mse", "objective"):
                value = a.get(column)
                assert b.get(column) == (value and pytest.approx(value, rel=1e-5, abs=1e-6)), column
