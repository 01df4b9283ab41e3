"""Ledgers made by hand: rows of chosen rate and distortion, without training."""

from pathlib import Path

from distvae.objectives import Elbo
from distvae.priors import Binarized
from distvae.results import ledger, packs, rows
from distvae.store import folded
from distvae.trial import Train, Trial
from distvae.vae import Model


def trial(seed: int = 0, beta: float = 1.0, r: float = 0.0, d: int = 2, epochs: int = 2) -> Trial:
    return Trial(
        vae=Model(latent_dim=d, prior=Binarized(r=r)),
        objective=Elbo(beta=beta),
        train=Train(epochs=epochs),
        seed=seed,
    )


def measured(epoch: int, split: str, rate: float, distortion: float, measure: str | None = "binary", **more) -> dict:
    """What an evaluation pass reports."""
    return {
        "split": split,
        "n_examples": 100,
        "epoch": epoch,
        "step": 12 * epoch,
        "point": 0,
        "measure": measure,
        "rate_nats": rate,
        "rate_se": 0.1,
        "distortion_nats": distortion,
        "distortion_se": 0.2,
        "elbo_nats": -(rate + distortion) if measure else None,
        "elbo_se": 0.2,
        "objective": rate + distortion,
        "wall_s": float(epoch),
        **more,
    }


def table(trial: Trial, measured: list[dict], status: str = "finished", attempt: int = 0):
    return rows.table(trial, measured, sweep="s", status=status, attempt=attempt, device="cpu", git_sha="abc")


def commit(out: Path, trial: Trial, measured: list[dict], status: str = "finished", attempt: int = 0) -> Path:
    return ledger.commit(out, table(trial, measured, status, attempt))


def finished(out: Path, trial: Trial, rate: float, distortion: float, valid: float | None = None) -> Path:
    """A finished trial with these test values; its valid bound is `valid`, by default the test bound."""
    bound = -(rate + distortion) if valid is None else valid
    last = trial.train.epochs
    passes = [
        measured(e, split, rate + last - e, d + last - e)
        for e in range(1, last + 1)
        for split, d in (("valid", -bound - rate), ("test", distortion))
    ]
    return commit(out, trial, passes)


def pack_small(monkeypatch, size: int) -> None:
    """Packs and zips of `size`, made when twice as many files lie side by side."""
    for module in (packs, folded):
        monkeypatch.setattr(module, "SIZE", size)
    monkeypatch.setattr(ledger, "MANY", 2 * size)
