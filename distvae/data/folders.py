"""Where data files are, and the user's cache.

The default folder of a set is `$DISTVAE_DATA/<type>`, without it the user's cache ($XDG_CACHE_HOME/distvae). Folders of
data are only ever read; whatever we unpack or decode goes to the cache, whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distvae.data.dataset import DataError


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/distvae, ~/.cache/distvae by default."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "distvae"


def root_of(kind: str, root: str | None, knob: str = "data.root") -> tuple[Path, str]:
    """The folder to read, and where its name came from."""
    if root is not None:
        return Path(root).expanduser().absolute(), f"{knob}: {root}"
    if base := os.environ.get("DISTVAE_DATA"):
        return Path(base).expanduser().absolute() / kind, f"{knob}: null, so $DISTVAE_DATA"
    return cache_folder(), f"{knob}: null and $DISTVAE_DATA not set, so the user's cache"


def present(kind: str, root: str | None, *names: str, hint: str) -> Path:
    """The folder of `kind`, which holds every one of `names`."""
    folder, where = root_of(kind, root)
    missing = [n for n in names if not (folder / n).exists()]
    if missing:
        raise DataError(
            f"{folder}: {', '.join(missing)} not found ({where}). Set data.root to the folder that holds "
            f"{', '.join(names)}{hint}"
        )
    return folder


def check_md5(path: Path, expected: str, remedy: str) -> None:
    """Refuse a file that is not, byte for byte, the published one."""
    with _read_errors(path), path.open("rb") as f:
        found = hashlib.file_digest(f, "md5").hexdigest()
    if found != expected:
        raise DataError(f"{path}: md5 {found}, expected {expected}: truncated or altered. {remedy}")


@contextmanager
def cache_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        why = os.strerror(e.errno) if e.errno else str(e)  # without what `files` says of OUT
        raise DataError(f"{folder}: {why}. Set XDG_CACHE_HOME to a folder you can write") from e


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise DataError(f"{path}: {e.strerror or e}. Is it a file you may read?") from e
