"""Gradient variance of an estimator (S5 Fig. 5; the paper does not say how it is measured).

g_n is the gradient of the batch's mean training loss with respect to the encoder's parameters at one fixed batch and
fixed weights, under the n-th draw of all latent noise (and dropout); over n = 1..N

    trace   = tr Cov[g] = sum_i Var[g_i], unbiased (N - 1)          square = mean_n |g_n|^2

so E[square] = |E g|^2 + trace, and trace / square, in [0, N / (N - 1)], says how much of a step is noise. The trace
falls as 1 / B with independent examples: compare estimators at one batch size."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from distvae.batch import Batch

if TYPE_CHECKING:
    from distvae.vae import Vae


class GradientVariance(NamedTuple):
    trace: float  # tr Cov[g], (nats per example / unit of weight)^2
    square: float  # mean |g|^2, the same unit


def gradient_variance(vae: Vae, objective: nn.Module, batch: Batch, draws: int) -> GradientVariance:
    """Of `draws` >= 2 draws at noise steps batch.noise.step, + 1, ..., in training mode; float64 sums (Welford).

    Leaves weights, `.grad`, buffers (running statistics) and the mode as they were. Of this process's shard alone."""
    if draws < 2:
        raise ValueError(f"draws: a variance needs at least 2, got {draws}")
    weights = [p for p in vae.encoder.parameters() if p.requires_grad]
    buffers, training = {name: b.clone() for name, b in vae.named_buffers()}, vae.training
    vae.train()
    mean = scatter = square = torch.zeros((), dtype=torch.float64)
    try:
        for n in range(draws):
            g = _gradient(
                vae, objective, replace(batch, noise=replace(batch.noise, step=batch.noise.step + n)), weights
            )
            gap = g - mean.to(g)
            mean = mean.to(g) + gap / (n + 1)
            scatter = scatter.to(g) + gap @ (g - mean)
            square = square.to(g) + (g @ g - square.to(g)) / (n + 1)
            _restore(vae, buffers)
    finally:
        _restore(vae, buffers)
        vae.train(training)
    return GradientVariance(float(scatter) / (draws - 1), float(square))


@torch.enable_grad()
def _gradient(vae: Vae, objective: nn.Module, batch: Batch, weights: list[nn.Parameter]) -> Tensor:
    """d (mean loss) / d weights, one float64 vector."""
    loss = objective(vae(batch), batch).sum() / len(batch.x)
    grads = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
    return torch.cat([g.double().flatten() for g in grads])


@torch.no_grad()
def _restore(vae: Vae, buffers: dict[str, Tensor]) -> None:
    for name, b in vae.named_buffers():
        b.copy_(buffers[name])
