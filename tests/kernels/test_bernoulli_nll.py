"""bernoulli_nll against torch's cross-entropy in float64: values, slopes, extreme logits, and what must not move a bit."""

import pytest
import torch
from cases import agree, randn, same_bits, strided
from torch.func import grad, vmap
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from distvae.kernels import bernoulli_nll

K, B, S = 4, 5, 3


def oracle(y, x):
    """float64: softplus(y) - x y where the target is below 1/2, and the mirror of it above, so that it does not cancel."""
    y, x = y.double(), x.double().unsqueeze(-2).expand(y.shape)
    return (torch.where(x > 0.5, softplus(-y), softplus(y)) + torch.where(x > 0.5, (1 - x) * y, -x * y)).sum(-1)


def images(*shape, seed=0):
    """Grey, a third black or white."""
    x = torch.rand(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.where(x < 1 / 6, 0.0, torch.where(x > 5 / 6, 1.0, x))


def logits(*shape, seed=0):
    """Trials of every size: unsure, usual, sure, 1e4."""
    return randn(*shape, seed=seed) * torch.tensor([1e-3, 2.0, 30.0, 1e4]).reshape(-1, 1, 1, 1)


def test_the_oracle_is_torchs_cross_entropy():
    y, x = 4 * randn(K, B, S, 30), images(B, 30)
    wanted = binary_cross_entropy_with_logits(y.double(), x.double()[:, None].expand(y.shape), reduction="none").sum(-1)
    torch.testing.assert_close(oracle(y, x), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("p", [1, 7, 64, 784, 3073, 12288])
def test_values_and_slopes(back_end, p):
    y, x = logits(K, B, S, p), images(B, p)
    mine = y.to(back_end).requires_grad_()
    out = bernoulli_nll(mine, x.to(back_end))
    wide = y.double().requires_grad_()
    wanted = oracle(wide, x)
    assert out.shape == (K, B, S) and out.dtype == torch.float32
    torch.testing.assert_close(out.detach().cpu().double(), wanted.detach(), rtol=2e-6, atol=1e-30)
    up = randn(K, B, S, seed=3)
    (slope,) = torch.autograd.grad(out, mine, up.to(back_end))
    agree(slope, up[..., None] * (wide.sigmoid() - x.double()[:, None]), within=1e-6)


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("size", [0.0, 1e-3, 1.0, 16.0, 80.0, 1e4])
def test_sure_logits_keep_their_relative_accuracy(back_end, size, right):
    """Right ones too, where sigmoid(y) rounds to 1: 784 pixels of 1e-7 nats are 1e-4, not 0."""
    x = (torch.arange(784) % 2).float()[None]
    y = ((2 * x - 1) * (size if right else -size))[:, None]
    mine = y.to(back_end).requires_grad_()
    out = bernoulli_nll(mine, x.to(back_end))
    torch.testing.assert_close(out.detach().cpu().double(), oracle(y, x), rtol=2e-6, atol=1e-30)
    (slope,) = torch.autograd.grad(out.sum(), mine)
    sign = 1 - 2 * x.double()[:, None]
    torch.testing.assert_close(slope.cpu().double(), sign * (sign * y.double()).sigmoid(), rtol=1e-6, atol=1e-30)


def test_nan_stays(back_end):
    y, x = randn(2, 2, 20), images(2, 20)
    y[1, 0, 19] = torch.nan
    mine = y.to(back_end).requires_grad_()
    out = bernoulli_nll(mine, x.to(back_end))
    assert out.isnan().tolist() == [[False, False], [True, False]]
    (slope,) = torch.autograd.grad(out.sum(), mine)
    assert slope.isnan().sum() == 1 and slope[1, 0, 19].isnan()


def test_float64_is_exact_and_gradcheck():
    y, x = randn(B, S, 9, dtype=torch.float64).requires_grad_(), images(B, 9).double()
    torch.testing.assert_close(bernoulli_nll(y, x), oracle(y, x), rtol=1e-14, atol=0)
    assert torch.autograd.gradcheck(lambda y: bernoulli_nll(y, x), y)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_summed_in_float32(back_end, dtype):
    y, x = randn(B, S, 100).to(back_end, dtype).requires_grad_(), images(B, 100).to(back_end)
    out = bernoulli_nll(y, x)
    assert out.dtype == torch.float32
    whole = y.detach().float().requires_grad_()
    agree(out, bernoulli_nll(whole, x), trials=False, within=1e-6)
    (half,), (full,) = (torch.autograd.grad(bernoulli_nll(a, x).sum(), a) for a in (y, whole))
    assert half.dtype == dtype
    agree(half, full, trials=False, within=torch.finfo(dtype).eps / 2)


# --- what must not move a bit -----------------------------------------------------------------------------------------


def both(y, x):
    y = y.detach().clone().requires_grad_()
    out = bernoulli_nll(y, x)
    return out.detach(), torch.autograd.grad((out * (0.1 + out.detach().sin())).sum(), y)[0]


@pytest.mark.parametrize("p", [5, 64, 789])
def test_trials_slots_shards_strides_and_threads_change_nothing(back_end, p):
    y, x = logits(K, 40, S, p).to(back_end), images(40, p).to(back_end)
    whole = both(y, x)
    for k in range(K):
        for one, many in zip(both(y[k], x), whole, strict=True):
            same_bits(one, many[k])
    for order in ([3, 1, 0], [2]):
        for other, many in zip(both(y[order], x), whole, strict=True):
            same_bits(other, many[order])
    for rows in ([39], [5, 5, 2], list(range(0, 40, 3))):
        for part, many in zip(both(y[:, rows], x[rows]), whole, strict=True):
            same_bits(part, many[:, rows])
    for one, many in zip(both(y[:, :, 1:2], x), whole, strict=True):
        same_bits(one, many[:, :, 1:2])
    own = x.expand(K, *x.shape)
    torch.set_num_threads(2)
    for other in (both(strided(y), strided(x)), both(y, own), both(y, own.contiguous()), both(y, x)):
        for a, b in zip(other, whole, strict=True):
            same_bits(a, b)


def test_vmap_is_the_stack_of_single_calls_and_so_are_its_gradients(back_end):
    y, x = logits(K, B, S, 30).to(back_end), images(B, 30).to(back_end)
    own = torch.stack([x, 1 - x, x / 2, x]).to(back_end)

    def slope(y, x):
        return grad(lambda y: bernoulli_nll(y, x).sum())(y)

    for f in (bernoulli_nll, slope):
        same_bits(vmap(f, in_dims=(0, None))(y, x), torch.stack([f(one, x) for one in y]))
        same_bits(vmap(f)(y, own), torch.stack([f(a, b) for a, b in zip(y, own, strict=True)]))
        same_bits(vmap(f, in_dims=(None, 0))(y[1], own), torch.stack([f(y[1], b) for b in own]))
        same_bits(vmap(f, in_dims=(2, None))(y.movedim(0, 2), x), vmap(f, in_dims=(0, None))(y, x))
    # trials inside trials, with images shared by the inner ones
    twice = torch.stack([y, -y])
    same_bits(vmap(bernoulli_nll)(twice, own[:2]), torch.stack([bernoulli_nll(twice[v], own[v]) for v in range(2)]))
    # gradients of a vmapped call, taken outside
    leaf = y.clone().requires_grad_()
    (outside,) = torch.autograd.grad(vmap(bernoulli_nll, in_dims=(0, None))(leaf, x).sum(), leaf)
    same_bits(outside, vmap(slope, in_dims=(0, None))(y, x))


def test_k_trials_are_one_call_of_the_back_end(monkeypatch):
    from distvae.kernels import backend, reference

    calls = []
    monkeypatch.setattr(backend, "pick", lambda x: calls.append(tuple(x.shape)) or reference)
    vmap(bernoulli_nll, in_dims=(0, None))(logits(K, B, S, 6), images(B, 6))
    assert calls == [(K, B, S, 6)]


@pytest.mark.parametrize("shape", [(0, 2, 3), (2, 0, 3), (2, 3, 0), (0, 2, 3, 4), (2, 2, 3, 0)])
def test_nothing_in_zeros_out(back_end, shape):
    y = torch.zeros(shape, device=back_end, requires_grad=True)
    out = bernoulli_nll(y, torch.zeros(shape[-3], shape[-1], device=back_end))
    assert torch.equal(out, torch.zeros_like(out)) and out.shape == shape[:-1]
    assert torch.autograd.grad(out.sum(), y)[0].shape == shape


Y, X = torch.zeros(4, 2, 3), torch.zeros(4, 3)


@pytest.mark.parametrize(
    ("y", "x", "error", "said"),
    [
        ([[0.0]], X, TypeError, r"^y: a tensor is needed, not list"),
        (Y.long(), X, TypeError, r"^y: dtype int64 is not one of float32"),
        (Y[0], X, ValueError, r"^y: shape \[2, 3\] has 2 dimensions, not 3 or 4"),
        (Y, 0.5, TypeError, r"^x: a tensor is needed, not float"),
        (Y, X.bool(), TypeError, r"^x: dtype bool is not one of float32"),
        (Y, X[None], ValueError, r"^x: shape \[1, 4, 3\] has 3 dimensions, not 2"),
        (Y, X[:2], ValueError, r"^x: shape \[2, 3\] is not \[4, 3\], which y \[4, 2, 3\] asks for"),
        (Y[None], X[None, :2], ValueError, r"^x: shape \[1, 2, 3\] is not \[4, 3\] or \[1, 4, 3\], which y"),
        (Y, X.to("meta"), ValueError, r"^x: on meta, but y is on cpu: move one of them"),
        (Y, X.clone().requires_grad_(), ValueError, r"^x: it requires a gradient, and only y has one: pass x.detach"),
    ],
)
def test_bad_arguments_are_named(y, x, error, said):
    with pytest.raises(error, match=said):
        bernoulli_nll(y, x)
