"""Initial weights depend on their address and the active width, never on construction order."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import nn

from distvae.nets import Mlp
from distvae.nets.init import initialize
from distvae.vae import Model, Vae


def build(order):
    layers = {"a": lambda: nn.Linear(5, 3), "b": lambda: nn.Linear(4, 2), "c": lambda: nn.Conv2d(2, 3, 2)}
    layers["t"] = lambda: nn.ConvTranspose2d(2, 3, 2)
    net = nn.Module()
    for name in order:
        net.add_module(name, layers[name]())
    initialize(net, 7)
    return net.state_dict()


def test_weights_do_not_depend_on_the_order_of_construction_nor_on_torchs_generator():
    torch.manual_seed(0)
    one = build("abct")
    torch.manual_seed(1)
    other = build("tcab")
    assert one.keys() == other.keys()
    for name, w in one.items():
        assert torch.equal(w, other[name]), name


def test_seed_and_name_both_matter():
    def weight(seed, name):
        net = nn.ModuleDict({name: nn.Linear(30, 30)})
        initialize(net, seed)
        return net[name].weight

    assert not torch.isclose(weight(0, "a"), weight(1, "a")).any()
    assert not torch.isclose(weight(0, "a"), weight(0, "b")).any()


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [
        (nn.Linear(64, 400), 64),
        (nn.Conv2d(4, 200, 3), 36),
        (nn.Linear(1, 5000), 1),
        (nn.ConvTranspose2d(30, 200, 3), 1800),
        (nn.ConvTranspose2d(400, 4, 3), 36),
    ],
    ids=["linear", "conv", "one input", "deconv", "narrow deconv"],
)
def test_the_law_is_torchs_default(layer, fan_in):
    initialize(layer, 3)
    bound = 1 / math.sqrt(fan_in)
    ours = layer.weight.detach().clone()
    for p in (layer.weight, *([layer.bias] if len(layer.bias) > 99 else [])):
        p = p.detach().numpy().ravel()
        assert np.abs(p).max() <= bound
        assert kstest(p, "uniform", args=(-bound, 2 * bound)).pvalue > 1e-3
    # torch's own draw has the same bound
    assert layer.bias.detach().abs().max() <= bound
    layer.reset_parameters()
    assert layer.weight.detach().abs().max() == pytest.approx(bound, rel=0.05)
    for k in (2, 4):  # U(-b, b) has moments b^k / (k + 1); 4 standard errors of either
        of = [w.double().pow(k) for w in (ours, layer.weight.detach())]
        error = 4 * math.hypot(*(float(w.std()) / math.sqrt(w.numel()) for w in of))
        assert float(of[0].mean() - of[1].mean()) == pytest.approx(0, abs=error)


def test_other_parameters_keep_what_their_part_gave_them():
    net = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    with torch.no_grad():
        net[1].weight.fill_(0.25)
    initialize(net, 0)
    assert (net[1].weight == 0.25).all()


def test_rows_of_a_transposed_convolution_are_its_inputs():
    narrow, wide = nn.ConvTranspose2d(3, 2, 3), nn.ConvTranspose2d(5, 2, 3)
    initialize(narrow, 1)
    initialize(wide, 1)
    assert torch.equal(narrow.weight, wide.weight[:3]) and torch.equal(narrow.bias, wide.bias)


def test_a_module_may_set_its_own_values_and_comes_after_the_layers_inside_it():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.free = nn.Linear(2, 2), nn.Parameter(torch.zeros(1))

        def initialize(self, seed, name):
            self.called = seed, name
            self.layer.weight.mul_(0.0)
            self.free.fill_(seed)

    net = nn.Sequential(nn.Linear(2, 2), nn.ModuleDict({"own": Own()}))
    initialize(net, 9)
    own = net[1]["own"]
    assert own.called == (9, "1.own") and own.free == 9
    assert (own.layer.weight == 0).all() and (own.layer.bias != 0).all()


def test_a_narrower_model_has_the_wider_ones_weights():
    def vae(d):
        return Vae(Model(encoder=Mlp(hidden=(6,)), latent_dim=d), (1, 2, 2), seed=5, dtype=torch.float64)

    narrow, wide = vae(2), vae(7)
    head, wider = narrow.encoder[-1], wide.encoder[-1]
    assert torch.equal(head.weight, wider.weight[:4]) and torch.equal(head.bias, wider.bias[:4])
    first, wider = narrow.decoder[0], wide.decoder[0]
    # Same uniforms; the bound is the *active* fan-in's. (Weights are born float32, hence 1e-6.)
    torch.testing.assert_close(first.weight * math.sqrt(2), wider.weight[:, :2] * math.sqrt(7), rtol=1e-6, atol=1e-7)
    assert first.weight.abs().max() > 1 / math.sqrt(7)
    assert torch.equal(narrow.encoder[1].weight, wide.encoder[1].weight)
    assert torch.equal(narrow.decoder[-1].weight, wide.decoder[-1].weight)
