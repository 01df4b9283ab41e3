"""The MLP against the same layers written out."""

import pytest
import torch
from torch import nn

from distvae.nets import Mlp


def linear_widths(net):
    return [(m.in_features, m.out_features, m.bias is not None) for m in net if isinstance(m, nn.Linear)]


def test_the_toy_vae_of_s1_table_1():
    net = Mlp(hidden=(256, 128))
    assert linear_widths(net.encoder((1, 28, 28), 32)) == [(784, 256, True), (256, 128, True), (128, 32, True)]
    assert linear_widths(net.decoder(16, 784, (1, 28, 28))) == [(16, 128, True), (128, 256, True), (256, 784, True)]


def test_no_hidden_layer_is_the_linear_vae():
    assert linear_widths(Mlp(hidden=()).encoder((3,), 4)) == [(3, 4, True)]
    assert linear_widths(Mlp(hidden=()).decoder(2, 3, (3,))) == [(2, 3, True)]


def test_only_the_heads_bias_goes():
    widths = linear_widths(Mlp(hidden=(5, 4)).encoder((3,), 2, head_bias=False))
    assert [b for *_, b in widths] == [True, True, False]


@pytest.mark.parametrize("name", ["relu", "tanh", "gelu", "silu", "elu"])
def test_forward_is_affine_then_the_activation(name):
    net = Mlp(hidden=(5,), activation=name).encoder((1, 2, 2), 3)
    first, last = (m for m in net if isinstance(m, nn.Linear))
    x = torch.linspace(-2, 2, 24).reshape(6, 1, 2, 2)
    h = getattr(torch.nn.functional, name)(x.reshape(6, 4) @ first.weight.T + first.bias)
    torch.testing.assert_close(net(x), h @ last.weight.T + last.bias)


def test_the_decoder_takes_any_leading_shape():
    assert Mlp(hidden=(5,)).decoder(2, 3, (3,))(torch.zeros(4, 6, 2)).shape == (4, 6, 3)
