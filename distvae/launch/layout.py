"""How many nodes of how many cores and GPUs a sweep asks for.

A rank takes `resources.threads` cores and `resources.gpus` GPUs, a trial `resources.workers` ranks, which may lie on
several nodes. One core of each node is left to Ray, and on the first one to the driver."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from distvae.study import Resources, Study

MOST_CPUS, MOST_GPUS = 32, 8  # of a node whose size nobody gave


class LaunchError(Exception):
    """No file can be written from these options (exit code 2)."""


@dataclass(frozen=True)
class Layout:
    """Nodes, all alike."""

    nodes: int
    cpus: int  # cores of a node, Ray's included
    gpus: int
    trials: int  # groups of trials that train at a time on them
    least: int  # nodes that one trial needs

    @property
    def ray_cpus(self) -> int:
        """Cores of a node that trials get."""
        return self.cpus - 1

    @property
    def memory_gb(self) -> int:
        """4 GB for each core of the trials and 4 for Ray: a guess, for those who have to ask for memory."""
        return 4 * self.ray_cpus + 4

    def __str__(self) -> str:
        gpus = f" and {self.gpus} GPU{'s' * (self.gpus > 1)}" if self.gpus else ""
        node = f"{self.nodes} node{'s' * (self.nodes > 1)} of {self.cpus} cores{gpus}"
        return f"{node}: {self.trials} trial{'s' * (self.trials > 1)} at a time"


def planned(study: Study) -> int:
    """Trials of a sweep, those that a search will suggest included."""
    algorithm = study.search.algorithm
    seeds = len(study.source.seeds()) if study.source else 1
    return max(1, algorithm.trials * seeds if algorithm else len(study.trials))


def layout(
    r: Resources, trials: int, *, nodes: int | None = None, cpus: int | None = None, gpus: int | None = None
) -> Layout:
    """For `resources.concurrency` trials at a time, else for as many as `nodes` (default 1) hold. `cpus`, `gpus`: of a
    node; default: what is needed, at most 32 (more beside GPUs) and 8. Raises LaunchError where a rank, or a trial, does not fit."""
    per_gpu = int(1 / r.gpus + 1e-9) if r.gpus else 0
    has_cpus, has_gpus = cpus or MOST_CPUS, (MOST_GPUS if gpus is None else gpus)
    fit = (has_cpus - 1) // r.threads if cpus else max(1, (MOST_CPUS - 1) // r.threads)
    if r.gpus:  # a node with GPUs has the cores for them, unless somebody says how many it has
        fit = min(fit, has_gpus * per_gpu) if cpus else has_gpus * per_gpu
    if fit < 1:
        needs = f"{r.threads + 1} cores (resources.threads {r.threads}, and one for Ray)"
        needs += " and a GPU" if r.gpus else ""
        raise LaunchError(f"a rank needs {needs}, and a node has {has_cpus} cores and {has_gpus if r.gpus else 0} GPUs")
    least = ceil(r.workers / fit)
    if nodes is not None and nodes < least:
        raise LaunchError(
            f"--nodes {nodes}: a trial has {r.workers} ranks (resources.workers) and {fit} fit on a node: it needs {least} nodes"
        )
    holds = (nodes or least) * fit // r.workers
    wanted = min(r.concurrency or holds, trials)
    ranks = wanted * r.workers
    nodes = nodes or ceil(ranks / fit)
    each = min(fit, ceil(ranks / nodes))
    return Layout(
        nodes=nodes,
        cpus=cpus or each * r.threads + 1,
        gpus=(ceil(each / per_gpu) if gpus is None else gpus) if r.gpus else 0,
        trials=min(wanted, nodes * each // r.workers),
        least=min(nodes, ceil(r.workers / each)),
    )
