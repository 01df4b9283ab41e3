"""log_density and log_marginals against the whole N x M x D array: scipy for the values, autograd for the gradients."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import oracles
import pytest
import torch
from cases import agree, logvars, means, randn, same_bits, strided
from torch.distributions import Categorical, MixtureSameFamily, Normal

from distvae.kernels import log_density, log_marginals

BOTH = pytest.mark.parametrize("density", [log_density, log_marginals])


def hard(n, m, d):
    """Trials of a regime each: z `[K, N, D]`, mu, logvar `[K, M, D]`. Row i belongs to component i mod M."""
    sizes = {
        "usual": (randn(m, d, seed=1), 0.7 * randn(m, d, seed=2) - 1.0),
        "every sigma and |mu|": (means(m, d, seed=3), logvars(m, d, seed=3)),
        "narrow": (randn(m, d, seed=4), torch.full((m, d), 2 * math.log(1e-3))),
        "collapsed": (1e-4 * randn(m, d, seed=5), 1e-4 * randn(m, d, seed=6)),
        "overlapping": (0.1 * randn(m, d, seed=9), 0.3 * randn(m, d, seed=10) + 2.0),
        "far from all": (1000.0 + randn(m, d, seed=7), randn(m, d, seed=8)),
    }
    z = []
    for at, (name, (mu, logvar)) in enumerate(sizes.items()):
        own = torch.arange(n) % max(m, 1)
        eps = (3.0 if name == "overlapping" else 1.0) * randn(n, d, seed=20 + at)
        z.append(eps if name == "far from all" or not m else mu[own] + (0.5 * logvar[own]).exp() * eps)
    mu, logvar = (torch.stack(x) for x in zip(*sizes.values(), strict=True))
    return torch.stack(z), mu, logvar


@dataclass
class How:
    """Arguments beside the tensors, and the sizes to try them on."""

    n: int
    m: int
    d: int
    sampling: str = "mean"
    dataset_size: int | None = None
    exclude_self: bool = False
    offset: int = 0

    @property
    def arguments(self):
        return {name: getattr(self, name) for name in ("sampling", "dataset_size", "exclude_self", "offset")}

    @property
    def weights(self):
        return oracles.pair_weights(self.n, self.m, **self.arguments)


EVERY = [
    How(1, 1, 1),
    How(1, 37, 3),
    How(70, 1, 33),
    How(5, 3, 130),
    How(20, 70, 33),
    How(33, 129, 9),
    How(130, 130, 1),
    How(2, 2, 5, exclude_self=True),
    How(17, 67, 10, exclude_self=True, offset=50),
    How(33, 33, 3, "weighted", 1000),
    How(9, 40, 8, "weighted", 40, exclude_self=True, offset=31),
    How(2, 2, 1, "stratified", 2),
    How(35, 35, 4, "stratified", 50_000),
    How(12, 30, 6, "stratified", 31, offset=18),
]


@BOTH
@pytest.mark.parametrize("how", EVERY, ids=str)
def test_values_and_gradients(back_end, density, how):
    joint = density is log_density
    z, mu, logvar = hard(how.n, how.m, how.d)
    wide = [oracles.double(x) for x in (z, mu, logvar)]
    by_trial = list(zip(*wide, strict=True))
    scipy = [oracles.log_density(*(x.detach().numpy() for x in t), how.weights, joint=joint) for t in by_trial]
    torches = torch.stack([oracles.log_density_by_autograd(*t, how.weights, joint=joint) for t in by_trial])
    mine = [strided(x).to(back_end).requires_grad_() for x in (z, mu, logvar)]
    out = density(*mine, **how.arguments)
    agree(out, torch.from_numpy(np.stack(scipy)))
    up = randn(*out.shape, seed=9)
    grads = torch.autograd.grad((out * up.to(out)).sum(), mine)
    for a, b in zip(grads, torch.autograd.grad((torches * up.double()).sum(), wide), strict=True):
        agree(a, b)


@BOTH
def test_rows_of_all_sizes_are_each_accurate(back_end, density):
    """A norm would not see a wrong small one: 13 distances from one component's mean to -1e9 nats, row by row."""
    mu, logvar = randn(40, 3, seed=1), randn(40, 3, seed=2)
    z = mu[:13] + 10.0 ** torch.arange(-2.0, 4.5, 0.5)[:, None]
    out = density(z.to(back_end), mu.to(back_end), logvar.to(back_end))
    weights = oracles.pair_weights(13, 40, "mean", None, False, 0)
    exact = oracles.log_density(*(x.double().numpy() for x in (z, mu, logvar)), weights, joint=density is log_density)
    agree(out, torch.from_numpy(exact))


