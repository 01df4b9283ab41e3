"""The process that measures a trial. In a file of its own: it is imported where Ray runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray


@ray.remote(max_retries=1)
def measure(out: str, config: dict[str, Any], metrics: Any, epoch: int, threads: int, device: str) -> dict[str, Any]:
    """Measure a trial and commit what came out. Returns {rows, failed: a line or None, why: metric -> why it is
    null}."""
    import torch

    from distvae.config import trial_from_data
    from distvae.results import measurements
    from distvae.sweeps.measure import one
    from distvae.sweeps.rank import log

    torch.set_num_threads(threads)
    trial = trial_from_data(config)
    found, raised = one(Path(out), trial, metrics, epoch, device=device)
    for text in raised:
        log(Path(out), trial.key, event="metric error", traceback=text)
    if found.rows:
        measurements.commit(Path(out), found)
    failed = "; ".join(f"{text.split(':')[0]}: {text.strip().splitlines()[-1][:160]}" for text in raised) or None
    return {"rows": list(found.rows.values()), "failed": failed, "why": found.why}
