"""Categorical pixels, by value and by bit, against torch.distributions."""

import math

import pytest
import torch
from pixels import F, built, every_byte, nll, randn, some_bytes
from torch.distributions import Bernoulli, Categorical

from distvae.likelihoods import BitwiseCategorical, Categorical256
from distvae.likelihoods.likelihood import bytes_of


def test_every_byte_is_read_back_in_either_precision():
    byte = torch.arange(256)
    for dtype in (torch.float32, F):
        assert torch.equal(bytes_of(byte.to(dtype) / 255), byte)


def test_categorical_is_torchs():
    x, y = some_bytes(4, 3), 2 * randn(4, 2, 256 * 3)
    q = Categorical(logits=y.unflatten(-1, (256, 3)).transpose(-1, -2))  # [4, 2, 3]
    byte = (x * 255).round()[:, None].expand(4, 2, 3)
    torch.testing.assert_close(nll(Categorical256(), y, x), -q.log_prob(byte).sum(-1))
    mean = (q.probs * torch.arange(256, dtype=F)).sum(-1) / 255
    torch.testing.assert_close(built(Categorical256(), 3).mean(y), mean)
    assert Categorical256().width((1, 28, 28)) == 200704


def test_bits_are_eight_of_torchs_bernoullis_most_significant_first():
    x, y = some_bytes(4, 3), 2 * randn(4, 2, 8 * 3)
    byte = (x * 255).round().long()
    bits = torch.stack([(byte // 2**k) % 2 for k in range(7, -1, -1)], 1).to(F)  # [4, 8, 3]
    wanted = -Bernoulli(logits=y.unflatten(-1, (8, 3))).log_prob(bits[:, None].expand(4, 2, 8, 3)).sum((-1, -2))
    torch.testing.assert_close(nll(BitwiseCategorical(), y, x), wanted)
    assert BitwiseCategorical().width((1, 2, 3)) == 48


@pytest.mark.parametrize("value", [0, 1, 127, 128, 200, 255])
def test_bits_can_say_a_value_and_its_mean(value):
    y = torch.tensor([50.0 if value >> k & 1 else -50.0 for k in range(7, -1, -1)], dtype=F)
    p = nll(BitwiseCategorical(), *every_byte(y))[:, 0].neg().exp()
    assert float(p[value]) == pytest.approx(1.0) and int(p.argmax()) == value
    assert float(built(BitwiseCategorical(), 1).mean(y)[0]) == pytest.approx(value / 255)


def test_an_untrained_decoder_is_eight_bits():
    x = some_bytes(4, 3)
    for part in (Categorical256(), BitwiseCategorical()):
        each = nll(part, torch.zeros(4, 2, part.width((3,)), dtype=F), x)
        torch.testing.assert_close(each, torch.full((4, 2), 3 * 8 * math.log(2), dtype=F))
        torch.testing.assert_close(
            built(part, 3).mean(torch.zeros(part.width((3,)), dtype=F)), torch.full((3,), 0.5, dtype=F)
        )
