"""Checkpoints of a running trial: safetensors and JSON, never pickle. `OUT/checkpoints/<key>/ep<epochs done>/`, or
`ep<epochs done>-<steps done in the next>/` within an epoch, holds a shard per rank that has one, and `state.json` with
the rows so far and every file's SHA-256. A checkpoint exists once its directory has its final name; a damaged one is set
aside and the previous one used. Names sort in the order of training."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from distvae.files import replacing, sync
from distvae.training.world import World

KEEP = 2
WEIGHTS = "model.safetensors"


def write(folder: Path, epoch: int, state: dict[str, Any], tensors: dict[str, Tensor] | None, world: World) -> None:
    """Write the checkpoint after `epoch` epochs and `state["position"]` optimizer steps of the next, together: ranks with
    `tensors` write a shard, rank 0 the rest."""
    within = state.get("position", 0)
    final = folder / (f"ep{epoch:07d}-{within:09d}" if within else f"ep{epoch:07d}")
    temp = folder / f".{final.name}.tmp"
    if world.leads:
        shutil.rmtree(temp, ignore_errors=True)
        temp.mkdir(parents=True)
    world.broadcast(0.0)
    digest = None
    if tensors is not None:
        blob = save(tensors)
        _write(temp / f"rank{world.rank}.safetensors", blob)
        digest = hashlib.sha256(blob).hexdigest()
    digests = world.collect(digest)
    if world.leads:
        files = {f"rank{r}.safetensors": d for r, d in enumerate(digests) if d}
        _write(temp / "state.json", json.dumps({**state, "epoch": epoch, "files": files}).encode())
        shutil.rmtree(final, ignore_errors=True)
        os.replace(temp, final)
        sync(folder)
        for old in sorted(folder.glob("ep*"))[:-KEEP]:
            shutil.rmtree(old, ignore_errors=True)
    world.broadcast(0.0)


def read(folder: Path, world: World) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """The newest sound checkpoint (state, this rank's tensors), or None. Damaged ones are renamed `damaged-*`."""
    for path in sorted(folder.glob("ep*"), reverse=True):
        found = _read(path, world.rank)
        if all(world.collect(found is not None)):
            return found
        if world.leads:
            shutil.rmtree(folder / f"damaged-{path.name}", ignore_errors=True)
            os.replace(path, folder / f"damaged-{path.name}")
        world.broadcast(0.0)
    return None


def _read(path: Path, rank: int) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    try:
        state = json.loads((path / "state.json").read_bytes())
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
    for path in folder.glob("*ep*"):
        shutil.rmtree(path, ignore_errors=True)
    if keep == "none":
        shutil.rmtree(folder, ignore_errors=True)


def _write(path: Path, blob: bytes) -> None:
    with open(path, "wb") as f:
        f.write(blob)
        f.flush()
        os.fsync(f.fileno())
