"""The CUDA kernels without a GPU: g++ compiles the .cu files with emulate/emulate.h, which runs them block by block, a
fiber a thread; cuda.py launches them there on CPU tensors. Held to reference.py in float64. What this cannot show: the
GPU's own ex2, its compiler, and barriers within a warp."""

import ctypes
import math
import shlex
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from distvae.kernels import cuda, driver, reference

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
HERE = Path(__file__).with_name("emulate")
FLAGS = "-std=c++17 -O1 -ffp-contract=off -fPIC -shared -Wall -Werror -Wno-unknown-pragmas -Wno-unused"
INF = math.inf


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    """Each .cu as a shared library."""
    folder = tmp_path_factory.mktemp("emulated")
    for name, text in cuda.sources().items():
        (folder / name).write_text(text)

    def build(name):
        command = f"g++ {FLAGS} -include {HERE / 'emulate.h'} -x c++ {name} -o {name}.so"
        done = subprocess.run(shlex.split(command), cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return name, ctypes.CDLL(str(folder / f"{name}.so"))

    with ThreadPoolExecutor(2) as pool:
        return dict(pool.map(build, cuda.SOURCES))


@pytest.fixture
def emulated(libraries, monkeypatch):
    """cuda.py on CPU tensors; what it allocates holds NaN until it is written. `emulated.backwards` turns the order of
    a block's threads around."""

    class Emulated:
        backwards = False

    def launch(x, source, kernel, blocks, threads, *args):
        packed = driver.pack(args)
        size, grid = ctypes.c_longlong(len(packed)), ctypes.c_longlong(blocks)
        run = getattr(libraries[source], f"{kernel}_emulated")
        assert run(packed, size, grid, threads, int(Emulated.backwards)) == 0, f"{kernel}: arguments"

    def empty(x, *shape, dtype=torch.float32):
        return torch.full(shape, math.nan, dtype=dtype)

    monkeypatch.setattr(cuda, "_launch", launch)
    monkeypatch.setattr(cuda, "_empty", empty)
    monkeypatch.setattr(torch, "empty_like", lambda x, **_: torch.full_like(x, math.nan))
    return Emulated


def close(got, want, atol, rtol):
    torch.testing.assert_close(got.double(), want.double(), atol=atol, rtol=rtol, equal_nan=True)


def wide(*args):
    return [x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in args]


# --- sample_kl -----------------------------------------------------------------------------------------------------


def sample_arguments(k, b, d, p_keep=1.0, floor=0.0, mask=False, index_axes=1, dtype=torch.float32):
    gen = torch.Generator().manual_seed(d)
    mu, logvar = torch.randn(k, b, d, generator=gen).to(dtype), torch.randn(k, b, d, generator=gen).to(dtype)
    seed, step = torch.arange(k) * 3_000_000_019 + 2**40, torch.arange(k) + 2**33 + 5
    index = torch.randint(2**35, (k, b) if index_axes == 2 else (b,), generator=gen)
    r, p, f = torch.linspace(0.0, 2.0, k), torch.full((k,), p_keep), torch.full((k,), floor)
    keep = torch.rand(k, d, generator=gen) < 0.6 if mask else None
    return mu, logvar, seed, step, index, r, p, f, keep, 5, 3


@pytest.mark.parametrize(
    ("k", "b", "d", "options"),
    [
        (1, 7, 1, {}),
        (3, 5, 5, {"p_keep": 0.7, "floor": 0.1, "mask": True}),
        (2, 37, 8, {"p_keep": 0.5, "floor": 0.2, "index_axes": 2}),
        (3, 9, 33, {"floor": 0.3}),
        (2, 6, 12, {"dtype": torch.bfloat16, "p_keep": 0.9, "floor": 0.1}),
        (2, 6, 7, {"dtype": torch.float16, "mask": True}),
    ],
)
def test_sample_kl(emulated, k, b, d, options):
    args = sample_arguments(k, b, d, **options)
    eps = {torch.float32: 2e-6, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}[args[0].dtype]
    for got, want in zip(cuda.sample_kl(*args), reference.sample_kl(*wide(*args)), strict=True):
        close(got, want, eps, 2 * eps)
    gz, gkl = torch.randn_like(args[0]), torch.randn_like(args[0])
    got, want = cuda.sample_kl_backward(gz, gkl, *args), reference.sample_kl_backward(*wide(gz, gkl, *args))
    for g, w in zip(got, want, strict=True):
        close(g, w, 2 * eps, 4 * eps)


def test_the_words_are_philox(emulated):
    """Normals from every word within rounding of the reference's, so the words are the same; the dropout to the bit."""
    args = list(sample_arguments(3, 64, 6, p_keep=0.37, floor=0.25))
    args[0].zero_(), args[1].zero_()
    z, _ = cuda.sample_kl(*args)
    eps, g = reference._noise(args[0], args[2], args[3], args[4], args[6], 5, 3)
    assert torch.equal((z / eps).abs() > 0.6, g > 0)
    close(z, (g + 0.25).sqrt() * eps, 1e-6, 1e-6)


def test_dropout_keeps_the_words_up_to_p(emulated):
    """The threshold is exact: p around the least word's (w + 1/2) / 2^32, and the largest p below 1."""
    args = list(sample_arguments(1, 256, 4, floor=1e-6))
    words = reference.words(args[2], args[3], args[4], stream=1, sample=0, dim=4)
    least = ((words.min().double() + 0.5) * 2.0**-32).float()
    kept = []
    for p in (
        least.nextafter(torch.tensor(0.0)),
        least,
        least.nextafter(torch.tensor(1.0)),
        torch.tensor(1 - 2.0**-24),
    ):
        args[6] = p.reshape(1)
        eps, g = reference._noise(args[0], args[2], args[3], args[4], args[6], 5, 3)
        z, _ = cuda.sample_kl(*args)
        assert torch.equal((z - args[0]).abs() > 0.01 * eps.abs(), g > 0)
        kept.append(int((g > 0).sum()))
    assert kept[0] == 0 and kept[2] == 1 and kept[3] >= 1023


# --- noise -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("b", "samples", "d"), [(7, 1, 1), (37, 3, 5), (9, 2, 32), (2, 1, 784)])
@pytest.mark.parametrize("index_axes", [1, 2])
def test_noise(emulated, b, samples, d, index_axes):
    mu, _, seed, step, index, *_ = sample_arguments(3, b, d, index_axes=index_axes)
    at = seed, step, index, 200, samples, d
    assert torch.equal(cuda.noise(*at, False, torch.float64), reference.noise(*at, False, torch.float64))
    want = reference.noise(*at, True, torch.float64)
    for dtype, eps in ((torch.float32, 6e-7), (torch.bfloat16, 2.0**-8), (torch.float16, 2.0**-11)):
        got = cuda.noise(*at, True, dtype)
        assert got.dtype == dtype
        close(got, want, 1e-6, eps)
    for s in range(samples):  # the noise of sample_kl
        zero, one = torch.zeros_like(mu), torch.ones(3)
        z, _ = cuda.sample_kl(zero, zero, seed, step, index, 0 * one, one, 0 * one, None, 200, s)
        assert torch.equal(cuda.noise(*at, True, torch.float32)[:, :, s], z)
    for p in (torch.rand(b, d), torch.rand(3, b, d), torch.rand(b, d).bfloat16(), torch.rand(b, d).half()):
        assert torch.equal(cuda.bernoulli(seed, step, index, p, 4), reference.bernoulli(seed, step, index, p, 4))


# --- bernoulli_nll ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("b", "s", "p"), [(3, 2, 1), (2, 1, 784), (2, 3, 789), (1, 1, 4100)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("own", [False, True])
def test_bernoulli_nll(emulated, b, s, p, dtype, own):
    torch.manual_seed(p)
    y = (torch.randn(3, b, s, p) * torch.tensor([1e-3, 3.0, 1e4]).reshape(3, 1, 1, 1)).to(dtype)
    x, g = torch.rand((3, b, p) if own else (b, p)).round(decimals=1), torch.randn(3, b, s)
    out = cuda.bernoulli_nll(y, x)
    assert out.dtype == torch.float32
    close(out, reference.bernoulli_nll(*wide(y, x)), 1e-30, 1e-6)
    dy = cuda.bernoulli_nll_backward(g, y, x)
    assert dy.dtype == dtype
    close(dy, reference.bernoulli_nll_backward(*wide(g, y, x)), 1e-6, torch.finfo(dtype).eps)
    emulated.backwards = True
    assert torch.equal(out, cuda.bernoulli_nll(y, x))


def test_bernoulli_nll_of_nothing(emulated):
    for shape in ((0, 2, 1, 5), (2, 0, 1, 5), (2, 2, 0, 5), (2, 2, 1, 0)):
        y, x = torch.zeros(shape), torch.zeros(shape[1], shape[3])
        assert not cuda.bernoulli_nll(y, x).any() and cuda.bernoulli_nll(y, x).shape == shape[:3]
        assert cuda.bernoulli_nll_backward(torch.zeros(shape[:3]), y, x).shape == shape


# --- gaussian_mixture_kl -------------------------------------------------------------------------------------------


def test_mixture_kl(emulated):
    gen = torch.Generator().manual_seed(1)
    r = torch.tensor([0.0, 1e-3, 0.3, 1.0, 3.0, 8.0])
    mu, logvar = 3.0 * torch.randn(6, 9, 11, generator=gen), 2.0 * torch.randn(6, 9, 11, generator=gen)
    mu[:, 0] = 0.0
    want = reference.mixture_kl(*wide(mu, logvar, r))
    close(cuda.mixture_kl(mu, logvar, r), want, 2e-6, 1e-6)
    g = torch.randn_like(mu)
    for got, w in zip(
        cuda.mixture_kl_backward(g, mu, logvar, r), reference.mixture_kl_backward(*wide(g, mu, logvar, r)), strict=True
    ):
        close(got, w, 5e-6, 2e-6)
    half = mu.bfloat16(), logvar.bfloat16()
    close(cuda.mixture_kl(*half, r), reference.mixture_kl(*half, r), 1e-6, 2.0**-7)


# --- log_density, log_marginals --------------------------------------------------------------------------------------


def cloud(k, n, m, d, spread=1.0, seed=0):
    gen = torch.Generator().manual_seed(seed + 100 * d + m)
    mu, logvar = torch.randn(k, m, d, generator=gen), 0.7 * torch.randn(k, m, d, generator=gen) - 1.0
    z = spread * torch.randn(k, n, d, generator=gen)
    return z, mu, logvar


WEIGHTS = {"plain": (0.0, 0.0, 0), "without own": (-INF, 0.0, 2), "stratified": (-2.0, -0.5, 1)}
SHAPES = [(3, 9, 12, 5), (2, 70, 81, 1), (1, 37, 140, 33), (1, 130, 133, 4), (2, 3, 5, 70)]


def check(name, args, weights, atol, rtol, gtol):
    forward, backward = getattr(cuda, name), getattr(cuda, f"{name}_backward")
    out, lse = forward(*args, -1.5, *weights)
    want, want_lse = getattr(reference, name)(*wide(*args), -1.5, *weights)
    assert out.dtype == args[0].dtype and lse.dtype == torch.float64 and out.shape == want.shape
    close(lse, want_lse, atol, rtol)
    close(out, want, atol, rtol + 1e-7)
    if gtol is None:
        return
    g = torch.randn(out.shape, generator=torch.Generator().manual_seed(3))
    got = backward(g, *args, lse, *weights)
    want = getattr(reference, f"{name}_backward")(g.double(), *wide(*args), want_lse, *weights)
    for x, w in zip(got, want, strict=True):
        scale = w[w.isfinite()].abs().max().item() if w.isfinite().any() else 1.0
        close(x, w, gtol * max(scale, 1e-3), gtol)


@pytest.mark.parametrize("name", ["log_marginals", "log_density"])
@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS.keys())
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_densities(emulated, monkeypatch, name, shape, weights):
    monkeypatch.setattr(cuda, "_BLOCKS", 4)  # some blocks have several tiles, and some rows several blocks
    check(name, cloud(*shape), weights, 5e-6, 2e-6, 2e-5)


