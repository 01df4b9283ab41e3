"""`distvae plan`: what a sweep will be, before it is. The time comes from a probe that really trains a few steps and
evaluates once; nothing is printed that was not measured here."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from distvae.likelihoods import Gaussian
from distvae.likelihoods.equivalence import equivalent_sigma
from distvae.objectives import BetaInput, Elbo
from distvae.study import Study
from distvae.sweeps.cluster import cores, slots
from distvae.sweeps.groups import GroupPlan, partition
from distvae.sweeps.progress import duration
from distvae.trial import Trial, flatten

PROBE_STEPS = 30
SHOWN = 12  # rows of a list; --json has all of it
PROBES = 2  # groups timed; larger ones first


def overview(study: Study, out: Path | None, *, probe: bool) -> dict[str, Any]:
    """Counts, axes, groups, what is left in `out`, and (with `probe`) seconds per trial and in all."""
    from distvae.sweeps.run import remaining

    ended: dict[str, Any] = {}
    if out is not None:
        from distvae.results import ledger

        ended, _ = ledger.scan(out, mend=False)
    if study.source is not None:
        return _search(study, len(ended), probe=probe)
    todo = [t for t, _ in remaining(study, ended)]
    families = Counter(t.fusion_group for t in study.trials)
    concurrency = _concurrency(study)
    groups = partition(study, todo, concurrency)
    view: dict[str, Any] = {
        "name": study.name,
        "trials": len(study.trials),
        "duplicates_removed": study.duplicates,
        "nonsense_skipped": study.skipped,
        "configurations": len({t.config_key for t in study.trials}),
        "seeds": sorted({t.seed for t in study.trials}),
        "left": len(todo),
        "axes": _axes(study),
        "groups": [_group(g) for g in groups],
        "engine": study.engine,
        "concurrency": concurrency,
    }
    if sigmas := _equivalent_sigmas(study):
        view["equivalent_sigma"] = sigmas
    if probe and todo:
        view["estimate"] = _estimate(todo, families, concurrency)
    return view


def _search(study: Study, ended: int, *, probe: bool) -> dict[str, Any]:
    """Of a search: its dimensions, and the time of as many trials as it suggests, from a few of the space."""
    assert study.source is not None and study.source.space is not None and study.search.algorithm is not None
    examples, n = study.source.examples(), study.search.algorithm.trials
    seeds, concurrency = study.source.seeds(), _concurrency(study)
    left = max(0, n * len(seeds) - ended)
    view: dict[str, Any] = {
        "name": study.name,
        "trials": n * len(seeds),
        "duplicates_removed": 0,
        "nonsense_skipped": 0,
        "configurations": n,
        "seeds": sorted(seeds),
        "left": left,
        "axes": {d.name: d.items or list(d.ends or ()) for d in study.source.space.dimensions},
        "groups": [],
        "engine": study.engine,
        "concurrency": concurrency,
    }
    if probe and left and examples:
        estimate = _estimate(examples, Counter(t.fusion_group for t in examples), concurrency)
        view["estimate"] = {**estimate, "seconds": estimate["seconds_per_trial"] * left / concurrency}
    return view


def _concurrency(study: Study) -> int:
    """Groups that train at a time on this machine."""
    r = study.resources
    if not r.gpus:
        return slots(r, cores(), 0)
    import torch

    return slots(r, cores(), torch.cuda.device_count())


def _axes(study: Study) -> dict[str, list[Any]]:
    """Every dotted name that varies, with its values in order of appearance."""
    seen: dict[str, dict[str, Any]] = {}
    for t in study.trials:
        for name, value in flatten(t.config()):
            seen.setdefault(name, {})[repr(value)] = value
    return {name: list(values.values()) for name, values in seen.items() if len(values) > 1}


def _equivalent_sigmas(study: Study) -> list[dict[str, float]]:
    """For each beta at each fixed sigma_x of a Gaussian likelihood, the sigma_x at which beta = 1 is the same model."""
    pairs: set[tuple[float, float]] = set()
    for t in study.trials:
        likelihood, objective = t.vae.likelihood, t.objective
        if isinstance(likelihood, Gaussian) and likelihood.mode == "fixed" and isinstance(objective, Elbo | BetaInput):
            betas = (objective.beta,) if isinstance(objective, Elbo) else objective.grid()
            pairs |= {(beta, likelihood.sigma) for beta in betas}
    return [
        {"beta": beta, "sigma": sigma, "equivalent_sigma": equivalent_sigma(beta, sigma)}
        for beta, sigma in sorted(pairs)
    ]


def _group(g: GroupPlan) -> dict[str, Any]:
    first = g.trials[0]
    return {
        "trials": len(g.trials),
        "stacked": g.stacked,
        "why_not_stacked": g.why,
        "keys": [t.key for t in g.trials],
        "fusion_group": first.fusion_group,
        "posterior": first.vae.posterior.type,
        "prior": first.vae.prior.type,
        "data": first.data.label,
    }


def _estimate(todo: list[Trial], groups: Counter[str], concurrency: int) -> dict[str, Any]:
    """Train `PROBE_STEPS` of the widest trial of the largest groups, one thread, and scale by steps and evaluations."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        probed: dict[str, tuple[float, float]] = {}
        for group, _ in groups.most_common(PROBES):
            mine = [t for t in todo if t.fusion_group == group]
            if mine:
                probed[group] = _probe(max(mine, key=lambda t: t.vae.latent_dim))
    finally:
        torch.set_num_threads(threads)
    mean = tuple(sum(v[i] for v in probed.values()) / len(probed) for i in (0, 1))
    seconds = [_seconds(t, *probed.get(t.fusion_group, mean)) for t in todo]
    return {
        "seconds_per_trial": sum(seconds) / len(seconds),
        "seconds": sum(seconds) / concurrency,
        "what": f"{PROBE_STEPS} steps and one evaluation of {len(probed)} trial(s), engine: torch, {concurrency} at a time; start-up not counted",
    }


