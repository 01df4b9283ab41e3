"""The columns of rd_curve.parquet: names that other people's scripts rely on, their types, units and meaning. One row
per (trial, epoch, split, point)."""

from __future__ import annotations

import json

import pyarrow as pa

from distvae.trial import KNOBS

SCHEMA_VERSION = "1"
_TEXT = pa.dictionary(pa.int32(), pa.string())
_F, _I, _L = pa.float64(), pa.int32(), pa.int64()

_COLUMNS: list[tuple[str, pa.DataType, str, str]] = [  # name, type, unit, meaning
    ("sweep", _TEXT, "", "name of the sweep"),
    ("trial_key", _TEXT, "", "hash of what can change a trial's numbers"),
    ("config_key", _TEXT, "", "the key without the seed: what seed intervals average over"),
    ("seed", _L, "", "seed of weights and latent noise"),
    ("status", _TEXT, "", "how this attempt ended: finished, stopped, diverged, failed"),
    ("attempt", _I, "", "0 for the first; the row's file is points/<trial_key>.<attempt>.parquet"),
    ("data", _TEXT, "", "data set"),
    ("split", _TEXT, "", "train (a fixed subset), valid (selects) or test (is reported)"),
    ("n_examples", _L, "examples", "examples of the evaluation pass"),
    ("epoch", _I, "epochs", "epochs trained"),
    ("step", _L, "steps", "optimizer steps taken"),
    ("point", _I, "", "0; numbers the grid of a beta-input model"),
    ("conditioning", _TEXT, "", "how one network is told beta (film, gate); null: each beta has its own"),
    ("r", _F, "prior std", "distance of a mode from 0 (binarized prior)"),
    ("beta", _F, "", "weight of the divergence"),
    ("gamma", _F, "", "scale of the batch-normalised mean (DU-VAE)"),
    ("p_keep", _F, "", "probability of keeping a variance (DU-VAE)"),
    ("latent_dim", _I, "dimensions", "dimensions of z"),
    ("measure", _TEXT, "", "what the distortion is a -log density of: binary, density; null: of nothing"),
    ("rate_nats", _F, "nats/example", "KL(q(z|x) || p(z)) to the normalised prior"),
    ("rate_se", _F, "nats/example", "standard error of rate_nats over examples"),
    ("rate_surrogate_nats", _F, "nats/example", "surrogate: the divergence trained on, where it is not the rate"),
    ("distortion_nats", _F, "nats/example", "-E log p(x|z) with all constants"),
    ("distortion_se", _F, "nats/example", "standard error of distortion_nats over examples"),
    (
        "distortion_surrogate_nats",
        _F,
        "nats/example",
        "surrogate: -E log p(x|z) with sigma_x fitted to the data it is judged on",
    ),
    ("distortion_mse", _F, "squared pixel", "mean squared error per pixel of E[x|z]"),
    ("elbo_nats", _F, "nats/example", "-(rate_nats + distortion_nats): a valid bound, or null"),
    ("elbo_se", _F, "nats/example", "standard error of elbo_nats over examples"),
    ("objective", _F, "nats/example", "surrogate: what training minimises"),
    ("iw_nll_nats", _F, "nats/example", "importance-weighted -log p(x)"),
    ("mi_nats", _F, "nats", "mutual information of x and z under q"),
    ("active_units", _I, "dimensions", "dimensions whose posterior mean varies by more than 0.01 over examples"),
    ("gradient_variance", _F, "(nats/example)^2", "trace of the covariance of the encoder's gradient (train rows)"),
    ("gradient_square", _F, "(nats/example)^2", "mean squared norm of the encoder's gradient (train rows)"),
    ("wall_s", _F, "s", "training and evaluation so far"),
    ("device", _TEXT, "", "device trained on"),
    ("git_sha", _TEXT, "", "commit of distvae"),
    ("version", _TEXT, "", "version of distvae"),
    ("config_json", _TEXT, "", "the whole trial, defaults included"),
]

SCHEMA = pa.schema(
    [pa.field(name, kind, metadata={"unit": unit, "doc": doc}) for name, kind, unit, doc in _COLUMNS],
    metadata={
        "distvae.schema_version": SCHEMA_VERSION,
        "distvae.units": json.dumps({name: unit for name, _, unit, _ in _COLUMNS if unit}),
    },
)
_GIVEN = {"seed", "attempt", "n_examples", "epoch", "step", "point", *KNOBS, "wall_s"}  # numbers that are no metrics


def metric_names(table: pa.Table) -> list[str]:
    """The columns that hold metrics: those of every sweep, and those that were measured later."""
    return [f.name for f in table.schema if is_metric(f.name) and (f.type == _F or pa.types.is_integer(f.type))]


def is_metric(name: str) -> bool:
    """Is a column of numbers a metric? Knobs, counters and times are not."""
    return name not in _GIVEN


def unit_of(table: pa.Table, name: str) -> str:
    """`nats/example`; "" if it has none."""
    return (table.schema.field(name).metadata or {}).get(b"unit", b"").decode()


METRICS = metric_names(SCHEMA.empty_table())
