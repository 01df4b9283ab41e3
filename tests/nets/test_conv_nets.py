"""The convolutional nets: shapes, exact mirrors, weights counted by hand, the loops written out."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from distvae.nets import Conv, Conv3x3, ConvLarge, Mlp
from distvae.nets.init import initialize

NETS = {"conv": Conv(), "conv_large": ConvLarge(channels=(4, 6, 8, 10), top=12, hidden=9), "conv3x3": Conv3x3()}


def count(net):
    return sum(p.numel() for p in net.parameters())


def sizes(net, shape):
    """(channels, height, width) after each convolution of stride 2, from a forward pass."""
    seen, h = [], torch.zeros(1, *shape)
    for layer in net:
        h = layer(h)
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.stride == (2, 2):
            seen.append(tuple(h.shape[1:]))
    return seen


@pytest.mark.parametrize("maps", [1, 2, 10], ids=lambda k: f"{k} per pixel")
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [8, 28, 32, 64])
@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_every_size_and_number_of_channels_goes_in_and_comes_out(net, side, channels, maps):
    shape = (channels, side, side)
    assert net.refusal(shape) is None
    x = torch.rand(2, *shape)
    h = net.encoder(shape, 7)(x)
    assert h.shape == (2, 7)
    decoder = net.decoder(5, maps * math.prod(shape), shape)
    assert decoder(torch.rand(2, 5)).shape == (2, maps * math.prod(shape))
    last = [m for m in decoder if isinstance(m, nn.ConvTranspose2d)][-1]
    assert last.out_channels == maps * channels


@pytest.mark.parametrize("shape", [(1, 5, 7), (1, 28, 20), (2, 31, 64), (1, 1, 9), (1, 3, 3)])
@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_the_decoder_visits_the_encoders_maps_in_reverse(net, shape):
    down = sizes(net.encoder(shape, 2), shape)
    up = sizes(net.decoder(5, math.prod(shape), shape), (5,))
    assert up == [*reversed(down[:-1]), shape]


def test_convvae_of_s1_at_64():
    down = sizes(Conv().encoder((3, 64, 64), 64), (3, 64, 64))
    assert down == [(8, 32, 32), (16, 16, 16), (32, 8, 8), (64, 4, 4), (128, 1, 1)]
    up = sizes(Conv().decoder(32, 3 * 64 * 64, (3, 64, 64)), (32,))
    assert up == [(64, 4, 4), (32, 8, 8), (16, 16, 16), (8, 32, 32), (3, 64, 64)]
    convs = [m for m in Conv().encoder((3, 64, 64), 64) if isinstance(m, nn.Conv2d)]
    assert [(m.kernel_size, m.stride, m.padding) for m in convs] == [((4, 4), (2, 2), (1, 1))] * 4 + [
        ((4, 4), (2, 2), (0, 0))
    ]


def test_convvae_at_32_and_28_has_one_block_less_and_at_28_one_kernel_of_3():
    assert sizes(Conv().encoder((3, 32, 32), 2), (3, 32, 32)) == [(8, 16, 16), (16, 8, 8), (32, 4, 4), (128, 1, 1)]
    assert sizes(Conv().encoder((1, 28, 28), 2), (1, 28, 28)) == [(8, 14, 14), (16, 7, 7), (32, 4, 4), (128, 1, 1)]
    up = Conv().decoder(2, 784, (1, 28, 28))
    assert sizes(up, (2,)) == [(32, 4, 4), (16, 7, 7), (8, 14, 14), (1, 28, 28)]
    assert [m.kernel_size[0] for m in up if isinstance(m, nn.ConvTranspose2d)] == [4, 3, 4, 4]
    assert {m.output_padding for m in up if isinstance(m, nn.ConvTranspose2d)} == {(0, 0)}


def test_s5_table_1():
    assert sizes(Conv3x3().encoder((1, 28, 28), 50), (1, 28, 28)) == [(32, 14, 14), (64, 7, 7), (64, 4, 4), (128, 2, 2)]
    decoder = Conv3x3().decoder(50, 784, (1, 28, 28))
    assert sizes(decoder, (50,)) == [(64, 4, 4), (64, 7, 7), (32, 14, 14), (1, 28, 28)]
    assert [m.out_features for m in decoder if isinstance(m, nn.Linear)] == [512]
    assert sizes(Conv3x3().encoder((1, 8, 8), 2), (1, 8, 8)) == [(32, 4, 4), (64, 2, 2), (64, 1, 1), (128, 1, 1)]


def conv(i, o, k):
    return i * o * k * k + o


def dense(i, o):
    return i * o + o


def test_weights_counted_by_hand():
    body = conv(8, 16, 4) + conv(16, 32, 4)
    at64 = conv(3, 8, 4) + body + conv(32, 64, 4) + conv(64, 128, 4) + dense(128, 128) + dense(128, 64)
    assert count(Conv().encoder((3, 64, 64), 64)) == at64 == 199_480
    back = dense(32, 128) + dense(128, 128) + conv(128, 64, 4) + conv(64, 32, 4)
    back += conv(32, 16, 4) + conv(16, 8, 4) + conv(8, 3, 4)
    assert count(Conv().decoder(32, 3 * 64 * 64, (3, 64, 64))) == back
    at28 = conv(1, 8, 4) + conv(8, 16, 4) + conv(16, 32, 3) + conv(32, 128, 4) + dense(128, 128) + dense(128, 4)
    assert count(Conv().encoder((1, 28, 28), 4)) == at28
    s5 = conv(1, 32, 3) + conv(32, 64, 3) + conv(64, 64, 3) + conv(64, 128, 3) + dense(512, 50)
    assert count(Conv3x3().encoder((1, 28, 28), 50)) == s5
    large = [(3, 32), (32, 64), (64, 128), (128, 256)]
    weights = sum(conv(i, o, 4) + conv(o, o, 3) for i, o in large) + conv(256, 512, 4) + dense(512, 512)
    assert count(ConvLarge().encoder((3, 64, 64), 2)) == weights + dense(512, 2)


def test_a_forward_pass_written_out():
    net, shape = Conv3x3(channels=(2, 3), activation="tanh"), (1, 6, 5)
    encoder, decoder = net.encoder(shape, 4).double(), net.decoder(2, 60, shape).double()
    x, z = torch.rand(3, *shape, dtype=torch.float64), torch.rand(3, 2, dtype=torch.float64)
    w = [m for m in encoder if hasattr(m, "weight")]
    h = F.conv2d(x, w[0].weight, w[0].bias, stride=2, padding=1).tanh()
    h = F.conv2d(h, w[1].weight, w[1].bias, stride=2, padding=1).tanh()
    torch.testing.assert_close(encoder(x), h.flatten(1) @ w[2].weight.T + w[2].bias)
    w = [m for m in decoder if hasattr(m, "weight")]
    h = (z @ w[0].weight.T + w[0].bias).tanh().reshape(3, 3, 2, 2)
    h = F.conv_transpose2d(h, w[1].weight, w[1].bias, stride=2, padding=1, output_padding=(0, 0)).tanh()
    h = F.conv_transpose2d(h, w[2].weight, w[2].bias, stride=2, padding=1, output_padding=(1, 0))
    torch.testing.assert_close(decoder(z), h.flatten(1))


def test_outputs_are_parameter_major():
    """Output channel k C + c is map c of parameter k, as the likelihoods read it."""
    shape = (3, 8, 8)
    decoder = Conv().decoder(2, 2 * 192, shape)
    with torch.no_grad():
        last = [m for m in decoder if isinstance(m, nn.ConvTranspose2d)][-1]
        last.weight.zero_()
        last.bias.copy_(torch.arange(6.0))
        y = decoder(torch.zeros(1, 2)).unflatten(-1, (2, 3, 8, 8))
    assert torch.equal(y[0, :, :, 0, 0], torch.arange(6.0).reshape(2, 3))


def test_depth_adds_convolutions_where_there_is_more_than_a_pixel():
    plain, deep = (
        [m.stride[0] for m in Conv(depth=k).encoder((1, 8, 8), 2) if isinstance(m, nn.Conv2d)] for k in (0, 2)
    )
    assert plain == [2, 2] and deep == [2, 1, 1, 2]


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_vectors_are_refused(net):
    why = net.refusal((784,))
    assert why == "x has shape [784], and a convolution needs images [C, H, W]; use an mlp"
    with pytest.raises(ValueError, match="use an mlp"):
        net.encoder((784,), 4)
    with pytest.raises(ValueError, match="use an mlp"):
        net.decoder(4, 784, (784,))
    assert Mlp().refusal((784,)) is None


def test_too_large_images_are_refused_with_what_is_allowed_and_the_fix():
    assert Conv().refusal((3, 128, 128)) == (
        "images of 128 x 128 take 5 halvings to 4 x 4, and `channels` names 4: sides up to 64 are allowed; "
        "name 5 channels, or resize the images"
    )
    assert ConvLarge().refusal((3, 65, 8)) and not Conv().refusal((3, 64, 8))
    assert Conv(channels=(8, 16, 32, 64, 64)).refusal((3, 128, 128)) is None
    with pytest.raises(ValueError, match="name 5 channels"):
        Conv().encoder((3, 128, 128), 4)


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_a_width_that_is_no_number_of_maps_is_refused(net):
    with pytest.raises(ValueError, match=r"65 numbers, and a convolutional one gives whole maps of 8 x 8"):
        net.decoder(2, 65, (1, 8, 8))


def test_conv3x3_needs_a_convolution():
    with pytest.raises(ValueError, match="at least one convolution"):
        Conv3x3(channels=())


@pytest.mark.parametrize(
    "net",
    [
        Conv(channels=(2,), top=2, hidden=2, activation="tanh"),
        ConvLarge(channels=(2,), top=2, hidden=2, activation="silu"),
        Conv3x3(channels=(2, 2), activation="elu"),
    ],
    ids=NETS,
)
def test_gradcheck(net):
    shape = (1, 5, 6)
    encoder, decoder = net.encoder(shape, 2).double(), net.decoder(2, 30, shape).double()
    for module, x in (
        (encoder, torch.linspace(0, 1, 30, dtype=torch.float64).reshape(1, *shape)),
        (decoder, torch.tensor([[0.3, -0.8]], dtype=torch.float64)),
    ):
        initialize(module, 1)
        weights = dict(module.named_parameters())

        def f(x, *values, module=module, names=tuple(weights)):
            return torch.func.functional_call(module, dict(zip(names, values, strict=True)), (x,))

        assert torch.autograd.gradcheck(f, (x.requires_grad_(), *weights.values()))


def test_heads_without_bias():
    for net in NETS.values():
        biases = [m.bias is not None for m in net.encoder((1, 8, 8), 2, head_bias=False) if hasattr(m, "weight")]
        assert biases == [True] * (len(biases) - 1) + [False]
