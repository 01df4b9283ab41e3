"""K trials of one net trained for a step, in the ways that there are: by hand in plain torch, as an ordinary careful user
would write it, and by distvae. A form is called for one step of all its trials; `trials` says how many those are.

What is done by hand shares among the trials what can be shared (the batch), keeps the data as floats in memory and draws
its noise with torch.randn; Adam is torch's fused one."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import cycle, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import binary_cross_entropy_with_logits

BATCH, LATENT, TOP, DENSE, BATCHES = 128, 16, 128, 128, 32
NETS = {
    "hidden 50": {"type": "mlp", "hidden": [50]},
    "hidden 128": {"type": "mlp", "hidden": [128]},
    "hidden 400": {"type": "mlp", "hidden": [400]},
    "toyVAE": {"type": "mlp", "hidden": [256, 128]},
    "conv 8": {"type": "conv", "channels": [8, 16, 32]},
    "conv 32": {"type": "conv", "channels": [32, 64, 128]},
}


@dataclass(frozen=True)
class Work:
    """The trials `slots` of a net: they differ in beta, learning rate and seed."""

    net: str
    slots: tuple[int, ...]
    data: str = "mnist"
    device: str = "cpu"

    @property
    def k(self) -> int:
        return len(self.slots)

    @property
    def betas(self) -> list[float]:
        return [0.5 + 0.05 * s for s in self.slots]

    @property
    def lrs(self) -> list[float]:
        return [1e-3 * 2.0 ** (s % 4 - 2) for s in self.slots]

    def trials(self) -> list[Any]:
        from distvae.config import loads

        config = {
            "data": {"type": self.data},
            "vae": {"encoder": NETS[self.net], "latent_dim": LATENT, "likelihood": {"type": "bernoulli"}},
            "train": {"batch_size": BATCH},
        }
        return [
            loads(_yaml(config | {"objective": {"type": "elbo", "beta": beta}}), [f"train.lr={lr}", f"seeds=[{s}]"])
            .trials[0]
            for s, beta, lr in zip(self.slots, self.betas, self.lrs, strict=True)
        ]  # fmt: skip

    def pixels(self) -> Tensor:
        """The training images `[N, C, H, W]` in [0, 1]."""
        return _pixels(self.data).to(self.device)

    def batches(self) -> Iterator[Tensor]:
        """Rows of one batch after the other, without end."""
        g = torch.Generator().manual_seed(0)
        n = len(_pixels(self.data))
        return cycle([torch.randperm(n, generator=g)[:BATCH].to(self.device) for _ in range(BATCHES)])


def _yaml(config: dict[str, Any]) -> str:
    import json

    return json.dumps(config)  # which YAML reads


@cache
def _pixels(data: str) -> Tensor:
    from distvae.config import loads
    from distvae.data import load

    x = torch.from_numpy(load(loads(_yaml({"data": {"type": data}})).trials[0].data).train.x)
    return x.float() / 255 if x.dtype == torch.uint8 else x.float()


# --- by hand ------------------------------------------------------------------------------------------------------------


def _mlp(*sizes: int) -> list[nn.Module]:
    layers: list[nn.Module] = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
    return layers[:-1]


class Plain(nn.Module):
    """The VAE, written down."""

    def __init__(self, net: str, shape: tuple[int, ...]):
        super().__init__()
        spec, pixels = NETS[net], math.prod(shape)
        if spec["type"] == "mlp":
            self.encoder = nn.Sequential(nn.Flatten(), *_mlp(pixels, *spec["hidden"], 2 * LATENT))
            self.decoder = nn.Sequential(*_mlp(LATENT, *reversed(spec["hidden"]), pixels))
            return
        down, up, c, side = [], [], shape[0], shape[1]
        for wide in spec["channels"]:
            if side <= 4:
                break
            kernel = 3 if side % 2 else 4
            down += [nn.Conv2d(c, wide, kernel, 2, 1), nn.ReLU()]
            up = [nn.ConvTranspose2d(wide, c, kernel, 2, 1), nn.ReLU(), *up]
            c, side = wide, (side + 1) // 2
        self.encoder = nn.Sequential(
            *down, nn.Conv2d(c, TOP, side), nn.ReLU(), nn.Flatten(), *_mlp(TOP, DENSE, 2 * LATENT)
        )
        up = [nn.ConvTranspose2d(TOP, c, side), nn.ReLU(), *up][:-1]
        self.decoder = nn.Sequential(
            *_mlp(LATENT, DENSE, TOP), nn.ReLU(), nn.Unflatten(1, (TOP, 1, 1)), *up, nn.Flatten()
        )

    def forward(self, x: Tensor, eps: Tensor, beta: Tensor | float) -> Tensor:
        """-ELBO of images `[B, C, H, W]`, mean over them, nats."""
        mu, logvar = self.encoder(x).chunk(2, -1)
        logits = self.decoder(mu + (0.5 * logvar).exp() * eps)
        distortion = binary_cross_entropy_with_logits(logits, x.flatten(1), reduction="sum")
        rate = 0.5 * (logvar.exp() + mu.square() - 1.0 - logvar).sum()
        return (distortion + beta * rate) / x.shape[0]


def _noise(x: Tensor, *lead: int) -> Tensor:
    return torch.randn(*lead, len(x), LATENT, device=x.device)


class Serial:
    """One model after the other."""

    def __init__(self, work: Work, loss: Callable[..., Tensor] | None = None):
        self.x, self.rows, self.trials = work.pixels(), work.batches(), work.k
        self.models = []
        for s in work.slots:
            torch.manual_seed(s)
            self.models.append(Plain(work.net, tuple(self.x.shape[1:])).to(work.device))
        self.optimizers = [
            torch.optim.Adam(m.parameters(), lr=lr, fused=True) for m, lr in zip(self.models, work.lrs, strict=True)
        ]
        self.betas = [torch.tensor(b, device=work.device) for b in work.betas]
        self.loss = loss or call

    def __call__(self) -> None:
        x = self.x[next(self.rows)]
        for model, optimizer, beta in zip(self.models, self.optimizers, self.betas, strict=True):
            optimizer.zero_grad(set_to_none=True)
            self.loss(model, x, _noise(x), beta).backward()
            optimizer.step()

    @torch.no_grad()
    def losses(self, rows: Tensor, eps: Tensor) -> Tensor:
        """`[K]`, of noise `[K, B, D]`."""
        each = zip(self.models, eps, self.betas, strict=True)
        return torch.stack([self.loss(m, self.x[rows], e, b) for m, e, b in each])


def call(model: nn.Module, x: Tensor, eps: Tensor, beta: Tensor) -> Tensor:
    return model(x, eps, beta)


class Vmap:
    """The recipe of torch.func's tutorial on model ensembles, with backward. One Adam over the stacked weights: one
    learning rate for all, which is less than the others do."""

    def __init__(self, work: Work):
        self.x, self.rows, self.trials = work.pixels(), work.batches(), work.k
        models = Serial(work).models
        self.params, self.buffers = stack_module_state(models)
        base = copy.deepcopy(models[0]).to("meta")
        self.optimizer = torch.optim.Adam(self.params.values(), lr=work.lrs[0], fused=True)
        self.betas = torch.tensor(work.betas, device=work.device)

        def loss(params: Any, buffers: Any, x: Tensor, eps: Tensor, beta: Tensor) -> Tensor:
            return functional_call(base, (params, buffers), (x, eps, beta))

        self.mapped = vmap(loss, in_dims=(0, 0, None, 0, 0))

    def __call__(self) -> None:
        x = self.x[next(self.rows)]
        self.optimizer.zero_grad(set_to_none=True)
        self.mapped(self.params, self.buffers, x, _noise(x, self.trials), self.betas).sum().backward()
        self.optimizer.step()

    @torch.no_grad()
    def losses(self, rows: Tensor, eps: Tensor) -> Tensor:
        return self.mapped(self.params, self.buffers, self.x[rows], eps, self.betas)


class Graphed:
    """One model whose whole step is a CUDA graph."""

    def __init__(self, work: Work):
        self.x, self.rows, self.trials = work.pixels(), work.batches(), 1
        self.model = Plain(work.net, tuple(self.x.shape[1:])).to(work.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=work.lrs[0], fused=True, capturable=True)
        self.at, self.beta = next(self.rows).clone(), torch.tensor(work.betas[0], device=work.device)
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                self._step()
        torch.cuda.current_stream().wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(self.graph):
            self._step()

    def _step(self) -> None:
        x = self.x[self.at]
        self.optimizer.zero_grad(set_to_none=True)
        self.model(x, _noise(x), self.beta).backward()
        self.optimizer.step()

    def __call__(self) -> None:
        self.at.copy_(next(self.rows))
        self.graph.replay()


# --- by distvae ---------------------------------------------------------------------------------------------------------


def _world(work: Work, engine: str) -> Any:
    from distvae.training.world import World, meet

    return meet(0, 1, device=work.device) if engine == "deepspeed" else World(device=work.device)


class Ours:
    """`resources.fuse`: the trials as one model."""

    def __init__(self, work: Work, engine: str):
        from distvae.training.fused import Fused
        from distvae.training.group import Setting

        trials = work.trials()
        self.rows, self.trials = work.batches(), work.k
        self.fused = Fused(trials, Setting(world=_world(work, engine), engine=engine))
        self.stacked = self.fused._form(tuple(t.key for t in trials))
        self.stacked.stack.train()

    def __call__(self) -> None:
        self.fused.step_on(self.stacked, next(self.rows))

    def close(self) -> None:
        self.fused.close()


class Off:
    """`resources.fuse: off`: one trial after the other, each in the loop that trains it alone."""

    def __init__(self, work: Work, engine: str):
        from distvae.training.loop import Runner

        world = _world(work, engine)
        self.rows, self.trials = work.batches(), work.k
        self.runners = [Runner(t, world=world, engine=engine) for t in work.trials()]
        for r in self.runners:
            r.vae.train()

    def __call__(self) -> None:
        rows = next(self.rows).numpy(force=True)
        for r in self.runners:
            r.step_on(rows)

    def close(self) -> None:
        for r in self.runners:
            r.close()


FORMS: dict[str, Callable[[Work], Any]] = {
    "serial eager": Serial,
    "vmap": Vmap,
    "ours": lambda work: Ours(work, "torch"),
    "ours, DeepSpeed": lambda work: Ours(work, "deepspeed"),
    "off": lambda work: Off(work, "torch"),
    "off, DeepSpeed": lambda work: Off(work, "deepspeed"),
}
