"""What must not move a bit: how many trials run together, in which slot, who holds the example, the other rows, the
number of threads, a second run. Within one back end."""

import pytest
import torch
from backends import select
from cases import logvars, means, randn, same_bits, strided

from distvae.kernels import gaussian_mixture_kl, log_density, log_marginals, sample_kl

K, B, D = 5, 37, 33
DENSITIES = pytest.mark.parametrize("density", [log_density, log_marginals])


def with_gradients(f, *tensors):
    """(outputs, gradients of them weighted by where they are) of a function of float tensors."""
    leaves = [x.detach().clone().requires_grad_() for x in tensors]
    out = f(*leaves)
    out = out if isinstance(out, tuple) else (out,)
    grads = torch.autograd.grad(sum((x * (0.1 + x.detach().sin())).sum() for x in out), leaves)
    return *(x.detach() for x in out), *grads


@pytest.fixture
def sampled(back_end):
    """(mu, logvar, index, per-trial arguments) and a call of sample_kl, with gradients, on parts of them."""
    mu, logvar = (x.to(back_end) for x in (means(K, B, D), logvars(K, B, D)))
    mu[0], logvar[0] = 1e-4 * mu[0], 1e-4 * logvar[0]
    index = (torch.arange(B) * 7 + 2**33).to(back_end)
    each = {
        "seed": torch.tensor([3, 3, -1, 2**40, 5]),
        "step": torch.tensor([0, 1, 0, 7, 7]),
        "r": torch.tensor([0.0, 0.5, 0.0, 2.0, 0.1]),
        "p_keep": torch.tensor([1.0, 1.0, 0.5, 0.9, 0.1]),
        "floor": torch.tensor([0.0, 0.0, 0.1, 0.0585, 1e-3]),
        "mask": torch.rand(K, D, generator=torch.Generator().manual_seed(0)) < 0.8,
    }
    each = {name: x.to(back_end) for name, x in each.items()}

    def call(trials, rows, dims=slice(None)):
        arguments = {name: x[trials] for name, x in each.items()}
        if dims != slice(None):
            arguments["mask"] = arguments["mask"][..., dims]
        part = mu[trials][..., rows, :][..., dims], logvar[trials][..., rows, :][..., dims]
        return with_gradients(lambda m, lv: sample_kl(m, lv, index=index[rows], **arguments), *part)

    return call


ALL = slice(None)


def test_sample_kl_of_one_trial_is_that_of_many(sampled):
    whole = sampled(ALL, ALL)
    for k in range(K):
        for single, many in zip(sampled(k, ALL), whole, strict=True):  # [B, D], hyper-parameters []
            same_bits(single, many[k])
    for order in ([4, 2, 0, 1, 3], [1, 1], [3]):
        for other, many in zip(sampled(order, ALL), whole, strict=True):
            same_bits(other, many[order])


def test_sample_kl_of_a_shard_is_that_of_the_batch(sampled):
    whole = sampled(ALL, ALL)
    generator = torch.Generator().manual_seed(1)
    for rows in ([0], [36], [5, 5, 2], list(range(1, 37, 2)), torch.randperm(B, generator=generator).tolist()):
        for part, many in zip(sampled(ALL, rows), whole, strict=True):
            same_bits(part, many[:, rows])


@pytest.mark.parametrize("d", [1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32])
def test_sample_kl_of_fewer_dimensions_is_a_part_of_that_of_more(sampled, d):
    for part, many in zip(sampled(ALL, ALL, slice(0, d)), sampled(ALL, ALL), strict=True):
        same_bits(part, many[..., :d])


def test_the_mixtures_kl_is_that_of_its_elements(back_end):
    mu, logvar = means(K, B, D).to(back_end), logvars(K, B, D).to(back_end)
    r = torch.tensor([0.0, 0.1, 0.5, 2.0, 20.0], device=back_end)

    def call(k, rows, d):
        return with_gradients(lambda m, lv: gaussian_mixture_kl(m, lv, r[k]), mu[k, rows, :d], logvar[k, rows, :d])

    whole = call(ALL, ALL, D)
    for k, rows, d in ((0, [3], 33), (1, [0, 36], 1), (2, list(range(20)), 7), (3, [1, 2, 3], 5), (4, ALL, 32)):
        for alone, many in zip(call(k, rows, d), (x[k, rows, :d] for x in whole), strict=True):
            same_bits(alone, many)