@pytest.mark.parametrize("name", ["log_marginals", "log_density"])
def test_the_last_row_has_the_first_component_next(emulated, name):
    for shape, offset in (((2, 69, 70, 3), 1), ((1, 1, 1, 2), 0), ((1, 130, 130, 1), 0)):
        check(name, cloud(*shape), (-2.0, -3.0, offset), 5e-6, 2e-6, 2e-5)


@pytest.mark.parametrize("name", ["log_marginals", "log_density"])
@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS.keys())
def test_points_far_from_every_component(emulated, monkeypatch, name, weights):
    """Logarithms and gradients where float32 exponentials are all 0."""
    monkeypatch.setattr(cuda, "_BLOCKS", 1)
    z, mu, logvar = cloud(2, 66, 70, 3)
    z[:, ::5] += 30.0
    z[0, 1::5, 0] -= 1000.0
    check(name, (z, mu, logvar), weights, 1e-5, 2e-6, 3e-5)


@pytest.mark.parametrize("name", ["log_marginals", "log_density"])
def test_widths_of_1e_minus_3_to_1e2(emulated, name):
    z, mu, logvar = cloud(1, 20, 70, 2)
    mu *= 1000.0
    logvar = torch.linspace(-13.8, 9.2, 140).reshape(1, 70, 2)
    z[:, ::2] = mu[:, :10]
    check(name, (z, mu, logvar), (0.0, 0.0, 0), 1e-5, 2e-6, 1e-4)


