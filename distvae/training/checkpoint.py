"""Checkpoints of a running trial: safetensors and JSON, never pickle. `OUT/checkpoints/<key>/ep<epochs done>/`, or
`ep<epochs done>-<steps done in the next>/` within an epoch, holds a shard per rank that has one, and `state.json` with
the rows so far and every file's SHA-256. A checkpoint exists once its directory has its final name, which on S3, where
there is no renaming, it has from the start: there it exists once `state.json`, put last, is in it. A damaged one is set
aside and the previous one used. Names sort in the order of training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from distvae import files
from distvae.files import replacing
from distvae.store.errors import StoreError
from distvae.training.world import World

KEEP = 2
WEIGHTS, STATE = "model.safetensors", "state.json"


def write(folder: Path, epoch: int, state: dict[str, Any], tensors: dict[str, Tensor] | None, world: World) -> None:
    """Write the checkpoint after `epoch` epochs and `state["position"]` optimizer steps of the next, together: ranks with
    `tensors` write a shard, rank 0 the rest. What one of them cannot write, all raise: none waits for it."""
    within = state.get("position", 0)
    final = folder / (f"ep{epoch:07d}-{within:09d}" if within else f"ep{epoch:07d}")
    temp = final if files.is_remote(folder) else folder / f".{final.name}.tmp"
    if world.leads:
        files.remove(temp)
    world.broadcast(0.0)
    digest = problem = None
    if tensors is not None:
        blob = save(tensors)
        problem = _tried(lambda: _write(temp / f"rank{world.rank}.safetensors", blob))
        digest = hashlib.sha256(blob).hexdigest()
    answers = world.collect((digest, problem))
    _raise_first(p for _, p in answers)

    def publish() -> None:
        shards = {f"rank{r}.safetensors": d for r, (d, _) in enumerate(answers) if d}
        _write(temp / STATE, json.dumps({**state, "epoch": epoch, "files": shards}).encode())
        if temp != final:
            files.remove(final)
            files.move(temp, final)
        for old in sorted(folder.glob("ep*"))[:-KEEP]:
            files.remove(old)

    _raise_first(world.collect(_tried(publish) if world.leads else None))


def _tried(act: Callable[[], None]) -> Exception | None:
    try:
        act()
    except (OSError, StoreError) as e:
        return e
    return None


def _raise_first(problems: Iterable[Exception | None]) -> None:
    for problem in problems:
        if problem is not None:
            raise problem


def read(
    folder: Path, world: World, note: Callable[[str], None] | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """The newest sound checkpoint (state, this rank's tensors), or None. Damaged ones are renamed `damaged-*`, and `note`
    is told, on the rank that leads."""
    damaged: list[str] = []

    def tell(then: str) -> None:
        if damaged and note is not None:
            note(f"trial {folder.name}: damaged and set aside: checkpoint {', '.join(damaged)}; it {then}")

    for path in sorted(folder.glob("ep*"), reverse=True):
        found = _read(path, world.rank)
        if all(world.collect(found is not None)):
            tell(f"goes on from {path.name}")
            return found
        if world.leads and files.is_remote(path) and not (path / STATE).is_file():
            files.remove(path)  # its writer died before the end
        elif world.leads:
            aside = folder / f"damaged-{path.name}"
            files.remove(aside)
            files.move(path, aside)
            damaged.append(path.name)
        world.broadcast(0.0)
    tell("starts anew")
    return None


def _read(path: Path, rank: int) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    try:
        state = json.loads((path / STATE).read_bytes())
        name = f"rank{rank}.safetensors" if f"rank{rank}.safetensors" in state["files"] else "rank0.safetensors"
        blob = (path / name).read_bytes()
        if hashlib.sha256(blob).hexdigest() != state["files"][name]:
            return None
        return state, load(blob)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None


def write_weights(folder: Path, tensors: dict[str, Tensor]) -> None:
    """The weights of an ended trial, atomically."""
    with replacing(folder / WEIGHTS) as f:
        f.write(save({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}))


def prune(folder: Path, keep: str) -> None:
    """After a trial ended: keep `all`, its `weights`, or `none`."""
    if keep == "all":
        return
    for path in list(folder.glob("*ep*")):
        files.remove(path)
    if keep == "none":
        files.remove(folder)


def _write(path: Path, blob: bytes) -> None:
    with replacing(path) as f:
        f.write(blob)