def aggregated(device, n=70, m=131, d=9):
    """[K, N, D], two of [K, M, D]: usual trials, one of every size, one far away."""
    mu, logvar = randn(K, m, d, seed=1), randn(K, m, d, seed=2) - 1.0
    mu[1], logvar[1] = means(m, d, seed=3), logvars(m, d, seed=3)
    z = mu[:, :n] + (0.5 * logvar[:, :n]).exp() * randn(K, n, d, seed=4)
    z[2] += 1000.0
    return [x.to(device) for x in (z, mu, logvar)]


@DENSITIES
def test_a_trials_density_is_its_own(back_end, density):
    z, mu, logvar = aggregated(back_end)
    more = {"sampling": "stratified", "dataset_size": 1000}
    whole = with_gradients(lambda *a: density(*a, **more), z, mu, logvar)
    for k in range(K):
        for single, many in zip(
            with_gradients(lambda *a: density(*a, **more), z[k], mu[k], logvar[k]), whole, strict=True
        ):
            same_bits(single, many[k])
    order = [4, 2, 0]
    for other, many in zip(
        with_gradients(lambda *a: density(*a, **more), z[order], mu[order], logvar[order]), whole, strict=True
    ):
        same_bits(other, many[order])


@DENSITIES
def test_a_rows_density_is_its_own(back_end, density):
    z, mu, logvar = aggregated(back_end)
    out, dz, _, _ = with_gradients(density, z, mu, logvar)
    for rows in ([0], [69], [3, 3, 1], list(range(0, 70, 3)), list(range(69, -1, -1))):
        a, b, _, _ = with_gradients(density, z[:, rows], mu, logvar)
        same_bits(a, out[:, rows])
        same_bits(b, dz[:, rows])
    shard = density(z[:, 40:65], mu, logvar, exclude_self=True, offset=40)
    same_bits(shard, density(z, mu, logvar, exclude_self=True)[:, 40:65])


def test_a_dimensions_marginal_is_its_own(back_end):
    z, mu, logvar = aggregated(back_end)
    whole = with_gradients(log_marginals, z, mu, logvar)
    for dims in ([0], [8], [1, 5, 2], list(range(8))):
        part = with_gradients(log_marginals, *(x[..., dims] for x in (z, mu, logvar)))
        for a, b in zip(part, whole, strict=True):
            same_bits(a, b[..., dims])


@pytest.mark.parametrize("f", [log_density, log_marginals, gaussian_mixture_kl, sample_kl])
def test_threads_and_repetitions_change_nothing(back_end, f):
    def run():
        if f in (log_density, log_marginals):
            return with_gradients(f, *aggregated(back_end, n=65, m=100))
        mu, logvar = means(K, 100, 33).to(back_end), logvars(K, 100, 33).to(back_end)
        if f is gaussian_mixture_kl:
            return with_gradients(lambda m, lv: f(m, lv, 0.5), mu, logvar)
        index = torch.arange(100, device=back_end)
        return with_gradients(lambda m, lv: f(m, lv, seed=1, step=0, index=index, p_keep=0.5, floor=0.1), mu, logvar)

    runs = []
    torch.use_deterministic_algorithms(True)
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            runs.append(run())
    finally:
        torch.use_deterministic_algorithms(False)
    for other in runs[1:]:
        for a, b in zip(runs[0], other, strict=True):
            same_bits(a, b)


@DENSITIES
@pytest.mark.parametrize("name", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_strides_change_nothing(name, density, monkeypatch):
    args = aggregated(select(name, monkeypatch))
    scattered = with_gradients(lambda *x: density(*map(strided, x)), *args)
    for a, b in zip(with_gradients(density, *args), scattered, strict=True):
        same_bits(a, b)
