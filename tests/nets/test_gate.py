"""Gates of beta (Multi-Rate VAE): values, gradients, and the exact optimum of the linear beta-VAE at every beta."""

import math

import numpy as np
import pytest
import torch

from distvae.nets import Conv, Gate, Mlp
from distvae.nets.gate import sqrt_gate

BETAS = np.geomspace(0.01, 10, 13)


def test_the_square_root_gate():
    u = torch.linspace(-8, 3, 2001, dtype=torch.float64)
    want = np.sqrt(np.maximum(0, -np.expm1(u.numpy())))
    np.testing.assert_allclose(sqrt_gate(u), want, rtol=1e-14, atol=0)
    assert (sqrt_gate(u)[u >= 0] == 0).all()


def test_its_gradient_is_the_formulas_and_finite_at_and_beyond_the_boundary():
    u = torch.tensor([-9.0, -1.0, -1e-3, -1e-6, -1e-7, -1e-12, -0.0, 1e-12, 1.0, 60.0, 1e3, 1e30], requires_grad=True)
    for v in (u, u.detach().double().requires_grad_()):
        (slope,) = torch.autograd.grad(sqrt_gate(v).sum(), v)
        assert slope.isfinite().all() and (slope <= 0).all() and slope.abs().max() <= 1000.1
        inside = v.detach() < -2e-6
        want = -v.exp() / (2 * torch.sqrt(-torch.expm1(v)))
        torch.testing.assert_close(slope[inside], want[inside].detach())
        assert (slope[v > 0] == 0).all()


def test_near_the_boundary_it_is_the_chord():
    u = torch.tensor([-1e-6, -2.5e-7, -1e-7], dtype=torch.float64)
    torch.testing.assert_close(sqrt_gate(u), -torch.expm1(u) * 1000, rtol=1e-3, atol=0)
    assert (sqrt_gate(u) <= (-u).sqrt()).all()


def told(net, role, features, **kw):
    return Gate(slope_rate=0.1).condition(net, role, features, **kw).double()


def set_all(module, seed=0):
    """Random slopes and offsets, so that nothing is right by its initial value."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=g, dtype=torch.float64))
    return module


def sqrt_relu(u):
    return np.sqrt(np.maximum(0, 1 - np.exp(u)))


def test_an_encoder_written_out():
    net = set_all(told(Mlp(hidden=(3,), activation="tanh").encoder((4,), 6), "encoder", (4,)))
    w = {k: v.numpy() for k, v in net.state_dict().items()}
    x, t = np.random.default_rng(0).normal(size=(5, 4)), np.linspace(-2, 2, 5)
    h = np.tanh(x @ w["1.weight"].T + w["1.bias"])
    h = h / (1 + np.exp(-(t[:, None] * w["beta2.slope"] + w["beta2.offset"])))
    h = h @ w["3.weight"].T + w["3.bias"]
    mean = h[:, 0::2] * sqrt_relu(t[:, None] * (1 + 0.1 * w["beta3.mean.slope"]) + w["beta3.mean.offset"])
    log_var = h[:, 1::2] + np.minimum(0, t[:, None] * (1 + 0.1 * w["beta3.log_var.slope"]) + w["beta3.log_var.offset"])
    with torch.no_grad():
        y = net(torch.tensor(x), torch.tensor(t)).numpy()
    np.testing.assert_allclose(y[:, 0::2], mean, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(y[:, 1::2], log_var, rtol=1e-12)
    assert (mean == 0).any() and (mean != 0).any()


def test_a_decoder_written_out_with_gates_on_its_input_and_none_on_the_pixels():
    net = set_all(told(Mlp(hidden=(3,), activation="tanh").decoder(2, 4, (4,)), "decoder", (2,)))
    w = {k: v.numpy() for k, v in net.state_dict().items()}
    assert {k.split(".")[0] for k in w if k.startswith("beta")} == {"beta_in", "beta1"}
    z, t = np.random.default_rng(0).normal(size=(5, 2)), np.linspace(-2, 2, 5)
    h = z * sqrt_relu(t[:, None] * (1 + 0.1 * w["beta_in.slope"]) + w["beta_in.offset"])
    h = np.tanh(h @ w["0.weight"].T + w["0.bias"])
    h = h * sqrt_relu(t[:, None] * (1 + 0.1 * w["beta1.slope"]) + w["beta1.offset"])
    with torch.no_grad():
        y = net(torch.tensor(z), torch.tensor(t)).numpy()
    np.testing.assert_allclose(y, h @ w["2.weight"].T + w["2.bias"], rtol=1e-12)


def test_a_convolution_has_one_gate_a_channel_and_as_many_values_as_counted():
    shape = (1, 8, 8)
    plain = Conv(channels=(2,), top=3, hidden=4)
    encoder, decoder = plain.encoder(shape, 10), plain.decoder(5, 64, shape)
    before = [sum(p.numel() for p in n.parameters()) for n in (encoder, decoder)]
    nets = told(encoder, "encoder", shape), told(decoder, "decoder", (5,))
    extra = [sum(p.numel() for p in n.parameters()) - b for n, b in zip(nets, before, strict=True)]
    assert extra == [2 * (2 + 3 + 4 + 10), 2 * (5 + 4 + 3 + 2)]
    maps = set_all(nets[0])
    assert maps(torch.rand(3, *shape, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)).shape == (3, 10)


def test_a_head_that_is_not_mean_and_log_variance_is_gated_whole():
    net = told(Mlp(hidden=()).encoder((4,), 3), "encoder", (4,), pairs=False)
    x = torch.randn(2, 4, dtype=torch.float64)
    plain = x @ net.state_dict()["1.weight"].T + net.state_dict()["1.bias"]
    open_, closed = torch.tensor([-5.0, 6.0], dtype=torch.float64).split(1)
    torch.testing.assert_close(net(x, open_.expand(2)), plain * math.sqrt(1 - math.exp(-10)))
    assert (net(x, closed.expand(2)) == 0).all()


def test_initial_gates_are_open_from_beta_001_to_10_and_every_one_of_them_learns():
    encoder = told(Mlp(hidden=(3,)).encoder((4,), 6), "encoder", (4,))
    decoder = told(Mlp(hidden=(3,)).decoder(3, 4, (4,)), "decoder", (3,))
    t = torch.tensor(BETAS).log()
    ones = torch.ones(len(t), 3, dtype=torch.float64)
    for gate in (encoder.beta2, encoder.beta3.mean, decoder.beta_in, decoder.beta1):
        g = gate(ones, t)
        assert (g > 0.94).all() and (g <= 1).all()
        for p in gate.parameters():
            assert (torch.autograd.grad(gate(ones, t).sum(), p)[0].abs() > 1e-3).all()
    shift = encoder.beta3.log_var(0 * ones, t)
    assert (shift < 0).all() and torch.autograd.grad(shift.sum(), encoder.beta3.log_var.slope)[0].abs().min() > 1


@torch.no_grad()
def optimum(lam, var, d, seed=0):
    """The gated linear encoder and decoder, set by hand to the closed-form optimum of every beta. Returns them and the
    data's covariance."""
    rng = np.random.default_rng(seed)
    axes = torch.tensor(np.linalg.qr(rng.normal(size=(len(lam), len(lam))))[0])
    lam = torch.tensor(lam, dtype=torch.float64)
    encoder = told(Mlp(hidden=()).encoder((len(lam),), 2 * d), "encoder", (len(lam),))
    decoder = told(Mlp(hidden=()).decoder(d, len(lam), (len(lam),)), "decoder", (d,))
    for p in (*encoder.parameters(), *decoder.parameters()):
        p.zero_()
    encoder.get_parameter("1.weight")[0::2] = axes[:, :d].T / lam[:d, None].sqrt()
    decoder.get_parameter("0.weight").copy_(axes[:, :d] * lam[:d].sqrt())
    for gate in (encoder.beta1.mean, encoder.beta1.log_var, decoder.beta_in):
        gate.offset.copy_(torch.log(var / lam[:d]))
    return encoder, decoder, axes @ torch.diag(lam) @ axes.T


