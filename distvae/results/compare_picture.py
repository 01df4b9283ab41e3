"""The picture of a comparison: every side's configurations with their intervals and lower hull, one panel per (data,
measure)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distvae.files import replacing
from distvae.metrics.curve_difference import lower_hull
from distvae.results import curves
from distvae.results.compare import Side

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 150
STYLES = (  # Okabe and Ito's colours, and shapes for grey print
    ("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "v"), ("#56B4E9", "P"), ("#000000", "X"),
)  # fmt: skip


def draw(sides: Sequence[Side], view: dict[str, Any], path: Path) -> Path:
    """A PNG of what `compare` found."""
    from matplotlib.figure import Figure

    n, most = len(view["panels"]), max(len(p["sides"]) for p in view["panels"])
    fig = Figure(figsize=(7.6 * n, 5.0 + 0.36 * most), layout="constrained")
    style = {side.name: s for side, s in zip(sides, STYLES, strict=False)}
    found = {side.name: curves.panels(curves.configs(side.table, view["split"])) for side in sides}
    for ax, panel in zip(np.atleast_1d(fig.subplots(1, n)), view["panels"], strict=True):
        told = {d["side"]: _told(d, view["against"]) for d in panel["differences"]}
        for side in panel["sides"]:
            configs = found[side["name"]][panel["data"], panel["measure"]]
            label = "\n".join(filter(None, [_legend(side, configs), told.get(side["name"])]))
            _curve(ax, configs, *style[side["name"]], label)
        ax.set_xlabel("rate KL(q‖p), nats per example")
        ax.set_ylabel("distortion −E log p(x|z), nats per example")
        ax.set_title(
            f"{panel['data']} ({panel['measure']}), {view['split']} split; lines: lower convex hulls", fontsize=10
        )
        ax.margins(0.05)
        ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0.0, -0.12), frameon=False)
    with replacing(path) as f:
        fig.savefig(f, dpi=DPI, format="png")
    return path


def _curve(ax: Axes, configs: Sequence[curves.Config], color: str, marker: str, label: str) -> None:
    rate, distortion = [c.rate for c in configs], [c.distortion for c in configs]
    xs, ys = [i.mean for i in rate], [i.mean for i in distortion]
    bars = [[[i.mean - i.low for i in v], [i.high - i.mean for i in v]] for v in (rate, distortion)]
    ax.errorbar(xs, ys, xerr=bars[0], yerr=bars[1], fmt="none", ecolor=color, elinewidth=0.7, alpha=0.35, zorder=1)
    hull = lower_hull(list(zip(xs, ys, strict=True)))
    on = set(hull)
    inner = [p for p in zip(xs, ys, strict=True) if p not in on]
    if inner:
        ax.scatter(*zip(*inner, strict=True), s=14, color=color, marker=marker, alpha=0.35, lw=0, zorder=2)
    ax.plot(
        *zip(*hull, strict=True), color=color, marker=marker, ms=5.5, mec="k", mew=0.4, lw=1.6, zorder=3, label=label
    )


def _legend(side: dict[str, Any], configs: Sequence[curves.Config]) -> str:
    """`name: 48 configurations, 95% CI over 3 seeds`"""
    kinds = sorted({f"{c.rate.kind} over {c.seeds} seeds" if c.seeds > 1 else "1 seed" for c in configs})
    count = side["configurations"]
    return f"{side['name']}: {count} configuration{'s' if count != 1 else ''}, {', '.join(kinds)}"


def _told(difference: dict[str, Any], against: str) -> str:
    """`minus A: BD-rate -0.31 [-0.4, -0.2] nats, BD-distortion ...`"""
    said = []
    for name, what in (("rate_nats", "BD-rate"), ("distortion_nats", "BD-distortion")):
        number = difference["numbers"][name]
        i = number["by_seed"]
        if i and i["seeds"] > 1:
            said.append(f"{what} {i['mean']:+.4g} [{i['low']:+.4g}, {i['high']:+.4g}] nats")
        elif number["of_means"] is not None:
            said.append(f"{what} {number['of_means']:+.4g} nats")
        else:
            said.append(f"{what}: none")
    return f"minus {against}: {', '.join(said)}"
