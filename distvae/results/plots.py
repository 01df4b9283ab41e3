"""The pictures: the rate-distortion plane with its lower hull and seed intervals, and heat maps of a metric over two
knobs.

One panel per (data, measure), since those do not compare. Colours are viridis, which survives colour blindness and
grey print; axes carry units."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from distvae.files import replacing
from distvae.metrics.rate_distortion import exact_curve
from distvae.results import curves
from distvae.results.curves import Config
from distvae.results.schema import METRICS, SCHEMA
from distvae.trial import KNOBS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
NAMES = {"r": "r", "beta": "β", "gamma": "γ", "p_keep": "p (keep)", "latent_dim": "latent dim"}


def rd_plane(table: pa.Table, path: Path, *, split: str = "test", color: str | None = None) -> None:
    """Rate against distortion. Raises ValueError if no trial has a valid bound on `split`, or `color` is no knob."""
    if color is not None and color not in KNOBS:
        raise ValueError(f"color: {color!r} is not one of {', '.join(KNOBS)}")
    panels = curves.panels(curves.configs(table, split))
    if not panels:
        raise ValueError(f"no finished trial has a valid bound on the {split} split")
    fig, axes = _figure(len(panels))
    for ax, ((data, measure), configs) in zip(axes, panels.items(), strict=True):
        knob = color or _liveliest(configs)
        _exact(ax, configs)
        _points(ax, fig, configs, knob)
        hull = curves.lower_hull([(c.rate.mean, c.distortion.mean) for c in configs])
        ax.plot(*zip(*hull, strict=True), color="0.25", lw=1.2, zorder=2, label="lower convex hull")
        ax.set_xlabel("rate KL(q‖p), nats per example")
        ax.set_ylabel("distortion −E log p(x|z), nats per example")
        ax.set_title(f"{data} ({measure}), {split} split, {len(configs)} configurations", fontsize=10)
        ax.margins(0.06)
        _guides(ax, configs)
        ax.legend(fontsize=8, framealpha=0.9)
    save(fig, path)


def _points(ax: Axes, fig: Figure, configs: Sequence[Config], knob: str) -> None:
    from matplotlib.colors import BoundaryNorm, LogNorm, Normalize

    values = [c.knobs[knob] for c in configs]
    levels = sorted({v for v in values if v is not None})
    spread = len(levels) > 1 and levels[0] > 0 and levels[-1] / levels[0] > 20
    norm: Any = Normalize(levels[0], levels[-1] if len(levels) > 1 else levels[0] + 1) if levels else Normalize(0, 1)
    if 2 <= len(levels) <= 8:
        norm = BoundaryNorm(np.arange(len(levels) + 1) - 0.5, 256)
    elif spread:
        norm = LogNorm(levels[0], levels[-1])
    shade = {v: (levels.index(v) if 2 <= len(levels) <= 8 else v) for v in levels}
    at = [shade.get(v, 0) for v in values]
    rate, distortion = [c.rate for c in configs], [c.distortion for c in configs]
    bars = {"fmt": "none", "ecolor": "0.6", "elinewidth": 0.8, "zorder": 1}
    kinds = sorted({(c.rate.kind, c.seeds) for c in configs})
    told = ", ".join(f"{kind} over {n} seeds" for kind, n in kinds if n > 1) or "1 seed"
    ax.errorbar(
        [i.mean for i in rate],
        [i.mean for i in distortion],
        xerr=[[i.mean - i.low for i in rate], [i.high - i.mean for i in rate]],
        yerr=[[i.mean - i.low for i in distortion], [i.high - i.mean for i in distortion]],
        label=told if any(n > 1 for _, n in kinds) else None,
        **bars,
    )
    seeds = [(p.rate, p.distortion, a) for c, a in zip(configs, at, strict=True) for p in c.points]
    xs, ys, hues = zip(*seeds, strict=True)
    ax.scatter(xs, ys, c=hues, s=6, cmap="viridis", norm=norm, alpha=0.35, lw=0, zorder=2)
    dots = ax.scatter(
        [i.mean for i in rate],
        [i.mean for i in distortion],
        c=at,
        s=34,
        cmap="viridis",
        norm=norm,
        ec="k",
        lw=0.5,
        zorder=3,
    )
    if len(levels) > 1:
        bar = fig.colorbar(dots, ax=ax, label=NAMES[knob], pad=0.02)
        if len(levels) <= 8:
            bar.set_ticks(list(range(len(levels))), labels=[f"{v:g}" for v in levels])


def _guides(ax: Axes, configs: Sequence[Config]) -> None:
    """The line rate + distortion = -ELBO of the best configuration: below it would be better."""
    top = max(c.elbo.mean for c in configs)
    x, y = ax.get_xlim(), ax.get_ylim()
    ax.axline((0.0, -top), slope=-1.0, ls=":", lw=1, color="0.5", zorder=1, label=f"ELBO = {top:.2f} nats, the highest")
    ax.set_xlim(x)
    ax.set_ylim(y)


def _exact(ax: Axes, configs: Sequence[Config]) -> None:
    """Under linear VAEs with fixed sigma_x on Gaussian data, the curve they should lie on."""
    for setting in {s for c in configs if (s := linear_setting(curves.config_of(c.points[0]))) is not None}:
        curve = exact_curve(*setting)
        ax.plot(
            *zip(*curve, strict=True), color="#D55E00", lw=4, alpha=0.45, zorder=0, label="exact: reverse water-filling"
        )


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


def _liveliest(configs: Sequence[Config]) -> str:
    """The knob with most values: what the eye should follow."""
    return max(KNOBS, key=lambda k: len({c.knobs[k] for c in configs}))


def heat_map(
    table: pa.Table, path: Path, *, x: str = "r", y: str = "latent_dim", value: str = "elbo_nats", split: str = "test"
) -> None:
    """A metric over two knobs: each cell is the mean over seeds of its best configuration by valid bound (by the bound
    on `split` where there is no valid split). Raises ValueError on a name that is no knob or metric, or if there is
    nothing to show."""
    for name in (x, y):
        if name not in KNOBS:
            raise ValueError(f"{name!r} is not one of {', '.join(KNOBS)}")
    if value not in METRICS:
        raise ValueError(f"value: {value!r} is not one of {', '.join(METRICS)}")
    panels = {
        panel: [c for c in configs if c.knobs[x] is not None and c.knobs[y] is not None]
        for panel, configs in curves.panels(curves.configs(table, split)).items()
    }
    panels = {panel: configs for panel, configs in panels.items() if configs}
    if not panels:
        raise ValueError(f"no finished trial has a valid bound on the {split} split and both knobs {x} and {y}")
    fig, axes = _figure(len(panels))
    unit = (SCHEMA.field(value).metadata or {}).get(b"unit", b"").decode()
    for ax, ((data, measure), configs) in zip(axes, panels.items(), strict=True):
        _heat(ax, fig, configs, x, y, value, f"{value}, {unit}" if unit else value)
        chosen = (
            "best configuration by valid bound" if configs[0].valid_elbo else f"best configuration by {split} bound"
        )
        ax.set_title(f"{data} ({measure}), {split}: {chosen}, mean over seeds", fontsize=9)
    save(fig, path)


def _heat(ax: Axes, fig: Figure, configs: Sequence[Config], x: str, y: str, value: str, label: str) -> None:
    xs, ys = (sorted({c.knobs[k] for c in configs}) for k in (x, y))
    grid = np.full((len(ys), len(xs)), np.nan)
    rank: dict[tuple[int, int], float] = {}
    for c in configs:
        at = ys.index(c.knobs[y]), xs.index(c.knobs[x])
        score = (c.valid_elbo or c.elbo).mean
        values = [p.row[value] for p in c.points if p.row[value] is not None]
        if values and score > rank.get(at, -np.inf):
            rank[at], grid[at] = score, float(np.mean(values))
    ax.set_facecolor("0.92")
    image = ax.imshow(grid, origin="lower", aspect="auto", cmap="viridis")
    middle = (np.nanmin(grid) + np.nanmax(grid)) / 2 if np.isfinite(grid).any() else 0.0
    for (i, j), v in np.ndenumerate(grid):
        text = f"{v:.5g}" if np.isfinite(v) else "none"
        ax.text(j, i, text, ha="center", va="center", fontsize=9, color="k" if not v < middle else "w")
    ax.set_xticks(range(len(xs)), labels=[f"{v:g}" for v in xs])
    ax.set_yticks(range(len(ys)), labels=[f"{v:g}" for v in ys])
    ax.set_xlabel(NAMES[x])
    ax.set_ylabel(NAMES[y])
    fig.colorbar(image, ax=ax, label=label, pad=0.02)


def _figure(n: int) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    fig = Figure(figsize=(7.2 * n, 4.8), layout="constrained")
    return fig, list(np.atleast_1d(fig.subplots(1, n)))


def save(fig: Figure, path: Path) -> None:
    with replacing(path) as f:
        fig.savefig(f, dpi=DPI, format="png")
