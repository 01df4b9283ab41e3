"""The trained model that a picture is of: a trial of OUT with its kept weights, and the words it is shown under."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from distvae.api import kept_model
from distvae.metrics.subject import Subject
from distvae.plots.kind import NothingToPlotError, OptionError, Options
from distvae.results import curves, ledger
from distvae.sweeps.plan import trial_from_json
from distvae.trial import Trial

FIGURES = {"rate_nats": "rate", "distortion_nats": "distortion", "elbo_nats": "ELBO"}  # columns, as titles name them


@dataclass(frozen=True)
class Shown:
    """A model and the split it is shown on."""

    subject: Subject
    split: str
    row: Mapping[str, Any] | None  # the ledger's last row of this model (at its beta) on the split

    @property
    def trial(self) -> Trial:
        return self.subject.trial

    def title(self, what: str) -> str:
        """Three lines: what is shown, of which model, with which figures."""
        trial, row, vae = self.trial, self.row or {}, self.trial.vae
        at = "" if self.subject.beta is None else f" at beta={self.subject.beta:g}"
        nats = [f"{name} {row[column]:.2f}" for column, name in FIGURES.items() if row.get(column) is not None]
        figures = f"\n{self.split} split: {', '.join(nats)} nats per example" if nats else ""
        base = getattr(vae.prior, "over", None)  # of a binarized prior
        prior = vae.prior.type + (f" {base.type}" if base is not None and base.type != "normal" else "")
        model = f"{trial.label}{at}, {vae.posterior.type} posterior, {prior} prior"
        return f"{what}\n{trial.data.label}: {model}{figures}"

    def file(self, folder: Path, kind: str) -> Path:
        """Where its picture goes; a split other than the one that is reported is named."""
        return folder / f"{kind}{'' if self.split == 'test' else f'_{self.split}'}_{self.trial.key}.png"


def choose(out: Path, options: Options) -> Shown:
    """The trial with the key `options.trial` (or its first digits; default: the best by valid bound) and its kept
    weights; a beta-input model at its best beta. Raises OptionError, NothingToPlotError."""
    table = ledger.load(out)
    table = table if options.trial is None else _of(table, options.trial)
    trial, beta = _best(out, table)
    try:
        vae = kept_model(out, trial)
    except FileNotFoundError as e:
        raise NothingToPlotError(str(e)) from e
    if not all(p.isfinite().all() for p in vae.parameters()):
        raise NothingToPlotError(f"{out}: the weights of trial {trial.key} are not finite: it has diverged")
    beta = beta if trial.objective.beta_input else None
    return Shown(Subject(trial, vae, beta=beta), options.split, _row(table, trial, options.split, beta))


def on_split(shown: Shown) -> Shown:
    """`shown`, if the data have its split. Raises NothingToPlotError."""
    if not shown.subject.has(shown.split):
        have = ", ".join(shown.subject.evaluator.splits)
        raise NothingToPlotError(
            f"--split: the {shown.trial.data.label} data have no {shown.split!r} (they have {have})"
        )
    return shown


def _best(out: Path, table: pa.Table) -> tuple[Trial, float | None]:
    """(trial, beta): the best by valid bound; a single one even without such a bound."""
    try:
        row = curves.best_trial(table).row
        return trial_from_json(row["config_json"]), row["beta"]
    except LookupError as e:
        if len(table["trial_key"].unique()) != 1:
            raise NothingToPlotError(f"{out}: {e.args[0]} (name a trial: --trial KEY)") from e
    trial = trial_from_json(table["config_json"][0].as_py())
    betas = (b for b in trial.objective.grid() if b is not None)
    return trial, min(betas, key=lambda b: abs(math.log(b)), default=None)


def _of(table: pa.Table, key: str) -> pa.Table:
    """The rows of one trial."""
    keys = sorted(set(table["trial_key"].to_pylist()))
    found = [k for k in keys if k.startswith(key)]
    if len(found) != 1:
        several = "begins several trials' keys" if found else "is no trial's key"
        some = ", ".join((found or keys)[:8]) + (", ..." if len(found or keys) > 8 else "")
        raise OptionError(f"--trial: {key!r} {several} (ended: {some or 'none'})")
    return table.filter(pa.array([k == found[0] for k in table["trial_key"].to_pylist()]))


def _row(table: pa.Table, trial: Trial, split: str, beta: float | None) -> dict[str, Any] | None:
    places = zip(*(table[c].to_pylist() for c in ("trial_key", "split", "epoch", "beta")), strict=True)
    mine = [
        (epoch, i)
        for i, (key, name, epoch, b) in enumerate(places)
        if key == trial.key and name == split and (beta is None or b == beta)
    ]
    return table.slice(max(mine)[1], 1).to_pylist()[0] if mine else None
