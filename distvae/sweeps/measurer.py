"""The process that measures a trial. In a file of its own: it is imported where Ray runs."""

from __future__ import annotations

from typing import Any

import ray


@ray.remote(max_retries=1)
def measure(
    out: tuple[str, int | None], config: dict[str, Any], metrics: Any, epoch: int, threads: int, device: str
) -> dict[str, Any]:
    """Measure a trial of OUT and commit what came out, if the sweep's lease (the second of `out`) still holds it. Returns
    {rows, failed: a line or None, why: metric -> why it is null}."""
    import torch

    from distvae import files
    from distvae.config import trial_from_data
    from distvae.results import measurements
    from distvae.store import lease
    from distvae.sweeps.measure import one
    from distvae.sweeps.rank import log

    torch.set_num_threads(threads)
    place, number = files.at(out[0]), out[1]
    files.guard(place)
    trial = trial_from_data(config)
    found, raised = one(place, trial, metrics, epoch, device=device)
    for text in raised:
        log(place, trial.key, event="metric error", traceback=text)
    if found.rows:
        lease.check(place, number)
        measurements.commit(place, found)
    failed = "; ".join(f"{text.split(':')[0]}: {text.strip().splitlines()[-1][:160]}" for text in raised) or None
    return {"rows": list(found.rows.values()), "failed": failed, "why": found.why}
