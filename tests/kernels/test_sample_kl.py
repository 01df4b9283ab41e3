"""sample_kl: values and gradients against torch.distributions, its noise against philox.py, what dropout does."""

import itertools
import math

import numpy as np
import oracles
import pytest
import torch
from cases import agree, logvars, means, randn, same_bits, strided

from distvae.kernels import philox, sample_kl

BIG = 2**64 - 3  # a seed that uses all its bits


def hard(b: int, d: int):
    """Trials, each with hyper-parameters and a regime of its own: (mu, logvar `[K, B, D]`, per-trial arguments)."""
    collapsed = 1e-4 * randn(b, d, seed=1), 1e-4 * randn(b, d, seed=2)
    every = means(b, d, seed=3), logvars(b, d, seed=3)
    at_zero = randn(b, d, seed=4), randn(b, d, seed=5)
    at_zero[0][::2], at_zero[0][1::3] = 0.0, -0.0
    usual = randn(b, d, seed=6), randn(b, d, seed=7) - 1.0
    pairs = (collapsed, every, at_zero, at_zero, every, usual, usual)
    mu, logvar = (torch.stack(x) for x in zip(*pairs, strict=True))
    return mu, logvar, {
        "seed": torch.tensor([0, 1, 2**62, -3, 7, 8, 2**33]),  # -3 is BIG
        "step": torch.tensor([0, 1, 2**32 - 1, 2**32 + 5, 4, 5, 6]),
        "r": torch.tensor([0.0, 0.0, 0.5, 0.5, 1000.0, 0.1, 0.0]),
        "p_keep": torch.tensor([1.0, 1.0, 1.0, 0.7, 0.5, 1.0, 0.05]),
        "floor": torch.tensor([0.0, 0.0, 0.0, 0.0585, 0.5, 0.0585, 1e-3]),
    }  # fmt: skip


def oracle(mu, logvar, index, each, stream=0, sample=0, mask=None):
    z, kl = [], []
    for k in range(len(mu)):
        seed, step, r, p_keep, floor = (each[name][k].item() for name in ("seed", "step", "r", "p_keep", "floor"))
        eps, g = oracles.noise(mu[k], seed % 2**64, step, index, p_keep, stream, sample)
        both = oracles.sample_kl(mu[k], logvar[k], eps, g, r, floor)
        z.append(both[0]), kl.append(both[1])
    keep = torch.ones(len(mu), 1, mu.shape[2], dtype=torch.bool) if mask is None else mask[:, None]
    return torch.stack(z).where(keep, 0.0), torch.stack(kl).where(keep, 0.0)


@pytest.mark.parametrize(
    ("b", "d", "stream", "sample", "masked"),
    [(1, 1, 0, 0, False), (5, 3, 5, 2**32 - 1, True), (37, 33, 255, 3, False), (130, 130, 8, 1, True)],
)
def test_values_and_gradients(back_end, b, d, stream, sample, masked):
    mu, logvar, each = hard(b, d)
    index = torch.arange(b) * 3 + torch.tensor([0, 2**32, 2**40, 2**63 - 2**20])[torch.arange(b) % 4]
    mask = torch.rand(len(mu), d, generator=torch.Generator().manual_seed(d)) < 0.7 if masked else None
    wide = oracles.double(mu), oracles.double(logvar)
    wanted = oracle(*wide, index, each, stream, sample, mask)
    mu, logvar = (strided(x).to(back_end).requires_grad_() for x in (mu, logvar))
    moved = {name: x.to(back_end) for name, x in each.items()}
    z, kl = sample_kl(
        mu, logvar, index=index.to(back_end), stream=stream, sample=sample,
        mask=None if mask is None else mask.to(back_end), **moved,
    )  # fmt: skip
    agree(z, wanted[0])
    agree(kl, wanted[1])
    # the two outputs apart and together: each has gradients of a size of its own
    up = randn(*z.shape, seed=11), randn(*z.shape, seed=12)
    for use in ((1, 0), (0, 1), (1, 1)):
        loss = sum(u * (out * g.to(out)).sum() for u, out, g in zip(use, (z, kl), up, strict=True))
        goal = sum(u * (out * g.double()).sum() for u, out, g in zip(use, wanted, up, strict=True))
        grads = torch.autograd.grad(loss, (mu, logvar), retain_graph=True)
        goals = torch.autograd.grad(goal, wide, retain_graph=True)
        for a, b_ in zip(grads, goals, strict=True):
            agree(a, b_)


def test_near_the_prior_the_kl_and_its_gradient_keep_their_relative_accuracy(back_end):
    sizes = torch.tensor([1.0, 0.3, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6])
    mu = torch.zeros(2 * len(sizes), 1, device=back_end)
    logvar = torch.cat([sizes, -sizes])[:, None].to(back_end).requires_grad_()
    _, kl = sample_kl(mu, logvar, seed=0, step=0, index=torch.arange(len(mu), device=back_end))
    (slope,) = torch.autograd.grad(kl.sum(), logvar)
    wanted = torch.tensor([oracles.kl_of_50_digits(0.0, x) for x in logvar[:, 0].tolist()], dtype=torch.float64)
    agree(kl[:, 0], wanted[:, 0])  # element by element
    agree(slope[:, 0], wanted[:, 1])


