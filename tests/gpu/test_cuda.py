"""The CUDA kernels on a device, function by function, against reference.py. (tests/kernels/test_cuda_emulated.py runs
the same kernels without one.)"""

import math

import pytest
import torch

from distvae.kernels import cuda, reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
INF = math.inf


@pytest.fixture(autouse=True)
def on_the_device():
    assert cuda.unavailable() is None
    torch.manual_seed(0)
    with torch.device("cuda"):
        yield


def wide(*args):
    return [x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in args]


def close(got, want, atol, rtol):
    torch.testing.assert_close(got.double(), want.double(), atol=atol, rtol=rtol, equal_nan=True)


def sample_arguments(k, b, d, p_keep, floor, dtype=torch.float32, mask=False):
    mu, logvar = torch.randn(k, b, d).to(dtype), torch.randn(k, b, d).to(dtype)
    seed, step = torch.arange(k) * 3_000_000_019 + 2**40, torch.arange(k) + 2**33 + 5
    hyper = torch.linspace(0.0, 2.0, k), torch.full((k,), p_keep), torch.full((k,), floor)
    keep = torch.rand(k, d) < 0.6 if mask else None
    return [mu, logvar, seed, step, torch.randint(2**35, (b,)), *hyper, keep, 5, 3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("k", "b", "d"), [(1, 7, 1), (3, 129, 33), (2, 1000, 32), (64, 64, 20)])
def test_sample_kl(k, b, d, dtype):
    eps = {torch.float32: 2e-6, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-10}[dtype]
    for p_keep, floor, mask in ((1.0, 0.0, False), (0.7, 0.1, True)):
        args = sample_arguments(k, b, d, p_keep, floor, dtype, mask)
        for got, want in zip(cuda.sample_kl(*args), reference.sample_kl(*wide(*args)), strict=True):
            close(got, want, eps, 2 * eps)
        g = torch.randn_like(args[0]), torch.randn_like(args[0])
        got, want = cuda.sample_kl_backward(*g, *args), reference.sample_kl_backward(*wide(*g, *args))
        for x, w in zip(got, want, strict=True):
            close(x, w, 4 * eps, 4 * eps)


def test_the_words_are_philox():
    """At mu = logvar = 0 and p = 1, z is the normal itself: within 4 ulp + 1e-6 only if every word is right; and which
    variances are dropped depends on words to the last bit."""
    args = sample_arguments(5, 4096, 37, 0.37, 0.25)
    args[0].zero_(), args[1].zero_()
    z, _ = cuda.sample_kl(*args)
    eps, g = reference._noise(args[0], args[2], args[3], args[4], args[6], 5, 3)
    want = (g + 0.25).sqrt() * eps
    close(z, want, 1e-6, 6e-7)
    words = reference.words(args[2], args[3], args[4], stream=1, sample=0, dim=37)
    args[6] = ((words.amin((1, 2)).double() + 0.5) * 2.0**-32).float()  # just about to keep one
    eps, g = reference._noise(args[0], args[2], args[3], args[4], args[6], 5, 3)
    z, _ = cuda.sample_kl(*args)
    assert torch.equal(z.abs() > 100 * eps.abs(), (g > 0) & (eps != 0))


def test_an_unaligned_view_gives_the_same_bits():
    args = sample_arguments(1, 50, 8, 0.7, 0.1)
    want = cuda.sample_kl(*args)
    for i in (0, 1):
        args[i] = torch.cat([torch.zeros(1), args[i].flatten()])[1:].reshape(args[i].shape)
    for got, w in zip(cuda.sample_kl(*args), want, strict=True):
        assert torch.equal(got, w)


def test_a_graph_sees_new_steps():
    args = sample_arguments(4, 256, 16, 0.8, 0.1)
    g = torch.randn_like(args[0]), torch.randn_like(args[0])
    cuda.sample_kl(*args), cuda.sample_kl_backward(*g, *args)  # loads the module
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = *cuda.sample_kl(*args), *cuda.sample_kl_backward(*g, *args)
    for step in (7, 8):
        args[3].fill_(step)
        graph.replay()
        for got, want in zip(outputs, (*cuda.sample_kl(*args), *cuda.sample_kl_backward(*g, *args)), strict=True):
            assert torch.equal(got, want)


@pytest.mark.parametrize(("b", "samples", "d"), [(7, 1, 1), (129, 3, 33), (128, 1, 784), (1000, 2, 32)])
def test_noise(b, samples, d):
    mu, _, seed, step, index, *_ = sample_arguments(3, b, d, 1.0, 0.0)
    at = seed, step, index, 200, samples, d
    assert torch.equal(cuda.noise(*at, False, torch.float64), reference.noise(*at, False, torch.float64))
    want = reference.noise(*at, True, torch.float64)
    for dtype, eps in ((torch.float32, 6e-7), (torch.bfloat16, 2.0**-8), (torch.float16, 2.0**-10)):
        close(cuda.noise(*at, True, dtype), want, 1e-6, eps)
    zero, one = torch.zeros_like(mu), torch.ones(3)
    z, _ = cuda.sample_kl(zero, zero, seed, step, index, 0 * one, one, 0 * one, None, 200, samples - 1)
    assert torch.equal(cuda.noise(*at, True, torch.float32)[:, :, -1], z)
    for p in (torch.rand(b, d), torch.rand(3, b, d), torch.rand(b, d).bfloat16(), torch.rand(b, d).half()):
        assert torch.equal(cuda.bernoulli(seed, step, index, p, 4), reference.bernoulli(seed, step, index, p, 4))