def test_torch_distributions_mixture_gives_the_same(back_end):
    z, mu, logvar = (x[0] for x in hard(9, 7, 5))
    uniform = Categorical(torch.ones(7, dtype=torch.float64))
    q = Normal(mu.double(), (0.5 * logvar.double()).exp())
    joint = MixtureSameFamily(uniform, torch.distributions.Independent(q, 1)).log_prob(z.double())
    agree(log_density(z.to(back_end), mu.to(back_end), logvar.to(back_end)), joint, trials=False)
    every = [
        MixtureSameFamily(uniform, Normal(q.loc[:, d], q.scale[:, d])).log_prob(z[:, d].double()) for d in range(5)
    ]
    agree(log_marginals(z.to(back_end), mu.to(back_end), logvar.to(back_end)), torch.stack(every, -1), trials=False)


# --- estimators -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "batch"), [(4, 2), (5, 3), (4, 4)])
def test_stratified_is_unbiased_over_all_minibatches(size, batch):
    """Exactly: z from component n*, the rest of the minibatch drawn without replacement, every ordered draw once."""
    mu, logvar, z = (randn(size, 2, seed=s, dtype=torch.float64) for s in (1, 2, 3))
    whole = log_density(z[:1], mu, logvar).exp()  # q(z) of the data set
    draws = [[0, *rest] for rest in itertools.permutations(range(1, size), batch - 1)]
    estimates = [log_density(z[:1], mu[d], logvar[d], sampling="stratified", dataset_size=size).exp() for d in draws]
    agree(torch.stack(estimates).mean(0), whole, trials=False, within=1e-12)


@pytest.mark.parametrize("sampling", ["weighted", "stratified"])
def test_the_log_weight_is_added_once_whatever_the_dimensions(sampling):
    """Copies of one dimension: q(z_i | x_j)^D under a common weight; adding it D times would show."""
    z, mu, logvar = randn(4, 1, seed=1), randn(4, 1, seed=2), randn(4, 1, seed=3)
    weights = torch.from_numpy(oracles.pair_weights(4, 4, sampling, 100, False, 0)).log()
    one = Normal(mu.double().T, (0.5 * logvar.double()).exp().T).log_prob(z.double())  # [N, M]
    for d in (1, 2, 7):
        wide = [x.expand(4, d) for x in (z, mu, logvar)]
        joint = log_density(*wide, sampling=sampling, dataset_size=100)
        agree(joint, torch.logsumexp(d * one + weights, dim=1), trials=False)
        each = log_marginals(*wide, sampling=sampling, dataset_size=100)
        agree(each, torch.logsumexp(one + weights, dim=1)[:, None].expand(4, d), trials=False)


@BOTH
def test_one_dimension_has_one_density(back_end, density):
    z, mu, logvar = (x.to(back_end) for x in hard(13, 29, 1))
    agree(density(z, mu, logvar).reshape(len(z), 13), log_density(z, mu, logvar), within=1e-6)


# --- limits -----------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(("n", "m", "d"), [(0, 3, 2), (3, 0, 2), (0, 0, 2), (3, 2, 0)])
@pytest.mark.parametrize("trials", [None, 0, 2])
def test_nothing_in_nothing_out(back_end, density, n, m, d, trials):
    lead = () if trials is None else (trials,)
    shapes = ((*lead, n, d), (*lead, m, d), (*lead, m, d))
    mine = [torch.zeros(shape, device=back_end).requires_grad_() for shape in shapes]
    out = density(*mine)
    assert out.shape == ((*lead, n) if density is log_density else (*lead, n, d))
    assert (out == (-math.inf if m == 0 else 0.0)).all()  # of no dimensions the density is 1
    for x, g in zip(mine, torch.autograd.grad(out.sum(), mine), strict=True):
        assert g.shape == x.shape and not g.nan_to_num(1.0).any()