def expectations(encoder, decoder, cov, beta):
    """(rate, summed squared error) of linear nets on N(0, cov), in closed form: both maps are read off the basis."""
    n, d = len(cov), decoder.get_parameter("0.weight").shape[1]
    t = torch.full((n + 1,), math.log(beta), dtype=torch.float64)
    head = encoder(torch.cat([torch.zeros(1, n), torch.eye(n)]).double(), t)
    mean, log_var = (head[1:, 0::2] - head[0, 0::2]).T, head[0, 1::2]  # [d, n], [d]
    assert torch.equal(head[1:, 1::2], log_var.expand(n, d)), "the variance depends on x"
    columns = (decoder(torch.eye(d).double(), t[:d]) - decoder(torch.zeros(1, d).double(), t[:1])).T  # [n, d]
    rate = 0.5 * (log_var.exp() + torch.einsum("dn,nm,dm->d", mean, cov, mean) - 1 - log_var).sum()
    left = torch.eye(n).double() - columns @ mean
    return rate, torch.trace(left @ cov @ left.T) + (columns.square().sum(0) * log_var.exp()).sum()


@pytest.mark.parametrize("d", [5, 3])
@pytest.mark.parametrize("var", [0.25, 1.3])
def test_one_gated_linear_vae_is_reverse_water_filling_at_every_beta(var, d):
    lam = np.array([4.0, 2.0, 1.0, 0.5, 0.03])
    nets = optimum(lam, var, d)
    for beta in [*BETAS, 40.0, 2.0 / var]:  # the last closes a gate exactly
        rate, sse = (v.item() for v in expectations(*nets, beta))
        theta, kept = beta * var, lam[:d]
        assert rate == pytest.approx(0.5 * np.log(kept / theta).clip(0).sum(), rel=1e-6, abs=1e-9)
        assert sse == pytest.approx(np.minimum(kept, theta).sum() + lam[d:].sum(), rel=1e-6)


def test_the_optimum_has_no_gradient():
    """Of the loss sse / (2 s^2) + beta rate in every weight, gate and slope, at betas away from a closing."""
    lam, var = np.array([4.0, 2.0, 1.0]), 0.25
    encoder, decoder, cov = optimum(lam, var, 3)
    parameters = (*encoder.parameters(), *decoder.parameters())
    for beta in (0.1, 1.0, 5.0, 10.0, 100.0):
        rate, sse = expectations(encoder, decoder, cov, beta)
        slopes = torch.autograd.grad(sse / (2 * var) + beta * rate, parameters, allow_unused=True)
        assert max(float(s.abs().max()) for s in slopes if s is not None) < 1e-9
