"""The kernels as torch operators: opcheck, torch.compile, vmap, torch.func, and an error for second derivatives."""

import pytest
import torch
from cases import agree, randn, same_bits
from torch.func import grad, vmap
from torch.library import opcheck

from distvae import kernels
from distvae.kernels import (
    bernoulli_nll,
    gaussian_kl,
    gaussian_mixture_kl,
    log_density,
    log_marginals,
    mpd,
    noise,
    sample_kl,
)

K, B, D = 3, 5, 6
F64 = torch.float64


def floats(*shape, seed=0):
    return randn(*shape, seed=seed)


def sampled(masked: bool):
    each = torch.tensor([1.0, 0.8, 0.5]), torch.full((K,), 0.1)
    mask = torch.arange(D) < torch.tensor([[6], [3], [5]]) if masked else None
    tensors = floats(K, B, D, seed=1), floats(K, B, D, seed=2), torch.arange(K), torch.arange(K) + 1, torch.arange(B)
    return *tensors, torch.tensor([0.0, 0.3, 1.0]), *each, mask, 5, 2


Z = floats(K, 4, D, seed=1), floats(K, B, D, seed=2), floats(K, B, D, seed=3)
WEIGHTS = -1.0, -2.0, 0.3, 1
MIXED = floats(K, B, D, seed=1), floats(K, B, D, seed=2), torch.tensor([0.0, 0.5, 3.0])
UP = floats(K, B, D, seed=8), floats(K, B, D, seed=9)

SHARED, OWN = torch.rand(B, D, generator=torch.Generator().manual_seed(0)), torch.rand(K, B, D)
LOGITS = floats(K, B, 2, D, seed=4)
ADDRESS = torch.arange(K), torch.arange(K) + 1, torch.arange(B)

# operator -> arguments, and how many of them (the first) are differentiable
OPERATORS = {
    "sample_kl": ([sampled(False), sampled(True)], 2),
    "sample_kl_backward": ([(*UP, *sampled(False)), (*UP, *sampled(True))], 0),
    "noise": ([(*ADDRESS, 3, 2, D, normal, kind) for normal, kind in ((True, torch.float32), (False, F64))], 0),
    "bernoulli": ([(*ADDRESS, SHARED, 4), (*ADDRESS, OWN, 4)], 0),
    "bernoulli_nll": ([(LOGITS, SHARED), (LOGITS, OWN), (LOGITS.bfloat16(), SHARED)], 1),
    "bernoulli_nll_backward": ([(UP[0][..., :2], LOGITS, SHARED), (UP[0][..., :2], LOGITS, OWN)], 0),
    "mixture_kl": ([MIXED], 2),
    "mixture_kl_backward": ([(UP[0], *MIXED)], 0),
    "log_density": ([(*Z, *WEIGHTS)], 3),
    "log_density_backward": ([(floats(K, 4), *Z, floats(K, 4, seed=5).double(), *WEIGHTS[1:])], 0),
    "log_marginals": ([(*Z, *WEIGHTS)], 3),
    "log_marginals_backward": ([(floats(K, 4, D), *Z, floats(K, 4, D, seed=5).double(), *WEIGHTS[1:])], 0),
}

INDEX = torch.arange(B)
PUBLIC = {
    "sample_kl": lambda m, lv: sum(
        sample_kl(m, lv, seed=3, step=1, index=INDEX.to(m.device), r=0.3, p_keep=0.7, floor=0.1)
    ),
    "bernoulli_nll": lambda m, lv: bernoulli_nll(torch.stack([m, lv], -2), SHARED.to(m.device)),
    "gaussian_kl": lambda m, lv: gaussian_kl(m, lv, r=0.3, prior_mu=0.1, prior_logvar=-0.2),
    "gaussian_mixture_kl": lambda m, lv: gaussian_mixture_kl(m, lv, 0.7),
    "log_density": lambda m, lv: log_density(m[..., :4, :], m, lv, sampling="stratified", dataset_size=9),
    "log_marginals": lambda m, lv: log_marginals(m[..., :4, :], m, lv, exclude_self=True),
    "mpd": lambda m, lv: mpd(m, lv, statistic="u"),
}
DRAWN = {"normals", "uniforms", "bernoulli"}  # no functions of mu and logvar: test_noise.py
FUSED = ["sample_kl", "bernoulli_nll", "gaussian_mixture_kl", "log_density", "log_marginals"]  # operators of their own
EACH = pytest.mark.parametrize("name", PUBLIC)