def test_numbers_and_tensors_of_them_are_the_same_arguments(back_end):
    mu, logvar = randn(4, 6, seed=1).to(back_end), randn(4, 6, seed=2).to(back_end)
    index = torch.arange(4, device=back_end)
    numbers = {"seed": BIG, "step": 3, "r": 0.25, "p_keep": 0.75, "floor": 0.0625}
    one = sample_kl(mu, logvar, index=index, **numbers)
    for seed in (-3, torch.tensor(-3)):  # modulo 2^64
        tensors = {name: torch.tensor(x) for name, x in numbers.items() if name != "seed"} | {"seed": seed}
        tensors = {name: x.to(back_end) if isinstance(x, torch.Tensor) else x for name, x in tensors.items()}
        same_bits(sample_kl(mu, logvar, index=index, **tensors)[0], one[0])
        stacked = sample_kl(mu[None], logvar[None], index=index, **tensors)
        same_bits(stacked[0][0], one[0])
        same_bits(stacked[1][0], one[1])


def test_every_part_of_the_address_gives_other_noise(back_end):
    zero = torch.zeros(8, 4, device=back_end)

    def draw(seed=1, step=0, stream=0, sample=0, at=0):
        index = torch.arange(8, device=back_end) + at
        return sample_kl(zero, zero, seed=seed, step=step, index=index, stream=stream, sample=sample)[0]

    base = draw()
    for other in (draw(seed=2), draw(seed=1 + 2**32), draw(step=1), draw(stream=5), draw(sample=1), draw(at=8)):
        assert (base != other).all()
    same_bits(base, draw(at=2**32))  # ids and steps count modulo 2^32
    same_bits(base, draw(step=2**32))


# --- noise ------------------------------------------------------------------------------------------------------------


