"""The workers of one trial: who am I, which rows are mine, and how do I see the others'.

A global batch is cut into contiguous shards (`numpy.array_split`), so gathering in rank order restores its order.
Nothing here knows of Ray: ranks meet through a `torch.distributed` store that the caller made."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from distvae.part import gather_nothing

TIMEOUT = timedelta(minutes=10)  # a rank that waits longer has lost its gang


@dataclass(frozen=True)
class World:
    """Rank and size of the gang, and the device its tensors live on."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def shard(self, rows: NDArray[Any]) -> NDArray[Any]:
        """This rank's part of a global batch; perhaps empty."""
        return rows if self.size == 1 else np.array_split(rows, self.size)[self.rank]

    def gatherer(self, total: int) -> Callable[[Tensor], Tensor]:
        """`gather` for a global batch of `total` rows: `[B, ...] -> [total, ...]`, differentiable."""
        if self.size == 1:
            return gather_nothing
        sizes = [len(s) for s in np.array_split(np.arange(total), self.size)]
        return lambda t: _Gather.apply(t, sizes, self.rank)  # type: ignore[return-value]

    def broadcast(self, value: float) -> float:
        """Rank 0's value, on every rank."""
        if self.size == 1:
            return value
        box = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.broadcast(box, src=0)
        return float(box)

    def sum(self, value: float) -> float:
        """Sum over the ranks; NaN if any is."""
        if self.size == 1:
            return value
        box = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(box)
        return float(box)

    def collect(self, value: Any) -> list[Any]:
        """Every rank's picklable value, on every rank (through memory, never disk)."""
        if self.size == 1:
            return [value]
        box: list[Any] = [None] * self.size
        dist.all_gather_object(box, value)
        return box


class _Gather(torch.autograd.Function):
    """All-gather of uneven shards. Backward: a rank's rows entered every rank's loss, so their gradients are summed."""

    @staticmethod
    def forward(ctx: Any, t: Tensor, sizes: list[int], rank: int) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.sizes, ctx.rank = sizes, rank
        padded = t.new_zeros((max(sizes), *t.shape[1:]))
        padded[: len(t)] = t
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([p[:n] for p, n in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        g = g.contiguous().clone()
        dist.all_reduce(g)
        start = sum(ctx.sizes[: ctx.rank])
        return g[start : start + ctx.sizes[ctx.rank]], None, None


def meet(rank: int, size: int, *, device: str = "cpu", store: Any = None) -> World:
    """Join the process group of the gang (once per process). One rank needs no network: its store is in memory."""
    if not dist.is_initialized():
        store = store or dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]
        dist.init_process_group(
            "nccl" if device.startswith("cuda") else "gloo", store=store, rank=rank, world_size=size, timeout=TIMEOUT
        )
    return World(rank, size, device)


def part_ways() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        with contextlib.suppress(Exception):
            dist.destroy_process_group()
