"""Strided convolutions and their exact mirror: what the convolutional nets are made of.

A `Step` is a stride-2 convolution of a map of `large` to one of `small` pixels. The transposed convolution with the
same numbers gives s' = 2 (s - 1) - 2 padding + kernel + missing pixels, and `missing` (torch's output_padding) is
chosen such that s' is `large` again, whatever its parity: no crop, no resize."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from distvae.nets.net import ACTIVATIONS, Activation

Size = tuple[int, int]


class Step(NamedTuple):
    """Each entry is (height, width), but `padding`, one for both."""

    large: Size
    small: Size
    kernel: Size
    padding: int
    missing: Size  # output_padding of the mirror


def halve(large: Size, even: int) -> Step:
    """Padding 1; kernel `even` along a side of even length, 3 along an odd one. With `even=4` nothing is missing:
    n -> n/2 -> n and n -> (n + 1)/2 -> n."""
    kernel = tuple(3 if n % 2 else even for n in large)
    small = tuple((n - k) // 2 + 2 for n, k in zip(large, kernel, strict=True))
    missing = tuple(n - (2 * s - 4 + k) for n, s, k in zip(large, small, kernel, strict=True))
    return Step(large, small, kernel, 1, missing)  # type: ignore[arg-type]


def whole(large: Size) -> Step:
    """The whole map to one pixel: a kernel of its size, no padding."""
    return Step(large, (1, 1), large, 0, (0, 0))


def down(
    steps: Sequence[Step], channels: Sequence[int], c_in: int, name: Activation, depth: int = 0
) -> list[nn.Module]:
    """`[N, c_in, *steps[0].large] -> [N, channels[-1], *steps[-1].small]`, a non-linearity after every layer; after
    each step that leaves more than one pixel, `depth` 3 x 3 convolutions of stride 1."""
    act = ACTIVATIONS[name]
    layers: list[nn.Module] = []
    for step, c in zip(steps, channels, strict=True):
        layers += [nn.Conv2d(c_in, c, step.kernel, stride=2, padding=step.padding), act()]
        layers += _flat(c, act, depth, step)
        c_in = c
    return layers


def up(steps: Sequence[Step], channels: Sequence[int], c_out: int, name: Activation, depth: int = 0) -> list[nn.Module]:
    """The mirror: `[N, channels[-1], *steps[-1].small] -> [N, c_out, *steps[0].large]`, the last layer affine."""
    act = ACTIVATIONS[name]
    layers: list[nn.Module] = []
    for step, c, c_next in zip(reversed(steps), reversed(channels), [*reversed(channels[:-1]), c_out], strict=True):
        layers += _flat(c, act, depth, step)
        layers += [nn.ConvTranspose2d(c, c_next, step.kernel, 2, step.padding, step.missing), act()]
    return layers[:-1]


def _flat(c: int, act: type[nn.Module], depth: int, step: Step) -> list[nn.Module]:
    times = depth if max(step.small) > 1 else 0
    return [layer for _ in range(times) for layer in (nn.Conv2d(c, c, 3, padding=1), act())]


def not_an_image(x_shape: Sequence[int]) -> str | None:
    """The refusal of vectors."""
    if len(x_shape) == 3:
        return None
    return f"x has shape {list(x_shape)}, and a convolution needs images [C, H, W]; use an mlp"


def maps(width: int, x_shape: Sequence[int]) -> int:
    """Output channels of a convolutional decoder: `width` numbers over the pixels of x."""
    h, w = x_shape[-2:]
    if width % (h * w):
        raise ValueError(
            f"the likelihood asks the decoder for {width} numbers, and a convolutional one gives whole maps of "
            f"{h} x {w}: choose a likelihood with its parameters per pixel, or an mlp decoder"
        )
    return width // (h * w)
