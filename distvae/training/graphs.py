"""A training step as a CUDA graph: recorded once, then replayed as one launch. A small VAE's step is some sixty kernels
of a few microseconds each, whatever the number of stacked trials, and launching them takes longer than running them.

What is recorded reads its inputs from tensors that stay where they are (`Inputs`); nothing in it may wait for the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

WARM = 3  # steps before recording, which torch needs on a stream of their own; they train as any other


class Inputs:
    """What changes from step to step, on the device: the batch's rows, the step, and one value per trial of each of
    `factor` (of the objective's schedule), `warm` and `lr`."""

    def __init__(self, size: int, trials: int, dtype: torch.dtype, device: str):
        self.rows = torch.zeros(size, dtype=torch.int64, device=device)
        self.step = torch.zeros((), dtype=torch.int64, device=device)
        self.factor, self.warm = (torch.ones(trials, dtype=dtype, device=device) for _ in range(2))
        kind = torch.float32 if device.startswith("cuda") else torch.float64  # what the fused optimizers read there
        self.lr = torch.zeros(trials, dtype=kind, device=device)
        self._told: tuple[Sequence[float], ...] = ()

    def fill(self, rows: Tensor, step: int, *each: Sequence[float]) -> None:
        """`each`: factor, warm, lr; they are only copied when they have changed."""
        self.rows.copy_(rows)
        self.step.fill_(step)
        if each != self._told:
            for tensor, values in zip((self.factor, self.warm, self.lr), each, strict=True):
                tensor.copy_(torch.tensor(values, dtype=tensor.dtype))
            self._told = each


class Recorded:
    """`run()`, which reads `inputs` and returns a tensor, replayed from a graph after `WARM` calls."""

    def __init__(self, inputs: Inputs, run: Callable[[Inputs], Tensor]):
        self.inputs, self._run = inputs, run
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> Tensor:
        self._calls += 1
        if self._calls <= WARM:
            aside, now = torch.cuda.Stream(), torch.cuda.current_stream()
            aside.wait_stream(now)
            with torch.cuda.stream(aside):
                out = self._run(self.inputs)
            now.wait_stream(aside)
            return out
        if self._graph is None:
            torch.cuda.synchronize()
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._out = self._run(self.inputs)
        self._graph.replay()
        return self._out
