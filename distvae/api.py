"""distvae from Python: `train` one trial, `sweep` a YAML file, read a sweep's curve, load its best model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from distvae import files
from distvae.config import ConfigError, load
from distvae.data import load as load_data
from distvae.results import curves, ledger, rows
from distvae.results.provenance import git_sha
from distvae.study import Study
from distvae.sweeps.lock import hold_out
from distvae.sweeps.plan import check_out
from distvae.sweeps.remaining import remaining
from distvae.training import checkpoint
from distvae.training.loop import Runner
from distvae.trial import Trial
from distvae.vae import Vae

if TYPE_CHECKING:
    from distvae.metrics.menu import Metric
    from distvae.sweeps.outcome import Outcome

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Result:
    """A trained trial: its rows (the columns of rd_curve.parquet) and its model."""

    trial: Trial
    rows: pa.Table
    model: Vae
    status: str  # finished | diverged


def train(trial: Trial | str | Path, out: str | Path | None = None, *, engine: str = "torch") -> Result:
    """Train one trial in this process: a `Trial`, or a YAML file that describes exactly one.

    With `out`, its rows are committed there and its weights kept, as a sweep would; a trial that has ended there is not
    trained again, its rows and weights come back. Raises ConfigError on a bad YAML or one with several trials,
    OutLockedError if a sweep owns `out`."""
    name = "train"
    if isinstance(trial, str | Path):
        study = load(Path(trial))
        if len(study.trials) != 1:
            what = "a search" if study.source else f"{len(study.trials)} trials"
            raise ConfigError([f"{trial}: describes {what}, train() takes one trial: use distvae.sweep"])
        trial, name = study.trials[0], study.name
    if out is None:
        runner, status = _run(trial, engine, None)
        table = _table(runner, name, status, attempt=0, after=0)
        return Result(trial, table, _told(runner.vae, trial, table).eval(), status)
    out = check_out(files.at(out))
    with hold_out(out) as hold:
        ended, _ = ledger.scan(out)
        todo = remaining(Study(name, (trial,)), ended)
        if not todo:
            table, vae = _rows_of(out, trial), kept_model(out, trial)
            return Result(trial, table, _told(vae, trial, table), ended[trial.key].status)
        task = todo[0][1]
        folder = out / "checkpoints" / trial.key
        runner, status = _run(trial, engine, folder)
        hold.check()
        runner.write_weights()
        ledger.commit(out, _table(runner, name, status, attempt=task["attempt"], after=task["committed_epoch"]))
        checkpoint.prune(folder, "weights")
        table = _rows_of(out, trial)
        return Result(trial, table, _told(runner.vae, trial, table).eval(), status)


def _run(trial: Trial, engine: str, folder: Path | None) -> tuple[Runner, str]:
    runner = Runner(trial, engine=engine, folder=folder)
    status = runner.advance().status or runner.status
    assert status is not None, "advance() without a limit trains to the end"
    runner.close()
    return runner, status


def _table(runner: Runner, sweep: str, status: str, *, attempt: int, after: int) -> pa.Table:
    """Rows of the epochs after `after`."""
    new = [r for r in runner.rows if r["epoch"] > after]
    return rows.table(
        runner.trial, new, sweep=sweep, status=status, attempt=attempt, device=runner.world.device, git_sha=git_sha()
    )


def _rows_of(out: Path, trial: Trial) -> pa.Table:
    """As they were measured: by epoch, train, valid, test."""
    table = ledger.load(out)
    place = zip(*(table[c].to_pylist() for c in ("trial_key", "epoch", "split")), strict=True)
    mine = [(epoch, SPLITS.index(split), i) for i, (key, epoch, split) in enumerate(place) if key == trial.key]
    return table.take(pa.array([i for *_, i in sorted(mine)], pa.int64()))


def kept_model(out: Path, trial: Trial) -> Vae:
    """The model of a trial that has ended in OUT. Raises FileNotFoundError if its weights were not kept."""
    from safetensors.torch import load, load_file

    path = out / "checkpoints" / trial.key / checkpoint.WEIGHTS
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: the weights of trial {trial.key} were not kept (resources.keep); "
            "distvae.train(trial) trains it again"
        )
    vae = Vae(trial.vae, load_data(trial.data).x_shape, dtype=trial.dtype)
    vae.load_state_dict(load(path.read_bytes()) if files.is_remote(path) else load_file(path))
    return _told(vae, trial).eval()


def _told(vae: Vae, trial: Trial, table: pa.Table | None = None) -> Vae:
    """A model knows its trial, what that measured last (`table`; of a beta-input model at which beta is not said yet), and
    the betas it was evaluated at."""
    vae.trial, vae.betas = trial, tuple(b for b in trial.objective.grid() if b is not None)
    if table is not None and not trial.objective.beta_input:
        vae.metrics = curves.last_metrics(table, trial.key)
    return vae


def sweep(
    config: str | Path, out: str | Path, *, sets: Sequence[str] = (), address: str | None = None, display: bool = False
) -> Outcome:
    """Run or resume the sweep of a YAML file, as `distvae sweep` does, without the pictures."""
    from distvae.sweeps.run import sweep as run

    out = check_out(files.at(out))
    return run(load(Path(config), sets), out, address=address, display=display)


def measure(vae: Vae, metrics: str | Sequence[Metric], *, device: str = "cpu") -> dict[str, dict[str, Any]]:
    """Metrics of a trained model, as `distvae eval` measures them: split -> column -> value (null where there is none).

    `metrics` are parts, or as on the command line: `measure(vae, "iw_nll, clustering")`. The model says which trial it
    is of (`train`, `load_best`, `from_pretrained`): its data are loaded. Raises ConfigError."""
    from distvae.config import metrics as named
    from distvae.metrics.metric import clash
    from distvae.metrics.subject import Subject

    if vae.trial is None:
        raise ConfigError(
            ["measure: the model does not say which trial it is of (set vae.trial: its data are measured on)"]
        )
    asked = named(metrics) if isinstance(metrics, str) else tuple(metrics)
    if why := clash(asked, vae.trial):
        raise ConfigError([f"measure: {why}"])
    subject, found = Subject(vae.trial, vae, beta=vae.beta, device=device), dict[str, dict[str, Any]]()
    for m in asked:
        why = m.why_not(subject)
        for split in m.splits:
            if subject.has(split):
                values = dict.fromkeys(c.name for c in m.columns(vae.trial)) if why else m.measure(subject, split)
                found.setdefault(split, {}).update(values)
    return found


def load_curve(out: str | Path) -> pa.Table:
    """Every committed row of a sweep, merged over attempts: the table of rd_curve.parquet."""
    return ledger.load(files.at(out))


def load_best(out: str | Path, *, by: str = "elbo_nats", at_rate: float | None = None, split: str = "valid") -> Vae:
    """The model of the best trial by a *valid* metric, in evaluation mode: `.encode(x)`, `.decode(z)`, `.sample(n)`,
    `.trial` (whose it is), `.metrics` (what it measured), `.save_pretrained(folder)`.

    `by` is a metric with a best value (elbo_nats, distortion_mse, iw_nll_nats, nmi, fid_..., probe_accuracy_...), on
    `split`: valid selects, so that test stays fit to be reported. `at_rate` admits only trials whose rate on `split` is at
    most so many nats: the best *within* a budget, the nearest below it where distortion falls with rate; nothing is
    interpolated. A beta-input model counts once for each beta it was evaluated at, and comes set to the best (`.beta`).
    Only finished trials count. Raises LookupError if there is none (or none was measured: it says how), ValueError for a
    surrogate or a metric without a best value, FileNotFoundError if the weights were not kept (`resources.keep: none`)."""
    from distvae.sweeps.plan import trial_from_json

    if split not in SPLITS:
        raise ValueError(f"split: {split!r} is not one of {', '.join(SPLITS)}")
    out = files.at(out)
    table = ledger.load(out)
    try:
        best = curves.best_trial(table, by=by, at_rate=at_rate, split=split)
    except LookupError as e:
        raise LookupError(f"{out}: {e.args[0]}") from None
    trial = trial_from_json(best.row["config_json"])
    vae = kept_model(out, trial)
    vae.beta = best.row["beta"] if trial.objective.beta_input else None
    vae.metrics = curves.last_metrics(table, trial.key, best.point)
    return vae