def test_no_operator_and_no_function_is_left_out():
    assert set(PUBLIC) | DRAWN == set(kernels.__all__) and all(hasattr(noise, name) for name in DRAWN)
    registered = {n for n in torch._C._dispatch_get_all_op_names() if n.startswith("distvae::")}
    assert registered == {f"distvae::{name}" for name in OPERATORS}


@pytest.mark.parametrize("name", OPERATORS)
def test_opcheck(back_end, name):
    operator = getattr(torch.ops.distvae, name).default
    calls, differentiable = OPERATORS[name]
    for call in calls:
        call = [x.to(back_end) if isinstance(x, torch.Tensor) else x for x in call]
        call[:differentiable] = [x.clone().requires_grad_() for x in call[:differentiable]]
        opcheck(operator, tuple(call))


def gradients(f, *tensors):
    leaves = [x.detach().clone().requires_grad_() for x in tensors]
    out = f(*leaves)
    return out.detach(), *torch.autograd.grad((out * out.detach().cos()).sum(), leaves)


@EACH
def test_it_compiles_whole_forward_and_backward(back_end, name):
    mu, logvar = floats(B, D, seed=1).to(back_end), floats(B, D, seed=2).to(back_end)
    torch._dynamo.reset()
    compiled = torch.compile(PUBLIC[name], fullgraph=True, backend="aot_eager")
    for a, b in zip(gradients(compiled, mu, logvar), gradients(PUBLIC[name], mu, logvar), strict=True):
        agree(a, b, trials=False, within=1e-6)


def test_a_compiled_step_counted_by_a_tensor_is_compiled_once():
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()

    @torch.compile(fullgraph=True, backend=counter)
    def z(mu, logvar, step, index):
        return sample_kl(mu, logvar, seed=0, step=step, index=index)[0]

    mu, logvar = floats(B, D, seed=1), floats(B, D, seed=2)
    for step in range(3):
        same_bits(
            z(mu, logvar, torch.tensor(step), INDEX + step),
            sample_kl(mu, logvar, seed=0, step=step, index=INDEX + step)[0],
        )
    assert counter.frame_count == 1


@pytest.mark.slow
def test_it_compiles_with_inductor(back_end):
    mu, logvar = floats(B, D, seed=1).to(back_end), floats(B, D, seed=2).to(back_end)
    torch._dynamo.reset()

    def every(m, lv):
        return sum(f(m, lv).sum() for f in PUBLIC.values())

    for a, b in zip(
        gradients(torch.compile(every, fullgraph=True), mu, logvar), gradients(every, mu, logvar), strict=True
    ):
        agree(a, b, trials=False)


@EACH
def test_vmap_is_the_stack_of_single_calls_and_so_are_its_gradients(back_end, name):
    f = PUBLIC[name]
    mu, logvar = floats(K, B, D, seed=1).to(back_end), floats(K, B, D, seed=2).to(back_end)
    check = same_bits if name in FUSED else lambda a, b: agree(a, b, trials=False, within=1e-6)

    def slope(m, lv):
        return grad(lambda *x: f(*x).sum(), argnums=(0, 1))(m, lv)

    out, slopes = vmap(f)(mu, logvar), vmap(slope)(mu, logvar)
    for k in range(K):
        leaves = [x[k].clone().requires_grad_() for x in (mu, logvar)]
        one = f(*leaves)
        check(out[k], one.detach())
        for a, b in zip(slopes, torch.autograd.grad(one.sum(), leaves), strict=True):
            check(a[k], b)
    # the trial axis elsewhere, one argument shared, an axis inside the trials
    check(
        vmap(f, in_dims=(1, None), out_dims=0)(mu.movedim(0, 1), logvar[0]), torch.stack([f(m, logvar[0]) for m in mu])
    )
    twice = torch.stack([mu, 2 * mu]), torch.stack([logvar, logvar - 1])
    check(
        vmap(vmap(f))(*twice),
        torch.stack([torch.stack([f(m, lv) for m, lv in zip(*x, strict=True)]) for x in zip(*twice, strict=True)]),
    )
    check(vmap(f)(*twice), vmap(vmap(f))(*twice))


