"""A comparison in words and tables, for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from distvae.results.compare import NUMBERS


def render(view: dict[str, Any], console: Console) -> None:
    for warning in view["warnings"]:
        console.print(f"warning: {warning}", markup=False)
    for panel in view["panels"]:
        console.print()
        console.print(_sides(panel, view["split"]))
        for difference in panel["differences"]:
            console.print()
            console.print(_differences(difference, view["against"]))
            console.print(_in_both(difference), markup=False)


def _sides(panel: dict[str, Any], split: str) -> Table:
    rate, distortion = panel["corner_nats"]
    title = (
        f"{panel['data']} ({panel['measure']}), {split} split, nats per example; "
        f"area dominated up to rate {rate:.4g}, distortion {distortion:.4g}"
    )
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1))
    table.add_column("", overflow="fold")
    for name in ("configurations", "seeds", "on frontier", "rates", "distortions", "area"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("best by valid bound", overflow="fold")
    table.add_column("valid ELBO", justify="right", no_wrap=True)
    table.add_column(f"{split} ELBO", justify="right", no_wrap=True)
    for side in panel["sides"]:
        rates, distortions = zip(*side["frontier"], strict=True)
        best = side["best"]
        table.add_row(
            side["name"],
            str(side["configurations"]),
            str(len(side["seeds"])),
            str(len(side["frontier"])),
            _range(rates[0], rates[-1]),
            _range(distortions[-1], distortions[0]),
            f"{side['hypervolume_nats2']:.4g}",
            " ".join(f"{k}={v:g}" for k, v in best["knobs"].items()) if best else "no valid split",
            f"{best['valid_elbo_nats']['mean']:.2f}" if best else "",
            f"{best['elbo_nats']['mean']:.2f}" if best else "",
        )
    return table


def _differences(d: dict[str, Any], against: str) -> Table:
    title = f"{d['side']} minus {against} (below 0: {d['side']} needs less, for area dominated and ELBO: is worse)"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1))
    table.add_column("")
    for name in ("seed by seed", "interval", "of the mean curves", "over"):
        table.add_column(name, justify="right", no_wrap=name != "over", overflow="fold")
    over = {"no_rate": _over(d, "distortions"), "no_distortion": _over(d, "rates")}
    for name, (what, unit, why) in NUMBERS.items():
        _row(table, f"{what}, {unit}", d["numbers"][name], over.get(why, ""))
    _row(table, "best by valid bound: ELBO, nats", d["best_elbo_nats"], "")
    return table


def _row(table: Table, label: str, number: dict[str, Any], over: str) -> None:
    i, mean = number["by_seed"], number["of_means"]
    paired = f"{i['mean']:+.4g}" if i else "none"
    interval = f"[{i['low']:+.4g}, {i['high']:+.4g}] {i['kind']}, {i['seeds']} seeds" if i and i["seeds"] > 1 else ""
    if i and i["seeds"] == 1:
        interval = "1 seed"
    elif not i:
        interval = "no seed is in both" if mean is not None else ""
    table.add_row(label, paired, interval, "none" if mean is None else f"{mean:+.4g}", number["why"] or over)


def _over(d: dict[str, Any], name: str) -> str:
    return f"{name} {_range(*d[name])}" if d[name] else ""


def _in_both(d: dict[str, Any]) -> str:
    both = d["in_both"]
    if not both["config_keys"]:
        return "no configuration is in both"
    apart = both["largest_difference_nats"]
    rows = (
        "" if apart is None else f"; {both['trials']} trials are in both, their rows differ by at most {apart:.2g} nats"
    )
    shown = " ".join(both["config_keys"][:4]) + (" ..." if len(both["config_keys"]) > 4 else "")
    return f"{len(both['config_keys'])} configurations are in both ({shown}){rows}"


def _range(low: float, high: float) -> str:
    return f"{low:.2f} to {high:.2f}"
