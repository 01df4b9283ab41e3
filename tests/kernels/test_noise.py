"""normals, uniforms and bernoulli: by address against philox.py, the same bits wherever and however they are drawn."""

import numpy as np
import pytest
import torch
from cases import agree, same_bits
from torch.func import vmap

from distvae.kernels import bernoulli, normals, philox, sample_kl, uniforms
from distvae.kernels.philox import Stream

SEEDS, STEPS = torch.tensor([0, 2**62, -3, 2**33]), torch.tensor([0, 2**32 - 1, 2**32 + 5, 4])
IDS = torch.arange(37) * 3 + torch.tensor([0, 2**32, 2**40, 2**63 - 2**20])[torch.arange(37) % 4]
SIZES = pytest.mark.parametrize(("samples", "dim"), [(1, 1), (3, 5), (1, 784), (2, 32), (5, 4)])


def exact(what, stream, samples, dim):
    """`[K, B, samples, dim]` float64 of philox.py."""
    each = zip(SEEDS.tolist(), STEPS.tolist(), strict=True)
    at = {"index": IDS.numpy(), "samples": samples, "dim": dim}
    return np.stack([what(seed % 2**64, stream, step=step, **at) for seed, step in each])


def within(out: torch.Tensor, wanted: np.ndarray) -> None:
    """4 ulp + 1e-6."""
    error = np.abs(out.cpu().numpy().astype(np.float64) - wanted)
    assert (error <= 4.0 * np.spacing(np.abs(wanted).astype(np.float32)) + 1e-6).all()


@SIZES
def test_normals_are_philoxs(back_end, samples, dim):
    seed, step, ids = (x.to(back_end) for x in (SEEDS, STEPS, IDS))
    out = normals(seed, 255, ids, step=step, samples=samples, dim=dim)
    assert out.dtype == torch.float32 and out.shape == (4, 37, samples, dim)
    within(out, exact(philox.normal, 255, samples, dim))
    for dtype in (torch.bfloat16, torch.float16):
        half = normals(seed, 255, ids, step=step, samples=samples, dim=dim, dtype=dtype)
        assert half.dtype == dtype
        agree(half, out, within=torch.finfo(dtype).eps / 2)


@SIZES
def test_uniforms_are_philoxs_to_the_bit(back_end, samples, dim):
    seed, step, ids = (x.to(back_end) for x in (SEEDS, STEPS, IDS))
    out = uniforms(seed, Stream.PROPOSAL, ids, step=step, samples=samples, dim=dim)
    same_bits(out.cpu(), torch.from_numpy(exact(philox.uniform, Stream.PROPOSAL, samples, dim)))


def test_float64_normals_are_philoxs_in_float64(back_end):
    out = normals(7, 0, IDS.to(back_end), step=3, dim=6, dtype=torch.float64)
    wanted = philox.normal(7, Stream.LATENT, index=IDS.numpy(), step=3, dim=6)
    torch.testing.assert_close(out.cpu(), torch.from_numpy(wanted), rtol=1e-12, atol=1e-14)


def test_normals_are_the_noise_of_sample_kl(back_end):
    ids = IDS.to(back_end)
    out = normals(SEEDS.to(back_end), 5, ids, step=STEPS.to(back_end), samples=3, dim=33)
    zero = torch.zeros(4, 37, 33, device=back_end)
    for s in range(3):
        z, _ = sample_kl(zero, zero, seed=SEEDS.to(back_end), step=STEPS.to(back_end), index=ids, stream=5, sample=s)
        same_bits(out[:, :, s], z)


# --- Bernoulli draws --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dim", [1, 30, 784])
def test_a_draw_is_one_where_its_uniform_is_below_p(back_end, dtype, dim):
    p = torch.rand(37, dim, generator=torch.Generator().manual_seed(dim)).to(dtype)
    p[::5], p[1::5], p[2::5] = 0.0, 1.0, 2.0**-14
    out = bernoulli(p.to(back_end), SEEDS.to(back_end), 4, IDS.to(back_end), step=STEPS.to(back_end))
    u = torch.from_numpy(exact(philox.uniform, 4, 1, dim))[:, :, 0]
    same_bits(out.cpu(), (u < p.double()).to(dtype))


def test_a_draw_compares_all_32_bits(back_end):
    """Between a uniform's own float32 neighbours the decision turns, and u < u is false."""
    ids = torch.arange(4000)
    u = torch.from_numpy(philox.uniform(1, Stream.BINARIZE, index=ids.numpy(), dim=4)[:, 0])
    for p in (u.float(), torch.nextafter(u.float(), torch.tensor(0.0)), torch.nextafter(u.float(), torch.tensor(1.0))):
        out = bernoulli(p.to(back_end), 1, Stream.BINARIZE, ids.to(back_end)).cpu()
        assert torch.equal(out.bool(), u < p.double())
    tiny = u[u < 2.0**-12]  # float32 has bits to spare here: some p are a uniform itself
    assert len(tiny) and (tiny.float().double() == tiny).all()


def test_nan_and_chances_out_of_range_are_never_or_always(back_end):
    p = torch.tensor([[-0.5, 2.0, float("nan"), float("inf"), -float("inf")]]).to(back_end)
    out = bernoulli(p, 0, 4, torch.tensor([3], device=back_end))
    assert out.tolist() == [[0.0, 1.0, 0.0, 1.0, 0.0]]


# --- what must not move a bit -----------------------------------------------------------------------------------------

DRAWS = {
    "normals": lambda seed, ids, step: normals(seed, 0, ids, step=step, samples=3, dim=9),
    "uniforms": lambda seed, ids, step: uniforms(seed, 1, ids, step=step, samples=3, dim=9),
    "bernoulli": lambda seed, ids, step: bernoulli(chances(ids), seed, 4, ids, step=step),
}
EACH = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)


