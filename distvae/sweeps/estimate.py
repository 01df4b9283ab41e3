"""`distvae plan`: what a sweep will be, before it is. Time and memory come from a probe that really trains a few steps of
each kind of group and evaluates it (`probe.py`, `forecast.py`), and from what sweeps took on this machine besides
training (`overhead.py`); nothing is printed that was not measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from distvae.data import load as load_data
from distvae.likelihoods import Gaussian
from distvae.likelihoods.equivalence import equivalent_sigma
from distvae.objectives import BetaInput, Elbo
from distvae.study import Study
from distvae.sweeps import memory, overhead
from distvae.sweeps.cluster import cores, slots
from distvae.sweeps.forecast import SLOWED, Cost, Kind, cost, costs, kinds, makespan, needed, slowdown
from distvae.sweeps.groups import GroupPlan, partition, why_not
from distvae.sweeps.overhead import Overhead
from distvae.sweeps.probing import Team, started
from distvae.sweeps.probing import probe as run_probe
from distvae.sweeps.progress import duration
from distvae.trial import Trial, flatten

SHOWN = 12  # rows of a list; --json has all of it


def overview(
    study: Study, out: Path | None, *, probe: bool, say: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Counts, axes, groups, what is left in `out`, and (with `probe`) time and memory."""
    if study.source is not None:
        ended, _ = _past(out)
        return _search(study, len(ended), probe, say)
    concurrency = _concurrency(study)
    with started(study, min(concurrency, len(study.trials)) if probe else 0) as teams:
        todo = _todo(study, out)
        view, groups = _counted(study, todo, concurrency)
        if teams and todo:
            view["estimate"] = estimate(study, groups, concurrency, teams, say)
    return view


def _past(out: Path | None) -> tuple[dict[str, Any], dict[str, int]]:
    """(the ended trials of `out`, those marked to be run again)."""
    if out is None:
        return {}, {}
    from distvae.operate import again
    from distvae.results import ledger

    return ledger.scan(out, mend=False)[0], again.read(out)


def _todo(study: Study, out: Path | None) -> list[Trial]:
    from distvae.sweeps.remaining import remaining

    return [t for t, _ in remaining(study, *_past(out))]


def _counted(study: Study, todo: Sequence[Trial], concurrency: int) -> tuple[dict[str, Any], list[GroupPlan]]:
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
        "metrics": [m.type for m in study.metrics],
    }
    if sigmas := _equivalent_sigmas(study):
        view["equivalent_sigma"] = sigmas
    return view, groups