@pytest.mark.parametrize(("b", "s", "p"), [(3, 2, 1), (128, 1, 784), (20, 3, 789), (16, 1, 12288)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_bernoulli_nll(b, s, p, dtype):
    y = (torch.randn(3, b, s, p) * torch.tensor([1e-3, 3.0, 1e4]).reshape(3, 1, 1, 1)).to(dtype)
    g = torch.randn(3, b, s)
    for x in (torch.rand(b, p).round(decimals=1), torch.rand(3, b, p)):
        close(cuda.bernoulli_nll(y, x), reference.bernoulli_nll(*wide(y, x)), 1e-30, 2e-6)
        close(
            cuda.bernoulli_nll_backward(g, y, x),
            reference.bernoulli_nll_backward(*wide(g, y, x)),
            1e-6,
            2 * torch.finfo(dtype).eps,
        )
        assert torch.equal(cuda.bernoulli_nll(y, x), cuda.bernoulli_nll(y, x))


def test_mixture_kl():
    r = torch.tensor([0.0, 1e-3, 0.3, 1.0, 3.0, 8.0])
    mu, logvar, g = 3.0 * torch.randn(6, 50, 11), 2.0 * torch.randn(6, 50, 11), torch.randn(6, 50, 11)
    close(cuda.mixture_kl(mu, logvar, r), reference.mixture_kl(*wide(mu, logvar, r)), 2e-6, 1e-6)
    want = reference.mixture_kl_backward(*wide(g, mu, logvar, r))
    for got, w in zip(cuda.mixture_kl_backward(g, mu, logvar, r), want, strict=True):
        close(got, w, 1e-5, 3e-6)
    half = mu.bfloat16(), logvar.bfloat16()
    close(cuda.mixture_kl(*half, r), reference.mixture_kl(*half, r), 1e-6, 2.0**-7)


def cloud(k, n, m, d):
    return torch.randn(k, n, d), torch.randn(k, m, d), 0.7 * torch.randn(k, m, d) - 1.0


def check(name, args, weights, gtol=3e-5):
    out, lse = getattr(cuda, name)(*args, -1.5, *weights)
    want, want_lse = getattr(reference, name)(*wide(*args), -1.5, *weights)
    close(lse, want_lse, 1e-5, 3e-6)
    close(out, want, 1e-5, 3e-6)
    g = torch.randn(out.shape)
    got = getattr(cuda, f"{name}_backward")(g, *args, lse, *weights)
    expected = getattr(reference, f"{name}_backward")(g.double(), *wide(*args), want_lse, *weights)
    for x, w in zip(got, expected, strict=True):
        close(x, w, gtol * max(w.nan_to_num().abs().max().item(), 1e-3), gtol)
    again = *getattr(cuda, name)(*args, -1.5, *weights), *getattr(cuda, f"{name}_backward")(g, *args, lse, *weights)
    for x, y in zip((out, lse, *got), again, strict=True):
        assert torch.equal(x.nan_to_num(), y.nan_to_num())  # bit for bit, every time


@pytest.mark.parametrize("name", ["log_marginals", "log_density"])
@pytest.mark.parametrize("weights", [(0.0, 0.0, 0), (-INF, 0.0, 2), (-2.0, -0.5, 1)], ids=str)
@pytest.mark.parametrize(
    "shape", [(3, 9, 12, 5), (2, 70, 81, 1), (1, 300, 333, 33), (2, 1000, 1100, 32), (1, 3, 5, 130)]
)
def test_densities(name, shape, weights):
    check(name, cloud(*shape), weights)


@pytest.mark.parametrize("name", ["log_marginals", "log_density"])
@pytest.mark.parametrize("weights", [(0.0, 0.0, 0), (-INF, 0.0, 2), (-2.0, -0.5, 1)], ids=str)
def test_far_points_and_nans(name, weights):
    z, mu, logvar = cloud(2, 290, 300, 3)
    z[:, ::5] += 30.0
    z[0, 1::5, 0] -= 1000.0
    check(name, (z, mu, logvar), weights, 1e-4)
    for x in (z, mu):
        kept = x[0, 4, 1].item()
        x[0, 4, 1] = math.nan
        check(name, (z, mu, logvar), weights, 1e-4)
        x[0, 4, 1] = kept


@pytest.mark.parametrize("name", ["log_marginals", "log_density"])
def test_no_rows_no_components_and_another_stream(name):
    for n, m in ((0, 4), (3, 0)):
        z, mu, logvar = cloud(2, n, m, 3)
        out, lse = getattr(cuda, name)(z, mu, logvar, 0.0, 0.0, 0.0, 0)
        assert torch.equal(lse, torch.full(lse.shape, -INF, dtype=torch.float64))
        for x in getattr(cuda, f"{name}_backward")(torch.ones_like(out), z, mu, logvar, lse, 0.0, 0.0, 0):
            assert not x.any()
    args = cloud(1, 500, 500, 16)
    want, _ = getattr(cuda, name)(*args, 0.0, 0.0, 0.0, 0)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        got, _ = getattr(cuda, name)(*args, 0.0, 0.0, 0.0, 0)
    stream.synchronize()
    assert torch.equal(got, want)
