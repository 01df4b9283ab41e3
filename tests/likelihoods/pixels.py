"""A likelihood asked directly: -log p of pixels under a decoder's output."""

import numpy as np
import torch

from distvae.batch import Batch, Noise

F = torch.float64


def built(part, pixels, dtype=F):
    return part.build((pixels,)).to(dtype)


def ask(likelihood, y, x):
    """-log p `[B, S]` of `y` `[B, S, W]` and `x` `[B, P]`."""
    return likelihood.nll(y, x, Batch(x=x, noise=Noise(0, 0, np.arange(len(x))), total=len(x)))


def nll(part, y, x):
    return ask(built(part, x.shape[1], y.dtype), y, x)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=F, generator=torch.Generator().manual_seed(seed))


def some_bytes(*shape, seed=0):
    """Pixels byte / 255, the two ends among them."""
    byte = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed)).to(F)
    byte.view(-1)[:2] = torch.tensor([0.0, 255.0], dtype=F)
    return byte / 255


def every_byte(y):
    """-log P of each of the 256 values of one pixel under `y` `[W]`: `[256]`, each pixel an example."""
    x = (torch.arange(256, dtype=y.dtype) / 255)[:, None]
    return y.expand(256, 1, -1), x