def ulps(out: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Is each float32 within 4 ulp and 1e-6 of the float64 beside it?"""
    return np.abs(out.astype(np.float64) - exact) <= 4.0 * np.spacing(np.abs(exact).astype(np.float32)) + 1e-6


def test_the_normals_are_philoxs_and_standard(back_end):
    zero = torch.zeros(5000, 7, device=back_end)
    z, _ = sample_kl(zero, zero, seed=9, step=2, index=torch.arange(5000, device=back_end))
    z = z.cpu().numpy()
    assert ulps(z, philox.normal(9, philox.Stream.LATENT, index=np.arange(5000), step=2, dim=7)[:, 0]).all()
    for k, moment, spread in ((1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)):
        assert abs((z.astype(float) ** k).mean() - moment) < 4 * math.sqrt(spread / z.size)


# found by search: word 0 or 2 of seed 0 is one of the least or greatest of 2^27
EXTREME = [48643752, 55573990, 66601073, 17758991, 64966008, 24962728, 35333089, 38471471]


def test_the_rarest_normals_are_philoxs_too(back_end):
    index = torch.tensor(EXTREME, device=back_end)
    zero = torch.zeros(len(index), 4, device=back_end)
    exact = philox.normal(0, philox.Stream.LATENT, index=EXTREME, dim=4)[:, 0]
    assert np.abs(exact).max() > 5.0 and np.hypot(exact[:, 0::2], exact[:, 1::2]).min() < 1e-3
    assert ulps(sample_kl(zero, zero, seed=0, step=0, index=index)[0].cpu().numpy(), exact).all()


# --- variance dropout -------------------------------------------------------------------------------------------------


def kept(p_keep, seed, index, d, device, **more):
    """Where the variance was kept: with logvar = 20 and floor = 1, the KL there is immense."""
    zero = torch.zeros(len(seed), len(index), d, device=device)
    _, kl = sample_kl(
        zero,
        zero + 20.0,
        seed=seed.to(device),
        step=0,
        index=index.to(device),
        p_keep=p_keep.to(device),
        floor=1.0,
        **more,
    )
    return (kl > 1.0).cpu()


@pytest.mark.parametrize("p", [0.05, 0.7, 1.0])
def test_variances_are_kept_at_rate_p(back_end, p):
    on = kept(torch.tensor([p]), torch.tensor([3]), torch.arange(5000), 7, back_end)
    assert abs(on.double().mean() - p) <= 4 * math.sqrt(p * (1 - p) / on.numel())
    u = philox.uniform(3, philox.Stream.DROPOUT, index=np.arange(5000), dim=7)[:, 0]
    assert torch.equal(on[0], torch.from_numpy(u <= np.float32(p)))


def test_keeping_compares_all_32_bits(back_end):
    """Between the two float32 around a uniform the decision turns: float32 uniforms would not do."""
    k, steps = 200, (np.float32(-np.inf), np.float32(np.inf))
    u = np.array([philox.uniform(seed, philox.Stream.DROPOUT, index=[0])[0, 0, 0] for seed in range(k)])
    u32 = u.astype(np.float32)
    below = np.where(u32 < u, u32, np.nextafter(u32, steps[0]))
    above = np.where(u32 >= u, u32, np.nextafter(u32, steps[1]))
    seeds, first = torch.arange(k), torch.tensor([0])
    assert kept(torch.from_numpy(above), seeds, first, 1, back_end).all()
    assert not kept(torch.from_numpy(below), seeds, first, 1, back_end).any()


def test_the_samples_of_an_example_share_what_was_dropped(back_end):
    each = [kept(torch.tensor([0.5]), torch.tensor([3]), torch.arange(50), 7, back_end, sample=s) for s in range(3)]
    assert torch.equal(each[0], each[1]) and torch.equal(each[0], each[2])


def test_without_a_floor_a_dropped_variance_has_infinite_kl_and_no_gradient_but_the_means(back_end):
    mu = randn(50, 3, seed=1).to(back_end).requires_grad_()
    logvar = randn(50, 3, seed=2).to(back_end).requires_grad_()
    z, kl = sample_kl(
        mu, logvar, seed=3, step=0, index=torch.arange(50, device=back_end), p_keep=torch.tensor(0.5).to(back_end)
    )
    off = ~torch.from_numpy(philox.uniform(3, philox.Stream.DROPOUT, index=np.arange(50), dim=3)[:, 0] <= 0.5)
    assert torch.equal((kl == math.inf).cpu(), off) and not z.isnan().any()
    dmu, dlogvar = torch.autograd.grad(z.sum() + kl.sum(), (mu, logvar))
    assert torch.equal(z.detach().cpu()[off], mu.detach().cpu()[off])
    assert dmu.isfinite().all() and dlogvar.isfinite().all() and not dlogvar.cpu()[off].any()


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (0, 4, 3), (2, 0, 3), (2, 4, 0)])
def test_nothing_in_nothing_out(back_end, shape):
    mu, logvar = (torch.zeros(shape, device=back_end).requires_grad_() for _ in range(2))
    z, kl = sample_kl(mu, logvar, seed=0, step=0, index=torch.arange(shape[-2], device=back_end))
    assert z.shape == kl.shape == shape
    for x in torch.autograd.grad(z.sum() + kl.sum(), (mu, logvar)):
        assert x.shape == shape


def test_where_the_mask_is_off_all_is_zero_even_from_nan(back_end):
    mu, logvar = randn(2, 5, 6, seed=1), randn(2, 5, 6, seed=2)
    mask = torch.tensor([[True, False, True, True, False, True], [False] * 6])
    mu[~mask[:, None].expand_as(mu)] = math.nan
    mu, logvar, mask = mu.to(back_end).requires_grad_(), logvar.to(back_end).requires_grad_(), mask.to(back_end)
    out = sample_kl(
        mu, logvar, seed=0, step=0, index=torch.arange(5, device=back_end), mask=mask, p_keep=0.5, floor=0.1
    )
    grads = torch.autograd.grad(out[0].sum() + out[1].sum(), (mu, logvar))
    for x in (*out, *grads):
        assert not x[~mask[:, None].expand_as(x)].any()
        assert x.isfinite().all()
    row = sample_kl(
        mu[0], logvar[0], seed=0, step=0, index=torch.arange(5, device=back_end), mask=mask[0], p_keep=0.5, floor=0.1
    )
    same_bits(row[0], out[0][0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_the_rounding_of_float32(back_end, dtype):
    mu, logvar = randn(33, 5, seed=1).to(back_end, dtype), randn(33, 5, seed=2).to(back_end, dtype)
    more = {"seed": 0, "step": 0, "index": torch.arange(33, device=back_end), "r": 0.3, "p_keep": 0.9, "floor": 0.05}

    def both(mu, logvar):
        mu, logvar = mu.requires_grad_(), logvar.requires_grad_()
        out = sample_kl(mu, logvar, **more)
        return *out, *torch.autograd.grad(out[0].sum() + out[1].sum(), (mu, logvar))

    for half, whole in zip(both(mu, logvar), both(mu.float(), logvar.float()), strict=True):
        assert half.dtype == dtype
        agree(half, whole, trials=False, within=torch.finfo(dtype).eps / 2)


def test_in_float64_it_is_exact():
    mu, logvar = randn(5, 3, seed=1, dtype=torch.float64), randn(5, 3, seed=2, dtype=torch.float64)
    for r, p_keep, floor in itertools.product((0.0, 0.1), (1.0, 0.7), (0.3,)):
        eps, g = oracles.noise(mu, 5, 1, torch.arange(5), p_keep)
        wanted = oracles.sample_kl(mu, logvar, eps, g, r, floor)
        out = sample_kl(mu, logvar, seed=5, step=1, index=torch.arange(5), r=r, p_keep=p_keep, floor=floor)
        for a, b in zip(out, wanted, strict=True):
            agree(a, b, trials=False, within=1e-13)


def test_gradcheck():
    mu, logvar = (randn(4, 3, seed=s, dtype=torch.float64).requires_grad_() for s in (1, 2))
    more = {"seed": 5, "step": 1, "index": torch.arange(4), "r": 0.3, "p_keep": 0.8, "floor": 0.1}
    assert torch.autograd.gradcheck(lambda m, lv: sample_kl(m, lv, **more), (mu, logvar))
