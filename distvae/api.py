"""distvae from Python: `train` one trial, `sweep` a YAML file, read a sweep's curve, load its best model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distvae.config import ConfigError, load
from distvae.data import load as load_data
from distvae.results import curves, ledger, rows
from distvae.results.provenance import git_sha
from distvae.sweeps.plan import check_out
from distvae.training import checkpoint
from distvae.training.loop import Runner
from distvae.trial import Trial
from distvae.vae import Vae

if TYPE_CHECKING:
    import pyarrow as pa

    from distvae.sweeps.run import Outcome


@dataclass(frozen=True)
class Result:
    """A trained trial: its rows (the columns of rd_curve.parquet) and its model."""

    trial: Trial
    rows: pa.Table
    model: Vae
    status: str  # finished | diverged


def train(trial: Trial | str | Path, out: str | Path | None = None, *, engine: str = "torch") -> Result:
    """Train one trial in this process: a `Trial`, or a YAML file that describes exactly one.

    With `out`, its rows are committed there (and its weights kept), as a sweep would. Raises ConfigError on a bad YAML
    or one with several trials."""
    name = "train"
    if isinstance(trial, str | Path):
        study = load(Path(trial))
        if len(study.trials) != 1:
            raise ConfigError([f"{trial}: describes {len(study.trials)} trials, train() takes one: use distvae.sweep"])
        trial, name = study.trials[0], study.name
    folder, attempt = None, 0
    if out is not None:
        out = Path(out)
        check_out(out)
        folder = out / "checkpoints" / trial.key
        past = ledger.scan(out)[0].get(trial.key)
        attempt = 0 if past is None else past.attempt + 1
    runner = Runner(trial, engine=engine, folder=folder)
    report = runner.advance()
    status = report.status or "finished"
    table = rows.table(trial, runner.rows, sweep=name, status=status, attempt=attempt, device="cpu", git_sha=git_sha())
    if out is not None and folder is not None:
        runner.write_weights()
        ledger.commit(Path(out), table)
        checkpoint.prune(folder, "weights")
    runner.close()
    return Result(trial, table, runner.vae.eval(), status)


def sweep(
    config: str | Path, out: str | Path, *, sets: Sequence[str] = (), address: str | None = None, display: bool = False
) -> Outcome:
    """Run or resume the sweep of a YAML file, as `distvae sweep` does, without the pictures."""
    from distvae.sweeps.run import sweep as run

    check_out(Path(out))
    return run(load(Path(config), sets), Path(out), address=address, display=display)


def load_curve(out: str | Path) -> pa.Table:
    """Every committed row of a sweep, merged over attempts: the table of rd_curve.parquet."""
    return ledger.load(Path(out))


def load_best(out: str | Path, *, by: str = "elbo_nats", at_rate: float | None = None) -> Vae:
    """The model of the best trial by a *valid* metric, in evaluation mode: `.encode(x)`, `.decode(z)`, `.sample(n)`.

    `at_rate` admits only trials whose valid rate is at most so many nats. Raises LookupError if there is none,
    FileNotFoundError if its weights were not kept (`resources.keep: none`)."""
    from safetensors.torch import load_file

    from distvae.sweeps.plan import trial_from_json

    table = ledger.load(Path(out))
    key = curves.best_trial(table, by=by, at_rate=at_rate)
    config = next(
        r["config_json"] for r in table.select(["trial_key", "config_json"]).to_pylist() if r["trial_key"] == key
    )
    trial = trial_from_json(config)
    path = Path(out) / "checkpoints" / key / checkpoint.WEIGHTS
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: the weights of trial {key} were not kept (resources.keep); train it again: distvae.train"
        )
    vae = Vae(trial.vae, load_data(trial.data).x_shape, dtype=trial.dtype)
    vae.load_state_dict(load_file(path))
    return vae.eval()