def test_vmap_over_seeds_steps_ids_and_hyper_parameters(back_end):
    mu, logvar = floats(K, B, D, seed=1).to(back_end), floats(K, B, D, seed=2).to(back_end)
    seed, step = torch.tensor([3, -1, 2**40], device=back_end), torch.arange(K, device=back_end)
    index = torch.arange(K * B, device=back_end).reshape(K, B)
    each = {"r": torch.tensor([0.0, 0.3, 1.0]), "p_keep": torch.tensor([1.0, 0.8, 0.5]), "floor": torch.full((K,), 0.1)}
    each = {name: x.to(back_end) for name, x in each.items()}
    mask = (torch.arange(D) < torch.tensor([[6], [3], [5]])).to(back_end)

    def one(m, lv, seed, step, index, mask, each):
        return sample_kl(m, lv, seed=seed, step=step, index=index, mask=mask, **each)

    out = vmap(one)(mu, logvar, seed, step, index, mask, each)
    for k in range(K):
        alone = one(mu[k], logvar[k], seed[k], step[k], index[k], mask[k], {name: x[k] for name, x in each.items()})
        for a, b in zip(out, alone, strict=True):
            same_bits(a[k], b)
    shared = vmap(lambda seed: one(mu[0], logvar[0], seed, 0, index[0], None, {}))(seed)
    for k in range(K):
        same_bits(shared[0][k], one(mu[0], logvar[0], seed[k], 0, index[0], None, {})[0])
    # K trials in each of two, with ids of their own
    two = torch.stack([mu, mu]), torch.stack([logvar, logvar])
    nested = vmap(lambda m, lv, i: one(m, lv, seed, step, i, mask, each))(*two, index[:2])
    for v in range(2):
        for a, b in zip(nested, one(mu, logvar, seed, step, index[v], mask, each), strict=True):
            same_bits(a[v], b)


@pytest.mark.parametrize("name", FUSED)
def test_a_second_derivative_is_an_error_that_says_so(back_end, name):
    f = PUBLIC[name]
    mu, logvar = floats(B, D, seed=1).to(back_end).requires_grad_(), floats(B, D, seed=2).to(back_end)
    (slope,) = torch.autograd.grad(f(mu, logvar).square().sum(), mu, create_graph=True)
    with pytest.raises(RuntimeError, match=r"once, not twice|once_differentiable"):
        slope.sum().backward()
    with pytest.raises(RuntimeError, match=r"once, not twice|once_differentiable"):
        grad(lambda x: grad(lambda y: f(y, logvar).square().sum())(x).sum())(mu.detach())


@pytest.mark.parametrize("name", FUSED)
def test_one_argument_may_need_no_gradient(back_end, name):
    mu, logvar = floats(B, D, seed=1).to(back_end), floats(B, D, seed=2).to(back_end)
    both = gradients(PUBLIC[name], mu, logvar)
    same_bits(gradients(lambda m: PUBLIC[name](m, logvar), mu)[1], both[1])
    same_bits(gradients(lambda lv: PUBLIC[name](mu, lv), logvar)[1], both[2])
    assert not PUBLIC[name](mu, logvar).requires_grad


def test_either_output_of_sample_kl_may_go_unused(back_end):
    mu, logvar = (floats(B, D, seed=s).to(back_end).requires_grad_() for s in (1, 2))
    more = {"seed": 0, "step": 0, "index": INDEX.to(back_end)}
    z, kl = sample_kl(mu, logvar, **more)
    (dz,) = torch.autograd.grad(z.sum(), mu, retain_graph=True)
    same_bits(dz, torch.ones_like(dz))
    (dkl,) = torch.autograd.grad(kl.sum(), mu)
    same_bits(dkl, mu.detach())