@BOTH
@pytest.mark.parametrize("more", [{}, {"sampling": "stratified", "dataset_size": 100}, {"exclude_self": True}], ids=str)
def test_nan_in_a_row_stays_in_it(back_end, density, more):
    def run(z, mu, logvar):
        mine = [x.clone().to(back_end).requires_grad_() for x in (z, mu, logvar)]
        out = density(*mine, **more)
        return out.detach().cpu(), *(x.cpu() for x in torch.autograd.grad(out.sum(), mine))

    z, mu, logvar = hard(37, 37, 5)
    clean = run(z, mu, logvar)
    z[1, 3, 2] = math.nan
    out, dz, dmu, dlogvar = run(z, mu, logvar)
    row = torch.zeros(len(z), 37, dtype=torch.bool)
    row[1, 3] = True
    assert out[1, 3].isnan().any() and dz[1, 3].isnan().any()
    same_bits(out[~row], clean[0][~row])
    same_bits(dz[~row], clean[1][~row])
    others = torch.arange(len(z)) != 1
    for a, b in ((dmu, clean[2]), (dlogvar, clean[3])):
        same_bits(a[others], b[others])  # the trial's own sums over rows have it
        assert a[1].isnan().any()
    if density is log_marginals:
        dims = [0, 1, 3, 4]
        for a, b in zip((out, dz, dmu, dlogvar), clean, strict=True):
            same_bits(a[..., dims], b[..., dims])


@BOTH
@pytest.mark.parametrize("which", [1, 2])
def test_nan_in_a_component_stays_in_its_trial(back_end, density, which):
    clean = density(*(x.to(back_end) for x in hard(9, 37, 5)))
    args = hard(9, 37, 5)
    args[which][2, 30, 4] = math.nan
    out = density(*(x.to(back_end) for x in args))
    assert out[2].isnan().all() if density is log_density else out[2, :, 4].isnan().all()
    others = torch.arange(len(out)) != 2
    same_bits(out[others], clean[others])
    if density is log_marginals:
        same_bits(out[..., :4], clean[..., :4])


@BOTH
def test_a_component_left_out_does_not_reach_its_row_not_even_as_nan(back_end, density):
    def run(z, mu, logvar):
        mine = [x.clone().to(back_end).requires_grad_() for x in (z, mu, logvar)]
        out = density(*mine, exclude_self=True, offset=2)
        return out.detach(), *torch.autograd.grad(out.sum(), mine)

    z, mu, logvar = (x[0] for x in hard(1, 5, 3))
    clean = run(z, mu, logvar)
    assert clean[2][2].abs().max() < 1e-30 and clean[3][2].abs().max() < 1e-30
    mu[2], logvar[2] = math.nan, 1000.0
    for a, b in zip(run(z, mu, logvar)[:2], clean[:2], strict=True):
        same_bits(a, b)


@BOTH
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_sums_in_float32(back_end, density, dtype):
    """Of 3000 components a sum in half precision would stall at 2^8 or 2^11 of them."""
    args = [randn(n, 3, seed=n, dtype=dtype) for n in (20, 3000, 3001)]
    args[2] = args[2][:3000]
    mine = [x.to(back_end).requires_grad_() for x in args]
    out = density(*mine)
    assert out.dtype == dtype
    wide = [oracles.double(x) for x in args]
    weights = oracles.pair_weights(20, 3000, "mean", None, False, 0)
    wanted = oracles.log_density_by_autograd(*wide, weights, joint=density is log_density)
    eps = torch.finfo(dtype).eps
    agree(out, wanted, trials=False, within=eps)
    if dtype == torch.bfloat16:  # the gradients of single components are below float16's range
        for a, b in zip(torch.autograd.grad(out.sum(), mine), torch.autograd.grad(wanted.sum(), wide), strict=True):
            assert a.dtype == dtype
            agree(a, b, trials=False, within=eps)


@BOTH
@pytest.mark.parametrize("more", [{}, {"sampling": "stratified", "dataset_size": 100}, {"exclude_self": True}], ids=str)
def test_gradcheck(density, more):
    args = [randn(2, 3, 2, seed=s, dtype=torch.float64).requires_grad_() for s in (1, 2, 3)]
    assert torch.autograd.gradcheck(lambda *a: density(*a, **more), args)
