"""How a sweep's size costs: 100, 1,000 and 10,000 near-empty trials (one step each, of a net with two hidden units, on 8
Gaussian numbers), each command as a user types it, in a process of its own. Seconds, peak memory of the driver, files and
bytes of OUT; and how fast a curve of 10,000 trials and 20 epochs is read. `count` is
`plan --no-probe`, `alone` a launch of trials that are not stacked: each is a group of its own.

`growth` is the exponent between two sizes, log(ratio of seconds) / log(ratio of trials): 1 is linear, less is better.
`driver_grew_mb` is what the driver's memory grew by while it trained: its median while the last tenth of the trials ended
less that of the second tenth. Where the first thousand are among them, so is what packing results loads, once."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIZES = (100, 1_000, 10_000)
CONFIG = """
name: scale
data: {{type: gaussian, eigenvalues: [1.0, 0.5, 0.25, 0.1, 0.1, 0.1, 0.1, 0.1], n: 64, n_held: 16}}
vae:
  encoder: {{type: mlp, hidden: [2]}}
  latent_dim: {{grid: [1, 2]}}
  prior: {{type: binarized, r: {{grid: [0.0, 0.5]}}}}
  likelihood: {{type: gaussian, sigma: 1.0}}
objective: {{type: elbo, beta: {{grid: {betas}}}}}
train: {{epochs: 1, batch_size: 64}}
evaluate: {{train_examples: 1}}
seeds: 5
resources: {{fuse: 50}}
engine: torch
"""


def command(*words: object) -> dict[str, float]:
    """A command of distvae's to its end: seconds, and its own peak memory in MB."""
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "distvae.cli", *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    errors: list[bytes] = []
    reader = threading.Thread(target=lambda: errors.append(process.stderr.read()))  # type: ignore[union-attr]
    reader.start()
    _, status, usage = os.wait4(process.pid, 0)
    reader.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(errors[0].decode()[-2000:])
    return {"s": time.monotonic() - started, "mb": usage.ru_maxrss / 1024}


def launch(config: Path, out: Path, trials: int, *options: str) -> dict[str, Any]:
    """A whole sweep, with the driver's memory as trials end."""
    import psutil

    from distvae.operate import record

    seen: list[tuple[int, float]] = []
    over = threading.Event()

    def watch() -> None:
        me = psutil.Process()
        while not over.wait(1.0):
            for p in me.children():
                with contextlib.suppress(psutil.Error):
                    now = record.read(out)
                    if "sweep" in p.cmdline() and now and now["phase"] == "training":
                        seen.append((sum(now["counts"].values()), p.memory_info().rss / 2**20))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        found: dict[str, Any] = command("sweep", config, "--out", out, *options)
    finally:
        over.set()
        watcher.join()
    early = [mb for done, mb in seen if trials / 10 <= done <= trials / 5]
    late = [mb for done, mb in seen if done >= trials * 0.9]
    if early and late:
        found["driver_grew_mb"] = statistics.median(late) - statistics.median(early)
    return found


def size(out: Path) -> dict[str, int]:
    """Files and bytes of OUT, without checkpoints."""
    files = [p for p in out.rglob("*") if p.is_file() and "checkpoints" not in p.relative_to(out).parts]
    by_folder: dict[str, int] = {}
    for p in files:
        top = p.relative_to(out).parts[0]
        by_folder[top] = by_folder.get(top, 0) + 1
    return {
        "files": len(files),
        "bytes": sum(p.stat().st_size for p in files),
        "checkpoint_files": sum(p.is_file() for p in (out / "checkpoints").rglob("*")),
        **{f"files_{k}": n for k, n in sorted(by_folder.items()) if n > 10},
    }


def one(trials: int, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    config, out = folder / f"{trials}.yaml", folder / f"out{trials}"
    betas = [round(0.1 + 0.01 * i, 2) for i in range(trials // 20)]
    config.write_text(CONFIG.format(betas=betas))
    found: dict[str, Any] = {}
    for name, run in {
        "launch": lambda: launch(config, out, trials),  # first: it leaves what `plan` knows of this machine
        "plan": lambda: command("plan", config),
        "count": lambda: command("plan", config, "--no-probe"),
        "status": lambda: command("status", out, "--json"),
        "resume": lambda: command("sweep", config, "--out", out),
        "export": lambda: command("export", out),
        "alone": lambda: launch(config, folder / f"alone{trials}", trials, "--set", "resources.fuse=off"),
    }.items():
        found[name] = run()
        say(f"{trials:>6} trials: {name} {found[name]['s']:.1f} s, {found[name]['mb']:.0f} MB")
    return {**found, **size(out)}


def curve(folder: Path, trials: int = 10_000, epochs: int = 20) -> dict[str, float]:
    """A curve of real rows under other keys, no two with the same numbers: bytes, and seconds to read it, median of 5."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from distvae.results import ledger

    some = pq.read_table(folder / f"out{SIZES[0]}" / "rd_curve.parquet").combine_chunks()
    rows = trials * epochs * 3
    index = pa.array([i % len(some) for i in range(rows)])
    table = some.take(index)
    keys = [f"{i // (3 * epochs):016x}" for i in range(rows)]
    for name, values in {"trial_key": keys, "epoch": [1 + i // 3 % epochs for i in range(rows)]}.items():
        at = table.schema.get_field_index(name)
        kind = table.schema.field(name).type
        column = pa.array(values)
        column = column.dictionary_encode().cast(kind) if pa.types.is_dictionary(kind) else column.cast(kind)
        table = table.set_column(at, table.schema.field(name), column)
    draw = np.random.default_rng(0)
    for at, f in enumerate(table.schema):
        if pa.types.is_float64(f.type) and table.column(at).null_count < rows:
            found = table.column(at).to_numpy() * (1 + 1e-3 * draw.standard_normal(rows))
            table = table.set_column(at, f, pa.array(found, from_pandas=True))
    target = ledger.write(table, folder / "rd_curve.parquet")
    spans = []
    for _ in range(5):
        started = time.monotonic()
        assert len(pq.read_table(target)) == rows
        spans.append(time.monotonic() - started)
    return {"rows": rows, "bytes": target.stat().st_size, "read_s": sorted(spans)[2]}


def growth(results: dict[int, dict[str, Any]]) -> dict[str, float]:
    """The exponent of each command's seconds between the two largest sizes."""
    small, large = sorted(results)[-2:]
    return {
        name: math.log(results[large][name]["s"] / results[small][name]["s"]) / math.log(large / small)
        for name in ("plan", "count", "launch", "status", "resume", "export", "alone")
    }


def run(sizes: tuple[int, ...] = SIZES, say: Callable[[str], None] = print, **_: Any) -> dict[str, Any]:
    """Every size, smallest first; JSON-able."""
    from distvae import __version__
    from distvae.results.provenance import git_sha
    from distvae.sweeps.cluster import cores

    with tempfile.TemporaryDirectory() as temp:
        folder = Path(temp)
        results = {n: one(n, folder, say) for n in sizes}
        read = curve(folder)
    import ray
    import torch

    return {
        "benchmark": "scale",
        "trials": {str(n): found for n, found in results.items()},
        "growth": growth(results),
        "curve": read,
        "cores": cores(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ray": ray.__version__,
        "distvae": __version__,
        "git_sha": git_sha(),
    }


if __name__ == "__main__":
    print(json.dumps(run(), indent=1))
