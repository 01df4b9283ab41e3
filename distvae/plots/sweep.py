"""What the pictures of a sweep are drawn from: its ledger, read once for all of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import pyarrow as pa

from distvae.plots.kind import NothingToPlotError, OptionError
from distvae.results import curves, ledger
from distvae.results.curves import Config, Panel
from distvae.results.schema import metric_names, unit_of
from distvae.sweeps.explain import one_of

SPLITS = ("train", "valid", "test")


class Sweep:
    """The curve of OUT."""

    def __init__(self, out: Path):
        self.out = out
        self.table: pa.Table = ledger.load(out)
        self.status = curves.trial_status(self.table)
        self._panels: dict[str, dict[Panel, list[Config]]] = {}

    def panels(self, split: str) -> dict[Panel, list[Config]]:
        """Configurations with a valid bound on `split`, by what may be compared. Raises OptionError,
        NothingToPlotError."""
        if split not in SPLITS:
            raise OptionError(f"--split: {one_of(split, SPLITS)}")
        if split not in self._panels:
            self._panels[split] = curves.panels(curves.configs(self.table, split))
        if not self._panels[split]:
            raise NothingToPlotError(
                f"{self.out}: no finished trial has a valid bound on the {split} split{self._ended()}"
            )
        return self._panels[split]

    def measured(self, split: str, value: str) -> dict[Panel, list[Config]]:
        """Configurations with a `value` on `split`, with or without a valid bound. Raises OptionError."""
        if split not in SPLITS:
            raise OptionError(f"--split: {one_of(split, SPLITS)}")
        return curves.panels(curves.configs(self.table, split, value))

    def _ended(self) -> str:
        counts = Counter(self.status.values())
        return f" ({', '.join(f'{n} {status}' for status, n in sorted(counts.items()))})" if counts else " (none ended)"

    def metric(self, name: str) -> str:
        """`elbo_nats, nats/example`. Raises OptionError if `name` is no metric."""
        names = metric_names(self.table)
        if name not in names:
            raise OptionError(f"--value: {one_of(name, names)}")
        unit = unit_of(self.table, name)
        return f"{name}, {unit}" if unit else name

    def not_drawn(self, split: str) -> str:
        """`not drawn: 2 diverged, 1 failed trials`, or ""."""
        drawn = {p.trial_key for configs in self.panels(split).values() for c in configs for p in c.points}
        counts = Counter(
            f"without a bound on {split}" if status == "finished" else status
            for key, status in self.status.items()
            if key not in drawn
        )
        if not counts:
            return ""
        return f"not drawn: {', '.join(f'{n} {why}' for why, n in sorted(counts.items()))} (trials)"


def read(out: Path) -> Sweep:
    """The sweep in OUT as it is now."""
    folders = [out / ledger.POINTS, out / "metrics"]
    files = [f for folder in folders if folder.is_dir() for f in folder.iterdir()]
    return _read(out, frozenset((f.name, f.stat().st_mtime_ns) for f in files if f.exists()))


@lru_cache(1)
def _read(out: Path, stamp: frozenset[tuple[str, int]]) -> Sweep:
    return Sweep(out)


def protocol(configs: Sequence[Config]) -> str:
    """`48 configurations, 3 seeds each, 25 epochs`"""
    count = f"{len(configs)} configurations" if len(configs) > 1 else "1 configuration"
    seeds = _span([c.seeds for c in configs])
    epochs = _span([p.row["epoch"] for c in configs for p in c.points])
    each = "1 seed" if seeds == "1" else f"{seeds} seeds"
    return f"{count}, {each}{' each' if len(configs) > 1 else ''}, {epochs} epoch{'' if epochs == '1' else 's'}"


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"


def rank(configs: Sequence[Config]) -> tuple[list[Config], str]:
    """Best first, and by what: the valid bound, or where a configuration was not evaluated on a valid split the bound on
    the split drawn. Those without a bound follow, by distortion."""
    without = sorted((c for c in configs if math.isnan(c.elbo.mean)), key=lambda c: c.distortion.mean)
    if without:
        ranked, by = rank([c for c in configs if not math.isnan(c.elbo.mean)])
        return ranked + without, f"{by}, where there is none by distortion" if ranked else "distortion"
    if all(c.valid_elbo for c in configs):
        return sorted(configs, key=lambda c: -c.valid_elbo.mean if c.valid_elbo else 0.0), "valid bound"
    return sorted(configs, key=lambda c: -c.elbo.mean), "bound on the split drawn (no valid split)"