def _probe(trial: Trial) -> tuple[float, float]:
    """(seconds per step, seconds per evaluation)."""
    import numpy as np

    from distvae.training.loop import Runner

    runner = Runner(trial)
    n, size = len(runner.train), trial.train.batch_size
    rows = [np.arange(i, i + min(size, n)) % n for i in range(0, PROBE_STEPS * size, size)]
    runner.step_on(rows[0])
    started = time.perf_counter()
    for r in rows:
        runner.step_on(r)
    stepped = time.perf_counter()
    runner.evaluator.rows(epoch=0, step=0)
    return (stepped - started) / len(rows), time.perf_counter() - stepped


def _seconds(t: Trial, step_s: float, evaluate_s: float) -> float:
    from distvae.data import load

    steps = -(-len(load(t.data).train) // t.train.batch_size) * t.train.epochs
    return steps * step_s + -(-t.train.epochs // t.evaluate.every) * evaluate_s


def render(view: dict[str, Any], console: Console) -> None:
    v = view
    console.print(
        f"{v['name']}: {v['trials']} trials = {v['configurations']} configurations x {len(v['seeds'])} seeds",
        markup=False,
    )
    if v["duplicates_removed"]:
        console.print(f"{v['duplicates_removed']} duplicates removed")
    if v["nonsense_skipped"]:
        console.print(f"{v['nonsense_skipped']} combinations of parts that make no sense skipped")
    table = Table(box=None, padding=(0, 2, 0, 2), show_header=False)
    for name, values in v["axes"].items():
        shown = ", ".join(f"{x:g}" if isinstance(x, float) else str(x) for x in values[:8])
        table.add_row(name, f"{len(values)} values", shown + (", ..." if len(values) > 8 else ""))
    console.print(table)
    if "equivalent_sigma" in v:
        console.print("sigma_x is fixed: minimising -log p + beta KL is minimising at beta = 1 with another sigma_x")
        table = Table("beta", "sigma_x", "sigma_x at beta = 1", box=None, padding=(0, 2, 0, 2))
        for e in v["equivalent_sigma"][:SHOWN]:
            table.add_row(*(f"{e[k]:.4g}" for k in ("beta", "sigma", "equivalent_sigma")))
        if len(v["equivalent_sigma"]) > SHOWN:
            table.add_row(f"... {len(v['equivalent_sigma'])} in all, every one by --json")
        console.print(table)
    _render_groups(v["groups"], console)
    if v["left"] < v["trials"]:
        console.print(f"{v['trials'] - v['left']} ended already, {v['left']} left")
    if "estimate" in v:
        e = v["estimate"]
        console.print(
            f"about {duration(e['seconds'])} ({e['seconds_per_trial']:.2g} s a trial; {e['what']})", markup=False
        )


def _render_groups(groups: list[dict[str, Any]], console: Console) -> None:
    """A line for each kind of group: how many, how large, stacked or why not."""
    kinds: dict[tuple[bool, str | None, bool], list[int]] = {}
    for g in groups:
        kinds.setdefault((g["stacked"], g["why_not_stacked"], g["trials"] > 1), []).append(g["trials"])
    table = Table(box=None, padding=(0, 2, 0, 2), show_header=False)
    for (stacked, why, several), sizes in kinds.items():
        size = f"{min(sizes)} to {max(sizes)} trials" if min(sizes) < max(sizes) else f"{max(sizes)} trials"
        size = size if several else "one trial"
        how = "stacked, trained as one model" if stacked else f"not stacked: {why}"
        table.add_row(f"{len(sizes)} group{'s' * (len(sizes) > 1)} of {size}", how)
    console.print(table)