@pytest.mark.parametrize("name", ["log_marginals", "log_density"])
@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS.keys())
def test_a_nan_stays_where_it_belongs(emulated, name, weights):
    for place in ("z", "mu", "logvar"):
        args = cloud(1, 6, 66, 3)
        args[("z", "mu", "logvar").index(place)][0, 4, 1] = math.nan
        # an excluded pair's NaN log-variance gets into the reference's dz: 0 * exp(-NaN)
        leaks = place == "logvar" and weights[0] == -INF
        check(name, args, weights, 5e-6, 2e-6, None if leaks else 3e-5)


@pytest.mark.parametrize("name", ["log_marginals", "log_density"])
def test_no_rows_no_components(emulated, name):
    for n, m in ((0, 4), (3, 0)):
        z, mu, logvar = cloud(2, n, m, 3)
        out, lse = getattr(cuda, name)(z, mu, logvar, 0.0, 0.0, 0.0, 0)
        assert torch.equal(lse, torch.full(lse.shape, -INF, dtype=torch.float64)) and torch.equal(out.double(), lse)
        for x in getattr(cuda, f"{name}_backward")(torch.ones_like(out), z, mu, logvar, lse, 0.0, 0.0, 0):
            assert not x.any()


@pytest.mark.parametrize("name", ["log_marginals", "log_density"])
def test_a_component_at_infinity_and_bfloat16(emulated, name):
    z, mu, logvar = cloud(1, 5, 7, 3)
    mu[0, 2, 1] = INF
    out, _ = getattr(cuda, name)(z, mu, logvar, 0.0, 0.0, 0.0, 0)
    close(out, getattr(reference, name)(z, mu, logvar, 0.0, 0.0, 0.0, 0)[0], 5e-6, 2e-6)
    half = [x.bfloat16() for x in cloud(1, 5, 7, 3)]
    out, lse = getattr(cuda, name)(*half, 0.0, 0.0, 0.0, 0)
    _, want_lse = getattr(reference, name)(*half, 0.0, 0.0, 0.0, 0)
    assert out.dtype == torch.bfloat16
    close(lse, want_lse, 5e-6, 2e-6)
    for x in getattr(cuda, f"{name}_backward")(out, *half, lse, 0.0, 0.0, 0):
        assert x.dtype == torch.bfloat16 and x.isfinite().all()


@pytest.mark.parametrize("name", ["log_marginals", "log_density"])
@pytest.mark.parametrize("blocks", [1, 2048], ids=["many tiles a block", "one"])
def test_the_order_of_threads_changes_nothing(emulated, monkeypatch, name, blocks):
    """A missing barrier would show: the fibers run to the next one in turn."""
    monkeypatch.setattr(cuda, "_BLOCKS", blocks)
    args = cloud(1, 70, 140, 40)
    args[0][:, 3] += 100.0
    results = []
    for backwards in (False, True):
        emulated.backwards = backwards
        out, lse = getattr(cuda, name)(*args, 0.0, -1.0, -2.0, 3)
        results.append((out, lse, *getattr(cuda, f"{name}_backward")(out, *args, lse, -1.0, -2.0, 3)))
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)
