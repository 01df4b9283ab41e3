"""Memory of this process and of the machine, in bytes."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import resource
import sys
from pathlib import Path


def resident() -> int:
    """What this process holds now (where that is not told, its peak)."""
    return _status("VmRSS") or _peak_ever()


def peak() -> int:
    """The most it has held since `reset_peak` (where that cannot be reset, since its start)."""
    return _status("VmHWM") or _peak_ever()


def reset_peak() -> None:
    """Give back what is free, and measure the peak from here."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # glibc keeps what was freed
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def machine() -> int:
    """What this machine has, or the container that we are in may use."""
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        has = min(has, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return has


def _status(name: str) -> int | None:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


def _peak_ever() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