def _search(study: Study, ended: int, probe: bool, say: Callable[[str], None]) -> dict[str, Any]:
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
        "metrics": [m.type for m in study.metrics],
    }
    if probe and left and examples:
        each: dict[str, list[Trial]] = {}
        for t in examples:
            each.setdefault(t.config_key, []).append(t)
        some = cycle(GroupPlan(tuple(ts), False, why_not(ts[0], study)) for ts in each.values())
        groups = list(islice(some, -(-left // len(seeds))))
        with started(study, min(concurrency, len(groups))) as teams:
            view["estimate"] = estimate(study, groups, concurrency, teams, say)
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


def estimate(
    study: Study, groups: Sequence[GroupPlan], concurrency: int, teams: Sequence[Team], say: Callable[[str], None]
) -> dict[str, Any]:
    """Seconds and bytes of each kind of group and of the sweep, from a probe on the teams."""
    all_kinds = kinds(groups, study)
    gangs = min(concurrency, len(groups))
    probes = run_probe(teams, [k.group for k in all_kinds], gangs)
    answers = [a for several in probes.found.values() for a in several]
    if not answers:
        return {"error": probes.broken or "; ".join(dict.fromkeys(probes.errors.values()))}
    slowed = slowdown(answers) if study.resources.workers == 1 and not study.resources.gpus else None
    probed = {i: cost(mine, slowed) for i, mine in probes.found.items()}
    trials = sum(len(g.trials) for g in groups)
    spent = overhead.measured(probes.engine, trials, say)
    found = costs(all_kinds, probed)
    kind_of = {id(g): i for i, k in enumerate(all_kinds) for g in k.groups}
    seconds = [
        found[i].seconds(g, study, len(load_data(g.trials[0].data).train)) for g in groups for i in (kind_of[id(g)],)
    ]
    return {
        **_time(seconds, answers, spent, study, groups, concurrency),
        "at_most": study.search.scheduler is not None,  # it ends trials early
        "trials": trials,
        "overhead": None if spent is None else asdict(spent),
        "memory": _memory([found[kind_of[id(g)]] for g in groups], answers, study, gangs),
        "engine": probes.engine,
        "kinds_probed": len(probed),
        "broken": probes.broken,
        "errors": {all_kinds[i].group.trials[0].key: e for i, e in probes.errors.items()},
        "kinds": [_kind(k, c, study, seconds, groups) for k, c in zip(all_kinds, found, strict=True)],
    }


def _time(
    seconds: Sequence[float],
    answers: Sequence[dict[str, Any]],
    spent: Overhead | None,
    study: Study,
    groups: Sequence[GroupPlan],
    concurrency: int,
) -> dict[str, Any]:
    """Of the whole: groups laid out on their slots, the driver's work (which takes its time from them where they have all
    cores, and goes on beside them else), start and end."""
    r, has = study.resources, cores()
    first = max(a["first_s"] for a in answers) + max(a["data_s"] for a in answers)
    training = first + makespan(seconds, concurrency)
    driver = 0.0 if spent is None else spent.event_s * sum(overhead.events(t) for g in groups for t in g.trials)
    full = min(concurrency, len(groups)) * r.workers * r.threads >= has
    busy = max(training + driver / has if full else training, driver)
    trials = sum(len(g.trials) for g in groups)
    return {
        "seconds": busy + (0.0 if spent is None else spent.start_s + spent.end_s),
        "training_s": training,
        "driver_s": driver,
        "seconds_per_trial": sum(seconds) / trials,
        "share": 1 / slowdown(answers) / r.threads,
    }


def _memory(found: Sequence[Cost], answers: Sequence[dict[str, Any]], study: Study, gangs: int) -> dict[str, Any]:
    """Of all workers when the largest groups train at a time, and of a GPU that they share."""
    r, worker = study.resources, max(a["idle_bytes"] for a in answers)
    needs = needed(worker, [c.memory_bytes for c in found], gangs, r.workers)
    view = {"worker_bytes": worker, "needed_bytes": needs, "machine_bytes": memory.machine()}
    view["fits"] = needs <= view["machine_bytes"]
    if r.gpus:
        import torch

        has = torch.cuda.get_device_properties(0).total_memory
        sharing = max(1, int(1 / r.gpus))
        gpu = needed(0, [c.gpu_bytes for c in found], min(gangs, sharing), 1)
        view |= {"gpu_needed_bytes": gpu, "gpu_bytes": has, "fits": view["fits"] and gpu <= has}
    return view


def _kind(k: Kind, c: Cost, study: Study, seconds: Sequence[float], groups: Sequence[GroupPlan]) -> dict[str, Any]:
    mine = {id(g) for g in k.groups}
    took = [s for s, g in zip(seconds, groups, strict=True) if id(g) in mine]
    first = k.group.trials[0]
    return {
        "groups": len(k.groups),
        "trials": sum(len(g.trials) for g in k.groups),
        "size": len(k.group.trials),
        "fusion_group": first.fusion_group,
        "parts": _parts(first),
        "seconds": sum(took) / len(took),
        **asdict(c),
        "why": c.why or k.group.why,
    }


def _parts(t: Trial) -> dict[str, Any]:
    """The choices of a trial: what is a word in its configuration."""
    return {name: value for name, value in flatten(t.config()) if isinstance(value, str)}


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
    e = v.get("estimate", {})
    if "kinds" in e:
        _render_kinds(e["kinds"], console)
    else:
        _render_groups(v["groups"], console)
    if v["left"] < v["trials"]:
        console.print(f"{v['trials'] - v['left']} ended already, {v['left']} left")
    for line in _estimate_lines(e, v["concurrency"]):
        console.print(line, markup=False)
    if v["metrics"]:
        timed = " (not in the estimate)" if e else ""
        console.print(f"measured after training{timed}: {', '.join(v['metrics'])}", markup=False)


def _estimate_lines(e: dict[str, Any], concurrency: int) -> list[str]:
    if not e:
        return []
    if "error" in e:
        return [f"no estimate: the probe failed ({e['error']})"]
    spent, m = e["overhead"], e["memory"]
    at_most = "at most " if e["at_most"] else ""
    how = f"{concurrency} at a time, engine: {e['engine']}"
    if spent is None:
        lines = [
            f"training takes about {at_most}{duration(e['training_s'])}, {how}; start, end and the driver's work are not "
            "counted: no sweep was timed here yet"
        ]
    else:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(spent["unix_s"]))
        lines = [
            f"about {at_most}{duration(e['seconds'])}: training {at_most}{duration(e['training_s'])}, {how}; the driver's "
            f"work {duration(e['driver_s'])}, beside it; start {duration(spent['start_s'])} and end "
            f"{duration(spent['end_s'])}, as a sweep of {spent['trials']} trials had them here ({when})"
        ]
    if e["kinds_probed"] < len(e["kinds"]):
        lines.append(
            f"probed: {e['kinds_probed']} of {len(e['kinds'])} kinds of group; the others are scaled from these (~)"
        )
    lines += [f"a part of the probe was cut short: {e['broken']}"] if e["broken"] else []
    for key, error in list(e["errors"].items())[:SHOWN]:
        lines.append(f"the probe of the group of {key} raised {error}")
    if e["share"] * SLOWED < 1:
        lines.append(
            f"this machine is busy: the probe's workers got {e['share']:.0%} of their cores, and the estimate is for as much"
        )
    lines.append(
        f"memory: workers {size(m['needed_bytes'])} ({size(m['worker_bytes'])} each with its data, and its group's), of "
        f"{size(m['machine_bytes'])}; the driver and Ray's own processes not counted"
    )
    if "gpu_bytes" in m:
        lines.append(f"GPU memory: {size(m['gpu_needed_bytes'])} of {size(m['gpu_bytes'])}")
    if not m["fits"]:
        lines.append("this does not fit: lower resources.concurrency, or resources.fuse for smaller stacks")
    return lines


def size(n: float) -> str:
    """`1.5 GB`"""
    return f"{n / 1e9:.1f} GB" if n >= 1e9 else f"{max(n, 1e5) / 1e6:.1f} MB"


def _render_kinds(all_kinds: list[dict[str, Any]], console: Console) -> None:
    """A line for each kind of group."""
    varied = {n for k in all_kinds for n, v in k["parts"].items() if v != all_kinds[0]["parts"].get(n)}
    table = Table(box=None, padding=(0, 2, 0, 2))
    for name in ("groups", "trials", "ms a step", "s a group", "memory"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("how")
    if varied:
        table.add_column("what")
    for k in all_kinds[:SHOWN]:
        about = "" if k["probed"] else "~"
        memory_ = size(k["memory_bytes"]) + (f" + {size(k['gpu_bytes'])} GPU" if k["gpu_bytes"] else "")
        how = f"stacked: {k['size']} as one model" if k["stacked"] else f"not stacked: {k['why']}"
        what = [" ".join(dict.fromkeys(str(v) for n, v in k["parts"].items() if n in varied))] if varied else []
        numbers = (f"{about}{1e3 * k['step_s']:.3g}", f"{about}{k['seconds']:.3g}", f"{about}{memory_}")
        table.add_row(str(k["groups"]), str(k["trials"]), *numbers, how, *what)
    console.print(table)
    if len(all_kinds) > SHOWN:
        console.print(f"... {len(all_kinds)} kinds of group in all, every one by --json")


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
