"""The native back ends in float32 against the reference in float64 (which has oracles), on 25 random shapes, none a
multiple of a tile but by chance, with every regime of posterior."""

import random

import pytest
import torch
from backends import select
from cases import agree, logvars, means, randn

from distvae.kernels import gaussian_mixture_kl, log_density, log_marginals, sample_kl

NATIVE = pytest.mark.parametrize("name", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
SIZES = (1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 70)


def posteriors(rng, k, b, d, seed):
    if rng.random() < 0.3:
        return means(k, b, d, seed=seed), logvars(k, b, d, seed=seed)
    spread, level, scatter = rng.choice((0.1, 1.0, 10.0)), rng.choice((-6.0, -2.0, 0.0, 4.0)), rng.choice((0.3, 1.0))
    return spread * randn(k, b, d, seed=seed), level + scatter * randn(k, b, d, seed=seed + 1)


def compare(f, device, *tensors):
    """`f(device, *tensors)` and its gradients there, float32, and in float64 with the reference."""
    answers = []
    for where, dtype in ((device, torch.float32), ("cpu", torch.float64)):  # float64 takes the reference
        leaves = [x.to(where, dtype).requires_grad_() for x in tensors]
        out = f(*leaves)
        out = out if isinstance(out, tuple) else (out,)
        loss = sum((x * randn(*x.shape, seed=5 + i).to(x)).sum() for i, x in enumerate(out))
        answers.append((*out, *torch.autograd.grad(loss, leaves)))
    for mine, wanted in zip(*answers, strict=True):
        agree(mine, wanted)


@NATIVE
@pytest.mark.parametrize("density", [log_density, log_marginals])
def test_densities(name, density, monkeypatch):
    device = select(name, monkeypatch)
    for seed in range(25):
        rng = random.Random(seed)
        k, n, m, d = rng.choice((1, 3)), *(rng.choice(SIZES) for _ in range(3))
        mu, logvar = posteriors(rng, k, m, d, seed)
        own, off = torch.arange(n) % m, rng.choice((0.5, 1.0, 10.0, 300.0))
        z = mu[:, own] + off * (0.5 * logvar[:, own]).exp() * randn(k, n, d, seed=seed + 2)
        size = rng.choice((m, 1000))
        choices = [{}, {"sampling": "weighted", "dataset_size": size}]
        if m > 1 and n <= m:
            offset = rng.randrange(m - n + 1)
            choices += [{"sampling": "stratified", "dataset_size": size, "offset": offset}]
            choices += [{"exclude_self": True, "offset": offset}]
        more = rng.choice(choices)
        compare(lambda *x, more=more: density(*x, **more), device, z, mu, logvar)


@NATIVE
def test_the_mixtures_kl(name, monkeypatch):
    device = select(name, monkeypatch)
    for seed in range(25):
        rng = random.Random(seed)
        k, b, d = rng.choice((1, 3)), rng.choice(SIZES), rng.choice(SIZES)
        r = torch.tensor([rng.choice((0.0, 0.01, 0.1, 0.5, 1.5, 2.0, 5.0)) for _ in range(k)])
        compare(lambda m, lv, r=r: gaussian_mixture_kl(m, lv, r.to(m)), device, *posteriors(rng, k, b, d, seed))


@NATIVE
def test_sample_kl(name, monkeypatch):
    device = select(name, monkeypatch)
    for seed in range(25):
        rng = random.Random(seed)
        k, b, d = rng.choice((1, 3)), rng.choice(SIZES), rng.choice(SIZES)
        each = {"r": torch.tensor([rng.choice((0.0, 0.5, 2.0)) for _ in range(k)])}
        each["p_keep"] = torch.tensor([rng.choice((1.0, 1.0, 0.7, 0.1)) for _ in range(k)])
        each["floor"] = torch.where(each["p_keep"] < 1, 0.0585, 0.0)

        def call(mu, logvar, each=each, seed=seed, b=b):
            moved = {name: x.to(mu) for name, x in each.items()}
            return sample_kl(mu, logvar, seed=seed, step=seed, index=torch.arange(b, device=mu.device) + seed, **moved)

        compare(call, device, *posteriors(rng, k, b, d, seed))
