"""The rate-distortion plane: configurations as means over seeds with their intervals, single seeds, the lower hull, the
best by valid bound and its ELBO line; one panel for each (data, measure), since those do not compare."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distvae.metrics.rate_distortion import exact_curve
from distvae.plots import canvas, knobs, sweep
from distvae.plots.kind import Kind, Options
from distvae.results import curves
from distvae.results.curves import Config

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OTHERS = "others"
CROWD = 40  # configurations from which points get smaller and bars fainter


def draw(out: Path, folder: Path, options: Options) -> list[Path]:
    return [canvas.save(figure(sweep.read(out), options), folder / "rd.png")]


def figure(curve: sweep.Sweep, options: Options) -> Figure:
    panels = curve.panels(options.split)
    if options.color is not None:
        knobs.column([c for configs in panels.values() for c in configs], options.color, "--color")
    fig, axes = canvas.grid(len(panels))
    for ax, ((data, measure), configs) in zip(axes, panels.items(), strict=True):
        ranked, by = sweep.rank(configs)
        ax.set_xlabel("rate KL(q‖p), nats per example")
        ax.set_ylabel("distortion −E log p(x|z), nats per example")
        beyond = _limits(ax, ranked)
        _exact(ax, ranked)
        _points(fig, ax, ranked, options.color or next(iter(knobs.liveliest(ranked)), None))
        _hull(ax, ranked)
        _best(ax, ranked[0], by)
        title = f"{data} ({measure}), {options.split} split\n{sweep.protocol(configs)}"
        ax.set_title(title + (f", {beyond} beyond the axes" if beyond else ""), fontsize=9)
        canvas.legend(ax)
    if note := curve.not_drawn(options.split):
        fig.suptitle(note, fontsize=8, color="0.35")
    return fig


def _limits(ax: Axes, configs: Sequence[Config]) -> int:
    """Axes that hold the points and the hull's rates, not the longest bars nor what lies very far off. Returns how many
    configurations they leave out."""
    rates, distortions = (
        [p.rate for c in configs for p in c.points],
        [p.distortion for c in configs for p in c.points],
    )
    hull = curves.lower_hull([(c.rate.mean, c.distortion.mean) for c in configs])
    (left, right), (low, high) = canvas.reach(rates), canvas.reach(distortions)
    right, low = max(right, hull[-1][0]), min(low, hull[-1][1])
    for span, put in (((left, right), ax.set_xlim), ((low, high), ax.set_ylim)):
        margin = 0.06 * (span[1] - span[0]) or 0.05 * abs(span[0]) or 1.0
        put(span[0] - margin, span[1] + margin)
    return sum(not (left <= c.rate.mean <= right and low <= c.distortion.mean <= high) for c in configs)


def _points(fig: Figure, ax: Axes, configs: Sequence[Config], knob: str | None) -> None:
    values = [None] * len(configs) if knob is None else knobs.column(configs, knob, "--color")
    if any(isinstance(v, str) for v in values):
        names = _most(["none" if v is None else str(v) for v in values], len(canvas.OKABE_ITO))
        hues: list[Any] = [canvas.GREY if n == OTHERS else canvas.OKABE_ITO[_order(names).index(n)] for n in names]
        ax.plot([], [], " ", label=f"{knobs.called(knob or '')}:")
    else:
        shades = canvas.Shades(tuple(v if not isinstance(v, str) else None for v in values))
        names = knobs.families(configs, len(canvas.MARKERS))
        hues = [shades.of(v) if len(shades.levels) > 1 else canvas.OKABE_ITO[0] for v in shades.values]
        if knob is not None:
            shades.bar(fig, ax, knobs.called(knob))
        if None in values and len(shades.levels) > 1:
            ax.scatter([], [], color=canvas.GREY, s=30, label=f"no {knobs.called(knob or '')}")
    shapes = dict(zip([n for n in _order(names) if n != OTHERS], canvas.MARKERS, strict=False))
    crowd = max(1.0, len(configs) / CROWD)
    _bars(ax, configs, crowd)
    _lines(ax, configs)
    groups: dict[str, list[int]] = defaultdict(list)
    for i, name in enumerate(names):
        groups[name].append(i)
    for name in _order(names):
        mine, marker = groups[name], shapes.get(name, ".")
        seeds = [(p.rate, p.distortion, hues[i]) for i in mine if configs[i].seeds > 1 for p in configs[i].points]
        if seeds:
            x, y, c = zip(*seeds, strict=True)
            ax.scatter(x, y, color=list(c), s=7 / crowd**0.5, alpha=0.35, lw=0, zorder=2, marker=marker)
        ax.scatter(
            [configs[i].rate.mean for i in mine],
            [configs[i].distortion.mean for i in mine],
            c=[hues[i] for i in mine],
            s=max(12.0, 36 / crowd**0.6),
            marker=marker,
            ec="k",
            lw=0.5 / crowd**0.3,
            zorder=3,
            label=name or None,
            gid="means",
        )


def _most(names: list[str], most: int) -> list[str]:
    """The names, all but the `most` frequent as OTHERS where there are more."""
    kept = _order(names)[:most]
    return names if len(set(names)) <= most else [n if n in kept else OTHERS for n in names]


def _order(names: Sequence[str]) -> list[str]:
    """Distinct names, the most frequent first, OTHERS last."""
    return sorted(set(names), key=lambda n: (n == OTHERS, -names.count(n), n))


def _bars(ax: Axes, configs: Sequence[Config], crowd: float) -> None:
    """Intervals over seeds: clear on the hull, fainter elsewhere the more there are and the longer they are."""
    sure = [c for c in configs if c.seeds > 1]
    if not sure:
        return
    hull = set(curves.lower_hull([(c.rate.mean, c.distortion.mean) for c in configs]))
    kinds = sorted({(c.rate.kind, c.seeds) for c in sure})
    told = ", ".join(f"{kind} over {n} seeds" for kind, n in kinds)
    width = np.ptp(ax.get_xlim()), np.ptp(ax.get_ylim())
    rest = [c for c in sure if (c.rate.mean, c.distortion.mean) not in hull]
    share = [
        max((c.rate.high - c.rate.low) / width[0], (c.distortion.high - c.distortion.low) / width[1]) for c in rest
    ]
    faint = float(np.clip(0.6 / crowd / (1.0 + 8.0 * np.mean(share)), 0.08, 0.6)) if rest else 0.0
    on = [c for c in sure if (c.rate.mean, c.distortion.mean) in hull]
    for some, alpha, label in ((on, 0.9, told), (rest, faint, None if on else told)):
        if some:
            rate, distortion = [c.rate for c in some], [c.distortion for c in some]
            ax.errorbar(
                [i.mean for i in rate],
                [i.mean for i in distortion],
                xerr=[[i.mean - i.low for i in rate], [i.high - i.mean for i in rate]],
                yerr=[[i.mean - i.low for i in distortion], [i.high - i.mean for i in distortion]],
                fmt="none",
                ecolor="0.4",
                elinewidth=0.8,
                alpha=alpha,
                zorder=1,
                label=label,
            )


def _lines(ax: Axes, configs: Sequence[Config]) -> None:
    """The points of one beta-input model, joined by increasing beta."""
    models: dict[str, list[Config]] = defaultdict(list)
    for c in configs:
        if c.points[0].row["conditioning"] is not None:
            models[c.config_key].append(c)
    for n, mine in enumerate(m for m in models.values() if len(m) > 1):
        mine.sort(key=lambda c: c.knobs["beta"])
        ax.plot(
            [c.rate.mean for c in mine],
            [c.distortion.mean for c in mine],
            color="0.45",
            lw=0.9,
            ls="--",
            zorder=2,
            label=None if n else "one network told β",
            gid="model",
        )


def _hull(ax: Axes, configs: Sequence[Config]) -> None:
    hull = curves.lower_hull([(c.rate.mean, c.distortion.mean) for c in configs])
    ax.plot(*zip(*hull, strict=True), color="0.2", lw=1.3, zorder=2.5, label="lower convex hull", gid="hull")


def _best(ax: Axes, best: Config, by: str) -> None:
    """A ring around the best, and the line rate + distortion = -ELBO through it: below it would be better."""
    red = canvas.OKABE_ITO[4]
    ax.axline(
        (0.0, -best.elbo.mean), slope=-1.0, ls=":", lw=1, color=red, zorder=1,
        label=f"ELBO = {best.elbo.mean:.2f} nats, of the best by {by}",
    )  # fmt: skip
    at = [best.rate.mean], [best.distortion.mean]
    ax.scatter(*at, s=110, fc="none", ec=red, lw=1.4, zorder=4, gid="best")


def _exact(ax: Axes, configs: Sequence[Config]) -> None:
    """Under linear VAEs with fixed sigma_x on Gaussian data, the curve they should lie on."""
    settings = {s for c in configs if (s := linear_setting(curves.config_of(c.points[0]))) is not None}
    for n, setting in enumerate(sorted(settings)):
        curve = zip(*exact_curve(*setting), strict=True)
        label = None if n else "exact: reverse water-filling"
        ax.plot(*curve, color=canvas.OKABE_ITO[1], lw=4, alpha=0.5, zorder=0, label=label, gid="exact")


def linear_setting(config: dict[str, Any]) -> tuple[tuple[float, ...], float, int] | None:
    """(eigenvalues, sigma, latent_dim) of a trial whose optimum is known exactly, else None."""
    vae, likelihood = config["vae"], config["vae"]["likelihood"]
    nets = [vae["encoder"], vae["decoder"] or vae["encoder"]]
    linear = all(n["type"] == "mlp" and n["hidden"] == [] for n in nets)
    fixed = likelihood["type"] == "gaussian" and likelihood["mode"] == "fixed" and likelihood["output"] == "identity"
    plain = vae["posterior"]["type"] == "gaussian" and vae["prior"]["type"] == "normal"
    if linear and fixed and plain and config["data"]["type"] == "gaussian" and config["objective"]["type"] == "elbo":
        return tuple(config["data"]["eigenvalues"]), likelihood["sigma"], vae["latent_dim"]
    return None


KIND = Kind("rd", "the rate-distortion plane with its lower hull and seed intervals", "sweep", ("split", "color"), draw)
