"""Trials as one model with a trial axis: their weights and buffers stacked `[K, ...]`, the model mapped over them by
`torch.func.vmap`. What is written for one trial stays so; a kernel's vmap rule makes one call of K.

A trial narrower than the widest (its latent_dim is smaller) is padded at the end of every axis with zeros and masked:
its extra dimensions give z = 0 and no divergence, so nothing flows through them and their weights stay where they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from distvae.batch import Batch
from distvae.training.stack_linear import stackable
from distvae.trial import Trial
from distvae.vae import Measured, Vae

Named = dict[str, Tensor]


class OneTrial(nn.Module):
    """A trial's model and objective, with what is mapped over trials as methods of `forward`."""

    def __init__(self, vae: Vae, objective: nn.Module):
        super().__init__()
        self.vae, self.objective = vae, objective

    def forward(self, method: str, *args: Any) -> Any:
        return getattr(self, method)(*args)

    def loss(self, batch: Batch) -> Tensor:
        """Sum of the losses of the batch's examples, nats."""
        return self.objective(self.vae(batch), batch).sum()

    def measure(self, batch: Batch) -> Measured:
        return self.vae.measure(batch)

    def projected(self) -> list[Tensor]:
        return [f(p) for p, f in self.vae.projections()]


@dataclass(frozen=True)
class PerTrial:
    """What differs between trials in a step, `[K]` each."""

    seed: Tensor  # int64
    factor: Tensor  # the objective's schedule
    warm: Tensor

    @property
    def columns(self) -> tuple[Tensor, ...]:
        return self.seed, self.factor, self.warm


class Stack(nn.Module):
    """K trials of one fusion group. `ones` are their models, each as wide as it is."""

    def __init__(self, trials: Sequence[Trial], ones: Sequence[OneTrial]):
        super().__init__()
        self.trials = list(trials)
        widest = max(range(len(ones)), key=lambda k: trials[k].vae.latent_dim)
        template, device = ones[widest].vae, next(ones[0].parameters()).device
        vae = Vae(template.model, template.x_shape, dtype=template.dtype).to(device)
        stackable(vae)
        vae.lean, vae.autocast = template.lean, template.autocast
        dims = [t.vae.latent_dim for t in trials]
        if min(dims) < max(dims):
            vae.mask = torch.ones(max(dims), dtype=torch.bool, device=device)
        objective = trials[widest].objective.build().to(device, trials[widest].dtype)
        self.template = [OneTrial(vae, objective)]  # in a list: its parameters are not ours
        one = self.template[0]
        self.learns = [n for n, p in one.named_parameters() if p.requires_grad]
        own = [dict(o.named_parameters()) | dict(o.named_buffers()) for o in ones]
        self.shapes = [{n: t.shape for n, t in named.items()} for named in own]
        wide = {n: p.shape for n, p in one.named_parameters()} | {n: b.shape for n, b in one.named_buffers()}
        for n, p in one.named_parameters():
            stacked = torch.stack([padded(named[n].detach(), wide[n]) for named in own])
            self.register_parameter(_flat(n), nn.Parameter(stacked, requires_grad=p.requires_grad))
        for n, _ in one.named_buffers():
            if n == "vae.mask":
                stacked = torch.stack([torch.arange(max(dims), device=device) < d for d in dims])
            else:
                stacked = torch.stack([padded(named[n], wide[n]) for named in own])
            self.register_buffer(_flat(n), stacked)
        self.wide = wide
        self.constrained = _constrained(one)

    @property
    def learning(self) -> list[nn.Parameter]:
        """The stacked parameters that learn, in the order of a trial's own."""
        return [self.get_parameter(_flat(n)) for n in self.learns]

    def __len__(self) -> int:
        return len(self.trials)

    def train(self, mode: bool = True) -> Stack:
        self.template[0].train(mode)
        return super().train(mode)

    # --- the mapped model ---

    def losses(self, batch: Batch, each: PerTrial, draw: Any) -> Tensor:
        """The summed loss `[K]` of every trial, nats. `draw(noise, x)`: a beta-input model's betas."""

        def one(state: Named, seed: Tensor, factor: Tensor, warm: Tensor) -> Tensor:
            noise = replace(batch.noise, seed=seed)
            mine = replace(batch, noise=noise, factor=factor, warm=warm, beta=draw(noise, batch.x))
            return functional_call(self.template[0], state, ("loss", mine))

        return vmap(one)(self._state(), *each.columns)

    @torch.no_grad()
    def measure(self, batch: Batch, seed: Tensor) -> Measured:
        """`Vae.measure` of every trial, `[K, ...]`."""

        def one(state: Named, seed: Tensor) -> Measured:
            return functional_call(
                self.template[0], state, ("measure", replace(batch, noise=replace(batch.noise, seed=seed)))
            )

        return vmap(one)(self._state(), seed)

    def measured(self, k: int, m: Measured) -> Measured:
        """Slot k of what `measure` gave, as wide as its trial."""
        widths = {t.vae.latent_dim for t in self.trials}
        d = self.trials[k].vae.latent_dim if len(widths) > 1 else None
        distortion, divergence, rate, mse, mu, z = (t[k] for t in m[:6])
        q = type(m.q)(*(t[k][..., :d] for t in m.q))
        return Measured(distortion, divergence[..., :d], rate, mse, mu[..., :d], z[..., :d], q)

    @torch.no_grad()
    def project(self, engine: Any) -> None:
        """The parameters that a part constrains, after a step."""
        if self.constrained:
            new = vmap(lambda state: functional_call(self.template[0], state, ("projected",)))(self._state())
            for name, value in zip(self.constrained, new, strict=True):
                engine.project(self.get_parameter(_flat(name)), lambda _, value=value: value)

    def _state(self) -> Named:
        return {n: getattr(self, _flat(n)) for n in self.wide}

    # --- in and out ---

    def narrow(self, k: int, name: str, value: Tensor) -> Tensor:
        """Slot k of a stacked `value`, as wide as its trial."""
        return value[k][tuple(slice(0, n) for n in self.shapes[k][name])]

    @torch.no_grad()
    def write_back(self, k: int, one: OneTrial) -> None:
        """Slot k's weights and running statistics into its own model."""
        own: Mapping[str, Tensor] = dict(one.named_parameters()) | dict(one.named_buffers())
        for name, value in own.items():
            value.copy_(self.narrow(k, name, getattr(self, _flat(name))))

    @torch.no_grad()
    def read_buffers(self, k: int, one: OneTrial) -> None:
        """Slot k's buffers from its own model, which an evaluation pass may have calibrated."""
        for name, value in one.named_buffers():
            self.narrow(k, name, getattr(self, _flat(name))).copy_(value)


def padded(t: Tensor, shape: Sequence[int]) -> Tensor:
    """`t` at the start of zeros of this shape."""
    if t.shape == torch.Size(shape):
        return t
    wide = t.new_zeros(shape)
    wide[tuple(slice(0, n) for n in t.shape)] = t
    return wide


def _flat(name: str) -> str:
    """Parameters of a module have no dots in their names."""
    return name.replace(".", "/")


def _constrained(one: OneTrial) -> list[str]:
    names = {id(p): n for n, p in one.named_parameters()}
    return [names[id(p)] for p, _ in one.vae.projections()]