def chances(ids):
    """`[B, 9]`, of the ids."""
    return ((ids[:, None] * 9 + torch.arange(9, device=ids.device)) % 101).float() / 101


@EACH
def test_trials_slots_shards_threads_and_strides_change_nothing(back_end, draw):
    seed, step, ids = SEEDS.to(back_end), STEPS.to(back_end), torch.arange(700, device=back_end) * 11
    whole = draw(seed, ids, step)
    for k in range(4):
        same_bits(draw(seed[k], ids, step[k]), whole[k])
        same_bits(draw(int(seed[k]), ids, int(step[k])), whole[k])
    order = [3, 1, 1, 0]
    same_bits(draw(seed[order], ids, step[order]), whole[order])
    for rows in ([699], [5, 5, 2], list(range(0, 700, 3))):
        same_bits(draw(seed, ids[rows], step), whole[:, rows])
    same_bits(draw(seed.repeat_interleave(2)[::2], ids.repeat_interleave(2)[::2], step), whole)
    torch.set_num_threads(2)
    same_bits(draw(seed, ids, step), whole)


def test_fewer_samples_and_dimensions_are_a_part_of_more(back_end):
    ids = IDS.to(back_end)
    for f in (normals, uniforms):
        whole = f(3, 0, ids, samples=4, dim=37)
        for samples, dim in ((1, 37), (4, 1), (2, 8), (3, 30)):
            same_bits(f(3, 0, ids, samples=samples, dim=dim), whole[:, :samples, :dim])


@EACH
def test_vmap_is_the_stack_of_single_calls(back_end, draw):
    seed, step, ids = SEEDS.to(back_end), STEPS.to(back_end), IDS.to(back_end)
    whole = draw(seed, ids, step)
    same_bits(vmap(lambda s, t: draw(s, ids, t))(seed, step), whole)
    same_bits(vmap(lambda t: draw(3, ids, t))(step), torch.stack([draw(3, ids, t) for t in step]))
    own = torch.stack([ids, ids + 5])  # every trial its own examples, by four seeds each
    same_bits(vmap(lambda i: draw(seed, i, step))(own), torch.stack([draw(seed, i, step) for i in own]))


def test_vmap_over_chances_alone_or_beside_the_seeds(back_end):
    seed, ids = SEEDS.to(back_end), IDS.to(back_end)
    p = torch.rand(4, 37, 6, generator=torch.Generator().manual_seed(0)).to(back_end)
    alone = torch.stack([bernoulli(p[k], seed[k], 4, ids) for k in range(4)])
    same_bits(vmap(lambda p, s: bernoulli(p, s, 4, ids))(p, seed), alone)
    same_bits(vmap(lambda p: bernoulli(p, seed, 4, ids))(p)[1], bernoulli(p[1], seed, 4, ids))


@pytest.mark.parametrize(("b", "samples", "dim"), [(0, 1, 3), (4, 0, 3), (4, 2, 0)])
def test_nothing_in_nothing_out(back_end, b, samples, dim):
    ids = torch.arange(b, device=back_end)
    for f in (normals, uniforms):
        assert f(0, 0, ids, samples=samples, dim=dim).shape == (b, samples, dim)
        assert f(SEEDS[:0].to(back_end), 0, ids, samples=samples, dim=dim).shape == (0, b, samples, dim)
    assert bernoulli(torch.zeros(b, dim, device=back_end), 0, 4, ids).shape == (b, dim)


def test_nothing_is_differentiated(back_end):
    p = torch.full((3, 2), 0.5, device=back_end, requires_grad=True)
    assert not bernoulli(p, 0, 4, torch.arange(3, device=back_end)).requires_grad


IDS4 = torch.arange(4)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: normals(0, 0, [1, 2]), TypeError, r"^index: an int64 tensor \[B\] is needed"),
        (lambda: normals(0, 0, IDS4.int()), TypeError, r"^index: an int64 tensor \[B\] is needed"),
        (lambda: uniforms(0, 0, IDS4[None]), TypeError, r"^index: an int64 tensor \[B\] is needed"),
        (lambda: uniforms(0, 256, IDS4), ValueError, r"^stream: 256 is not in \[0, 256\)"),
        (lambda: normals(0, 0, IDS4, samples=-1), ValueError, r"^samples: -1 is not a number of draws >= 0"),
        (lambda: normals(0, 0, IDS4, dim=-2), ValueError, r"^dim: -2 is not a number of draws >= 0"),
        (lambda: normals(0.5, 0, IDS4), TypeError, r"^seed: an integer or a tensor of them is needed, not float"),
        (lambda: normals(0, 0, IDS4, step=-1), ValueError, r"^step: -1 is not an integer >= 0"),
        (lambda: normals(0, 0, IDS4, step=torch.tensor(0.5)), TypeError, r"^step: dtype float32 is not int64"),
        (lambda: normals(SEEDS, 0, IDS4, step=IDS4[:3]), ValueError, r"^step: shape \[3\] is neither \[\] nor \[4\]"),
        (lambda: bernoulli(0.5, 0, 4, IDS4), TypeError, r"^p: a tensor is needed, not float"),
        (lambda: bernoulli(torch.zeros(4), 0, 4, IDS4), ValueError, r"^p: shape \[4\] has 1 dimensions, not 2"),
        (lambda: bernoulli(torch.zeros(3, 2), 0, 4, IDS4), ValueError, r"^p: shape \[3, 2\] has not the 4 rows of"),
    ],
)
def test_bad_arguments_are_named(call, error, said):
    with pytest.raises(error, match=said):
        call()
