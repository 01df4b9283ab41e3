"""Sweeps made by hand: planned, and committed with chosen numbers, without training."""

import json
from pathlib import Path

from distvae.config import loads
from distvae.results import ledger, rows
from distvae.sweeps.plan import write_plan
from distvae.trial import Trial

TEXT = """name: made
vae:
  encoder: {type: mlp, hidden: [16]}
  latent_dim: {grid: [2, 8]}
  posterior: {type: du}
  prior: {type: binarized, r: {grid: [0.0, 0.5]}}
objective: {type: elbo, beta: {grid: [0.25, 1.0, 4.0]}}
zip: {vae.posterior.gamma: [0.5, 1.0], vae.posterior.p_keep: [1.0, 0.8]}
train: {epochs: 3}
seeds: 2
"""


def passes(trial: Trial, **more) -> list[dict]:
    """Three epochs: the rate falls with beta, the distortion rises; the bound is best at beta = 1, r = 0.5."""
    flat = trial.knob_columns()
    beta, r, d = flat["beta"], flat["r"] or 0.0, flat["latent_dim"]
    rate, off = 4 / (0.5 + beta), 0.1 * (r - 0.5) ** 2 + 0.01 * trial.seed
    found = []
    for epoch in (1, 2, 3):
        for split, gap in (("train", -0.2), ("valid", 0.0), ("test", 0.1)):
            distortion = 20 + 2.5 * beta - 0.02 * d + off + gap + (3 - epoch)
            found.append(
                {
                    "split": split, "n_examples": 100, "epoch": epoch, "step": 12 * epoch, "point": 0,
                    "measure": "binary", "rate_nats": rate + off, "rate_se": 0.1, "rate_surrogate_nats": rate / 2,
                    "distortion_nats": distortion, "distortion_se": 0.2, "elbo_nats": -(rate + off + distortion),
                    "elbo_se": 0.2, "objective": beta * rate + distortion, "active_units": d, "wall_s": float(epoch),
                    **more,
                }
            )  # fmt: skip
    return found


def commit(out: Path, trial: Trial, measured: list[dict], status: str = "finished", sweep: str = "made", **identity):
    told = {"device": "cpu", "git_sha": "0123456789abcdef0123456789abcdef01234567", **identity}
    ledger.commit(out, rows.table(trial, measured, sweep=sweep, status=status, attempt=0, **told))


def sweep(out: Path, text: str = TEXT, odd: bool = True) -> list[Trial]:
    """A sweep in OUT. With `odd` its last four trials have failed, diverged, been stopped, and not been run."""
    study = loads(text)
    write_plan(out, study)
    trials = list(study.trials)
    ends = (
        ["finished"] * (len(trials) - 4) + ["failed", "diverged", "stopped", "to run"]
        if odd
        else ["finished"] * len(trials)
    )
    (out / "logs").mkdir(exist_ok=True)
    for trial, end in zip(trials, ends, strict=True):
        if end == "to run":
            continue
        measured = (
            passes(trial)
            if end in ("finished", "stopped")
            else passes(trial, elbo_nats=None)[:3]
            if end == "diverged"
            else []
        )
        commit(out, trial, measured, end)
        event = {"unix_s": 1.7e9 + trial.seed, "event": "end", "status": end}
        if end == "failed":
            event = {"unix_s": 1.7e9, "event": "error", "traceback": "Traceback ...\nValueError: no such thing\n"}
        (out / "logs" / f"{trial.key}.jsonl").write_text(json.dumps(event) + "\n")
    (out / ".created_ms").write_text("1699999000000")
    return trials
