"""From what an evaluation measured to rows of the schema."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from distvae import __version__
from distvae.results.schema import METRICS, SCHEMA
from distvae.trial import Trial


def table(
    trial: Trial,
    measured: Sequence[dict[str, Any]],
    *,
    sweep: str,
    status: str,
    attempt: int,
    device: str,
    git_sha: str,
) -> pa.Table:
    """Rows of one ended attempt: `measured` with the trial's identity. What was not measured, or is not finite, is
    null; an attempt that measured nothing still has one row."""
    identity = {
        "sweep": sweep,
        "trial_key": trial.key,
        "config_key": trial.config_key,
        "seed": trial.seed,
        "status": status,
        "attempt": attempt,
        "data": trial.data.label,
        **trial.knob_columns(),
        "device": device,
        "git_sha": git_sha,
        "version": __version__,
        "config_json": json.dumps(trial.config(), sort_keys=True, separators=(",", ":")),
    }
    nothing = [{"split": "valid", "n_examples": 0, "epoch": 0, "step": 0, "point": 0}]
    rows = [{**identity, **{k: _finite(k, v) for k, v in m.items()}} for m in measured or nothing]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _finite(name: str, value: Any) -> Any:
    return None if name in METRICS and value is not None and not math.isfinite(value) else value
