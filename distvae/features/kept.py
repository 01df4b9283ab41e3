"""Nets that took time to train, kept in the user's cache: safetensors whose header holds a JSON card, so one file is
written and replaced whole; never pickle. A file that is damaged in any way is as good as none."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from distvae.files import replacing

Kept = tuple[dict[str, Tensor], dict[str, Any]]  # tensors and their card


def kept(path: Path | None, make: Callable[[], Kept]) -> Kept:
    """What `path` holds, or `make()`, which is then kept there. Of processes that need it at once one makes it and the
    others wait. Where nothing can be written (or `path` is None) it is made and not kept."""
    if path is None:
        return make()
    if found := read(path):
        return found
    with _turn(path):
        if found := read(path):
            return found
        made = make()
        with contextlib.suppress(OSError):
            write(path, made)
        return made


def write(path: Path, made: Kept) -> None:
    tensors, card = made[0], json.dumps(made[1])
    header = {"card": card, "sha256": _digest(tensors, card)}
    with replacing(path) as f:
        f.write(save(tensors, metadata=header))


def read(path: Path) -> Kept | None:
    try:
        with safe_open(path, framework="pt") as f:
            header = f.metadata()
            tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118
        card = header["card"]
        return (tensors, json.loads(card)) if header["sha256"] == _digest(tensors, card) else None
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None


@contextlib.contextmanager
def _turn(path: Path) -> Iterator[None]:
    """One process at a time, by a lock that the kernel releases when its holder dies; without, where there can be
    none: then several may make it, and the last one's is kept."""
    fd = None
    try:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        if fd is not None:
            os.close(fd)


def _digest(tensors: dict[str, Tensor], card: str) -> str:
    digest = hashlib.sha256(card.encode())
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()
