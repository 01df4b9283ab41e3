"""`distvae eval`: which trials, which metrics, and what came out, configuration by configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from distvae import files
from distvae.config import ConfigError, load, metrics
from distvae.metrics.metric import clash
from distvae.results import curves, ledger
from distvae.results.schema import unit_of
from distvae.sweeps import measure
from distvae.sweeps.plan import trial_from_json
from distvae.trial import Trial

ROWS = 20


def evaluate(
    out: Path,
    what: str | None,
    keys: Sequence[str],
    *,
    again: bool = False,
    address: str | None = None,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Measure `what` (as an option; the sweep's own metrics if None) of the trials `keys` (all if none) that have ended.
    Returns what came out as data. Raises ConfigError."""
    study = load(out / "sweep.yaml")
    asked = study.metrics if what is None else metrics(what)
    if not asked:
        some = "distvae eval OUT --metrics iw_nll,decomposition; `distvae parts` lists them"
        raise ConfigError([f"--metrics: {out / 'sweep.yaml'} names none, so say which ({some})"])
    trials = _trials(ledger.load(out), keys)
    if trials and (why := clash(asked, trials[0])):
        raise ConfigError([f"--metrics: {why}"])
    weights = sum(files.each(trials, lambda t: measure.has_weights(out, t), remote=files.is_remote(out)))
    run = replace(study, metrics=asked)
    measuring = measure.evaluate(out, trials, run, again=again, address=address, say=say)
    names = list(dict.fromkeys(c.name for t in trials[:1] for m in asked for c in m.columns(t)))
    return {
        "out": str(out),
        "measured": measuring.ended - len(measuring.failed),
        "failed": measuring.failed,
        "null": measuring.why,
        "without_weights": len(trials) - weights,
        "notes": measure.told(out, measuring),
        "values": _values(ledger.load(out), {t.key for t in trials}, names),
    }


def _trials(table: pa.Table, keys: Sequence[str]) -> list[Trial]:
    """The trials whose keys begin with one of `keys`, or all, in the ledger. Raises ConfigError on one that names
    none, or several."""
    configs = dict(zip(table["trial_key"].to_pylist(), table["config_json"].to_pylist(), strict=True))
    chosen = list(configs) if not keys else []
    for key in keys:
        found = [k for k in configs if k.startswith(key)]
        if len(found) != 1:
            several = "begins several trials' keys" if found else "is no trial's key"
            some = ", ".join((found or sorted(configs))[:8])
            raise ConfigError([f"--trial: {key!r} {several} (ended: {some or 'none'})"])
        chosen += found
    return [trial_from_json(configs[k]) for k in dict.fromkeys(chosen)]


def _values(table: pa.Table, keys: set[str], names: Sequence[str]) -> list[dict[str, Any]]:
    """Configuration, split and interval over seeds of each column, at the trials' last epochs; best valid bound
    first."""
    names = [n for n in names if n in table.column_names]
    kept = table.select(
        ["trial_key", "config_key", "epoch", "split", "point", "seed", "config_json", *names]
    ).to_pylist()
    last: dict[str, int] = {}
    for r in kept:
        last[r["trial_key"]] = max(r["epoch"], last.get(r["trial_key"], 0))
    groups: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for r in kept:
        if r["trial_key"] in keys and r["epoch"] == last[r["trial_key"]] and any(r[n] is not None for n in names):
            groups.setdefault((r["config_key"], r["point"], r["split"]), []).append(r)
    rank = {(c.config_key, c.points[0].point): i for i, c in enumerate(curves.configs(table))}
    found = []
    for (config, point, split), rows in sorted(groups.items(), key=lambda g: (rank.get(g[0][:2], len(rank)), g[0])):
        trial = trial_from_json(rows[0]["config_json"])
        label = trial.label.rsplit(" ", 1)[0]  # without the seed
        values = {}
        for n in names:
            if mine := [r[n] for r in rows if r[n] is not None]:
                i = curves.interval(mine)
                values[n] = {"mean": i.mean, "low": i.low, "high": i.high, "kind": i.kind, "unit": unit_of(table, n)}
        found.append(
            {"config_key": config, "label": label, "point": point, "split": split, "seeds": len(rows), "values": values}
        )
    return found


def render(view: dict[str, Any], console: Console) -> None:
    """A table of configurations, best first, and what could not be measured."""
    console.print(f"\n{view['measured']} trials measured", markup=False)
    if view["without_weights"]:
        n = view["without_weights"]
        console.print(f"{n} trials have no kept weights (resources.keep: none, or failed): not measured", markup=False)
    for note in view["notes"]:
        console.print(note, markup=False)
    shown = view["values"][:ROWS]
    names = list(dict.fromkeys(n for v in shown for n in v["values"]))
    if not names:
        return
    more = f" (the first {ROWS} of {len(view['values'])})" if len(view["values"]) > ROWS else ""
    table = Table(
        title=f"means over seeds, best valid bound first{more}", title_justify="left", box=None, padding=(0, 1)
    )
    for name in ("configuration", "split", "seeds"):
        table.add_column(name)
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    for v in shown:
        cells = [_cell(v["values"].get(n)) for n in names]
        table.add_row(v["label"], v["split"], str(v["seeds"]), *cells)
    console.print(table)


def _cell(i: dict[str, Any] | None) -> str:
    if i is None:
        return ""
    half = (i["high"] - i["low"]) / 2
    return f"{i['mean']:.4g}" + (f" ±{half:.2g}" if half else "")
