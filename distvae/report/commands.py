"""What to type to get the same again: the sweep's commands, and each trial as a YAML file of its own, which
`distvae sweep` and `distvae.train` take and whose trial has the same key."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from distvae import files
from distvae.sweeps.plan import SWEEP
from distvae.sweeps.tree import ConfigError, dump, parse, read_file
from distvae.training.checkpoint import WEIGHTS

WIDTH = 60  # of a trial's YAML: it stands in half the page
RUN = ("engine", "deepspeed", "resources")  # of the sweep's YAML: how its trials are run


def commands(out: Path, configs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """{out, out_path, sweep_yaml, commands, bodies, trial_yaml, kept}: `trial_yaml` is trial key -> [seed, body], the file being
    `name: trial-<key>`, the body, `seeds: [<seed>]`; the seeds of a configuration share theirs."""
    text, run = _sweep(out)
    bodies: dict[str, int] = {}
    files = {}
    for key, config in configs.items():
        body = dump({k: _type_first(v) for k, v in _ordered(config).items()} | run, WIDTH)
        files[key] = [config.get("seed", 0), bodies.setdefault(body, len(bodies))]
    where = shlex.quote(str(out))
    return {
        "out": where,
        "out_path": str(out),
        "sweep_yaml": text,
        "commands": _commands(where, shlex.quote(str(out / SWEEP)) if text else None),
        "bodies": list(bodies),
        "trial_yaml": files,
        "kept": [key for key, kept in zip(configs, _kept(out, configs), strict=True) if kept],
    }


def _kept(out: Path, keys: Iterable[str]) -> Iterable[bool]:
    weights = [out / "checkpoints" / key / WEIGHTS for key in keys]
    return files.each(weights, lambda path: path.is_file(), remote=files.is_remote(out))


def _commands(out: str, sweep: str | None) -> list[list[str]]:
    """[what it does, command]."""
    told = [
        [
            "train what has not ended (all of it with a new --out), then export and draw",
            f"distvae sweep {sweep} --out {out}",
        ],
        ["count the trials, and what is left", f"distvae plan {sweep} --out {out} --no-probe"],
        ["how far it is, the frontier, the best", f"distvae status {out}"],
    ]
    return [
        *(told if sweep else []),
        ["the pictures", f"distvae plot {out}"],
        ["more metrics of the ended trials, from their kept weights", f"distvae eval {out}"],
        ["every committed row as CSV", f"distvae export {out} --format csv"],
        ["MLflow's comparison", f"distvae ui {out}"],
        ["this page", f"distvae report {out}"],
    ]


def _sweep(out: Path) -> tuple[str, dict[str, Any]]:
    """OUT/sweep.yaml, and what it says of how trials are run; nothing if there is none, or it is no YAML."""
    try:
        text, _ = read_file(out / SWEEP)
        tree = parse(text, lambda line, column: f"{line}:{column}", [])
    except ConfigError:
        return "", {}
    data = tree.plain() if tree is not None else None
    return text, {k: data[k] for k in RUN if k in data} if isinstance(data, dict) else {}


def _ordered(config: Mapping[str, Any]) -> dict[str, Any]:
    """As people write it, without the seed: the ledger has the names sorted."""
    first = [k for k in ("data", "vae", "objective", "train", "evaluate") if k in config]
    return {k: config[k] for k in (*first, *(k for k in config if k not in first)) if k != "seed"}


def _type_first(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {k: _type_first(value[k]) for k in sorted(value, key=lambda k: k != "type")}
