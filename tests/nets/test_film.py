"""FiLM of log beta (YOTO) on every net, against the formula written out."""

import math

import pytest
import torch
from torch import nn

from distvae.nets import Conv, Conv3x3, ConvLarge, Film, Gate, Mlp
from distvae.nets.init import initialize
from distvae.objectives import BetaInput
from distvae.rules import refusals
from distvae.trial import Trial
from distvae.vae import Model

NETS = {
    "mlp": Mlp(hidden=(6, 5)),
    "conv": Conv(channels=(2,), top=3, hidden=4),
    "conv_large": ConvLarge(channels=(2,), top=3, hidden=4),
    "conv3x3": Conv3x3(channels=(2, 3)),
}
SHAPE = (1, 8, 8)


def roles(net, part):
    """(conditioned net, its plain weights' net, an input) of the encoder and of the decoder, float64."""
    for role, plain, x in (
        ("encoder", lambda: net.encoder(SHAPE, 4), torch.rand(3, *SHAPE, dtype=torch.float64)),
        ("decoder", lambda: net.decoder(2, 64, SHAPE), torch.randn(3, 2, dtype=torch.float64)),
    ):
        told, alone = part.condition(plain(), role, x.shape[1:]), plain()
        initialize(told, 3)
        initialize(alone, 3)
        yield role, told.double(), alone.double(), x


@pytest.mark.parametrize("part", [Film(hidden=7), Gate()], ids=["film", "gate"])
@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_layers_keep_their_names_and_so_their_initial_weights(net, part):
    for _, told, alone, _ in roles(net, part):
        weights = told.state_dict()
        assert set(alone.state_dict()) < set(weights)
        assert all(torch.equal(w, weights[name]) for name, w in alone.state_dict().items())


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_a_of_zero_is_the_plain_net(net):
    for _, told, alone, x in roles(net, Film(a=0.0, hidden=7)):
        assert torch.equal(told(x, torch.tensor([-3.0, 0.0, 2.0]).double()), alone(x))


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_the_formula_after_every_hidden_non_linearity(net):
    for _, told, alone, x in roles(net, Film(a=0.3, hidden=7)):
        log_beta = torch.tensor([-3.0, 0.5, 2.0]).double()
        w, h, used = told.state_dict(), x, 0
        for i, layer in enumerate(alone):
            h = layer(h)
            if isinstance(layer, nn.ReLU):
                hidden = (log_beta[:, None] * w[f"beta{i}.mlp.0.weight"][:, 0] + w[f"beta{i}.mlp.0.bias"]).relu()
                out = hidden @ w[f"beta{i}.mlp.2.weight"].T + w[f"beta{i}.mlp.2.bias"]
                scale, shift = (v.reshape(*v.shape, *[1] * (h.dim() - 2)) for v in (out[:, 0::2], out[:, 1::2]))
                h, used = (1 + 0.3 * scale) * h + 0.3 * shift, used + 1
        assert used == sum(name.endswith("mlp.0.bias") for name in w) > 0
        torch.testing.assert_close(told(x, log_beta), h)


def test_weights_counted_by_hand():
    told = Film(hidden=512).condition(Mlp(hidden=(256, 128)).encoder((784,), 8), "encoder", (784,))
    extra = sum(p.numel() for name, p in told.named_parameters() if name.startswith("beta"))
    assert extra == 2 * (512 + 512) + (513 * 2 * 256) + (513 * 2 * 128)


def test_it_starts_near_the_plain_net_over_the_betas_of_yoto_and_mr_vae():
    net = Mlp(hidden=(64,))
    told, alone = Film().condition(net.encoder((20,), 8), "encoder", (20,)), net.encoder((20,), 8)
    for n in (told, alone):
        initialize(n, 0)
    x = torch.randn(200, 20)
    for beta in (0.01, 1.0, 10.0, 512.0):
        change = told(x, torch.full((200,), math.log(beta))) - alone(x)
        assert 0 < change.square().mean().sqrt() < 0.5 * alone(x).std()


def test_a_linear_net_is_refused():
    assert "gate" in Film().refusal(Mlp(hidden=()))
    assert Film().refusal(Mlp(hidden=(3,))) is None and Film().refusal(Conv()) is None
    assert Gate().refusal(Mlp(hidden=())) is None


@pytest.mark.parametrize("part", [Film(hidden=2), Gate()], ids=["film", "gate"])
@pytest.mark.parametrize(
    "net", [Mlp(hidden=(2,), activation="tanh"), Conv3x3(channels=(2,), activation="elu")], ids=["mlp", "conv"]
)
def test_gradcheck(net, part):
    shape = (1, 3, 2)
    for role, module, x in (
        ("encoder", net.encoder(shape, 4), torch.rand(2, *shape, dtype=torch.float64)),
        ("decoder", net.decoder(2, 6, shape), torch.randn(2, 2, dtype=torch.float64)),
    ):
        told = part.condition(module, role, x.shape[1:])
        initialize(told, 1)
        told.double()
        weights = dict(told.named_parameters())

        def f(x, log_beta, *values, told=told, names=tuple(weights)):
            return torch.func.functional_call(told, dict(zip(names, values, strict=True)), (x, log_beta))

        log_beta = torch.tensor([-2.0, 1.0], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(f, (x.requires_grad_(), log_beta, *weights.values()))


@pytest.mark.parametrize("part", [Film(hidden=2), Gate()], ids=["film", "gate"])
def test_each_example_hears_its_own_beta(part):
    for _, told, _, x in roles(NETS["conv"], part):
        log_beta = torch.tensor([-3.0, 0.5, 2.0]).double()
        alone = torch.cat([told(x[i : i + 1], log_beta[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(told(x, log_beta), alone)
        x = x[:1].expand(3, *x.shape[1:])
        y = told(x, log_beta)
        assert not torch.isclose(y[0], y[1]).all() and not torch.isclose(y[1], y[2]).all()


@pytest.mark.parametrize("field", ["encoder", "decoder"])
def test_a_config_with_it_is_refused_at_the_linear_net(field):
    nets = {"encoder": Mlp(), "decoder": Mlp()} | {field: Mlp(hidden=())}
    trial = Trial(vae=Model(conditioning=Film(), **nets), objective=BetaInput())
    ((where, why),) = refusals(trial)
    assert where == f"vae.{field}" and "use {type: gate}" in why
    assert not list(refusals(Trial(vae=Model(conditioning=Gate(), **nets), objective=BetaInput())))
