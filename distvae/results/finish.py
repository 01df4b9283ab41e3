"""The end of a sweep, and looks at one: export, pictures, the frontier and the best, where everything lies. All of it
is views of the ledger."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from distvae.operate import verdict
from distvae.plots import KINDS, PLOTS, NothingToPlotError, Options
from distvae.results import curves, ledger, tracking
from distvae.results.families import varied_choices
from distvae.store.errors import UnwrittenError
from distvae.study import Study
from distvae.sweeps.outcome import Outcome
from distvae.trial import flatten

ROWS = 15  # longer frontiers are shown by their lower hull
NO_PICTURE = "no picture"  # so begins the note of one that could not be drawn


def finish(outcome: Outcome, console: Console, study: Study) -> None:
    """After `sweep`: write rd_curve.parquet and the pictures, then say what came out."""
    out = outcome.out
    curve: Path | str = "not written"
    try:
        curve = ledger.export(out)
    except UnwrittenError as e:
        outcome.unwritten = outcome.unwritten or str(e)
    notes = list(outcome.notes)
    pictures = draw_quietly(out, notes) if outcome.count("finished") else []
    if pictures and outcome.tracked and (away := tracking.log_pictures(out, pictures, study)):
        notes.append(away)
    undrawn = any(note.startswith(NO_PICTURE) for note in notes)
    why = "none: they could not be drawn, see above" if undrawn else "none: no trial has a valid bound yet"
    view = summary(out)
    render_status(view, console)
    for note in notes:
        console.print(note, markup=False)
    console.print()
    for what, where in (
        ("curve", curve),
        ("pictures", ", ".join(map(str, pictures)) or why),
        ("record", f"{out / 'points'}/*.parquet"),
        ("logs", f"{out / 'logs'}/<trial_key>.jsonl"),
        ("compare", f"distvae ui {out}"),
    ):
        console.print(f"{what:<9} {where}", markup=False)
    console.print(verdict.why(outcome), markup=False)


def draw_quietly(out: Path, notes: list[str]) -> list[Path]:
    """The pictures of the sweep. Nobody asked for them, so what goes wrong is a note, and no error."""
    drawn: list[Path] = []
    for name in KINDS:
        try:
            if KINDS[name].of == "sweep":
                drawn += KINDS[name].draw(out, out / PLOTS, Options())
        except NothingToPlotError:
            continue
        except Exception as e:
            notes.append(
                f"{NO_PICTURE} {name}: {type(e).__name__}: {e}; `distvae plot {out} --kind {name}` tries again"
            )
    return drawn


def summary(out: Path) -> dict[str, Any]:
    """Counts by status, failures with their logs, the frontier (test) and the best by valid bound, as JSON-able
    data."""
    from distvae.sweeps.plan import read_plan

    table = ledger.load(out)
    status = curves.trial_status(table)
    planned = [r["trial_key"] for r in read_plan(out).select(["trial_key", "current"]).to_pylist() if r["current"]]
    counts = Counter(status.get(key, "to run") for key in planned)
    varied = varied_choices(json.loads(text) for text in table["config_json"].unique().to_pylist())
    return {
        "out": str(out),
        "planned": len(planned),
        "counts": dict(counts),
        "failed": {key: str(out / "logs" / f"{key}.jsonl") for key in planned if status.get(key) == "failed"},
        "frontier": [_config(c, varied) for c in curves.frontier(table)],
        "best": [_config(c, varied) for c in curves.best(table)],
    }


def _config(c: curves.Config, varied: Sequence[str]) -> dict[str, Any]:
    """A configuration as data: knobs, interval means and bounds on the test split, the valid bound that ranks it."""

    flat = dict(flatten(curves.config_of(c.points[0])))

    def span(i: curves.Interval) -> dict[str, Any]:
        return {"mean": i.mean, "low": i.low, "high": i.high, "kind": i.kind}

    return {
        "data": c.data,
        "measure": c.measure,
        "config_key": c.config_key,
        "knobs": {k: v for k, v in c.knobs.items() if v is not None},
        "parts": {name: flat[name] for name in varied if flat.get(name) is not None},
        "seeds": c.seeds,
        "rate_nats": span(c.rate),
        "distortion_nats": span(c.distortion),
        "elbo_nats": span(c.elbo),
        "valid_elbo_nats": span(c.valid_elbo) if c.valid_elbo else None,
        "trial_keys": [p.trial_key for p in c.points],
    }


def render_status(view: dict[str, Any], console: Console) -> None:
    """Counts, failures, frontier and best, for people."""
    counts = ", ".join(f"{n} {status}" for status, n in sorted(view["counts"].items()))
    console.print(f"\n{view['planned']} trials planned: {counts or 'none ended yet'}", markup=False)
    for key, log in view["failed"].items():
        console.print(f"failed: {key}, its log: {log}", markup=False)
    for data, measure in dict.fromkeys((c["data"], c["measure"]) for c in view["frontier"]):
        mine, what = [c for c in view["frontier"] if (c["data"], c["measure"]) == (data, measure)], "frontier"
        if len(mine) > ROWS:
            hull = set(curves.lower_hull([(c["rate_nats"]["mean"], c["distortion_nats"]["mean"]) for c in mine]))
            shown = [c for c in mine if (c["rate_nats"]["mean"], c["distortion_nats"]["mean"]) in hull]
            what = f"frontier ({len(shown)} of its {len(mine)} configurations: the lower hull)"
            mine = shown
        console.print(_frontier_table(what, data, measure, mine, [(c["config_key"], c["knobs"]) for c in view["best"]]))
    for c in view["best"]:
        parts = list(dict.fromkeys(map(str, c["parts"].values())))
        knobs = " ".join([*parts, *(f"{k}={v:g}" for k, v in c["knobs"].items())])
        console.print(
            f"best by valid bound ({c['data']}, {c['measure']}): {knobs}\n"
            f"  valid ELBO {_span(c['valid_elbo_nats'])} nats, test ELBO {_span(c['elbo_nats'])} nats, "
            f"{c['seeds']} seeds, trials {' '.join(c['trial_keys'])}",
            markup=False,
        )
    if view["frontier"] and not view["best"]:
        console.print("no validation split: nothing is selected; the frontier is of test means", markup=False)


def _frontier_table(what: str, data: str, measure: str, rows: list[dict[str, Any]], best: list[Any]) -> Table:
    kinds = sorted({c["rate_nats"]["kind"] + f" over {c['seeds']} seeds" for c in rows if c["seeds"] > 1})
    kinds = [k.replace("range", "half the range") for k in kinds]
    title = f"{what}: {data} ({measure}), test split, nats per example" + (f"; ± {', '.join(kinds)}" if kinds else "")
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1))
    knobs = list(dict.fromkeys(k for c in rows for k in c["knobs"]))
    told = any(c["parts"] for c in rows)
    if told:
        table.add_column("parts", overflow="fold")
    for name in [*knobs, "rate", "distortion", "ELBO", "valid ELBO", ""]:
        table.add_column(name, justify="right", no_wrap=True)
    for c in rows:
        valid = _span(c["valid_elbo_nats"]) if c["valid_elbo_nats"] else "none"
        spans = [_span(c[m]) for m in ("rate_nats", "distortion_nats", "elbo_nats")]
        mark = "best" if (c["config_key"], c["knobs"]) in best else ""
        parts = (" ".join(dict.fromkeys(map(str, c["parts"].values()))),) if told else ()
        table.add_row(*parts, *(f"{c['knobs'][k]:g}" if k in c["knobs"] else "" for k in knobs), *spans, valid, mark)
    return table


def _span(i: dict[str, Any]) -> str:
    half = (i["high"] - i["low"]) / 2
    return f"{i['mean']:.2f}" if not half else f"{i['mean']:.2f} ±{half:.2f}"
