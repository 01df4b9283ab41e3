"""`distvae doctor`: versions, devices, kernels, DeepSpeed, disk, ports. Each check says what it found and, if it is
not well, the remedy."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console

PACKAGES = {
    "torch": "trains everything",
    "ray": "schedules sweeps",
    "optuna": "search.algorithm",
    "mlflow": "compare UI",
    "pyarrow": "the ledger",
    "torchvision": "mnist and fashion_mnist",
    "scikit-learn": "digits",
    "matplotlib": "plots",
    "safetensors": "checkpoints",
}
Found = tuple[bool, str, str]  # well?, what was found, remedy


def examine() -> list[dict[str, Any]]:
    """Every check, as {name, ok, needed, found, remedy}."""
    checks: list[tuple[str, bool, Callable[[], Found]]] = [("python", True, _python), ("distvae", True, _distvae)]
    checks += [(name, True, lambda n=name: _package(n)) for name in PACKAGES]
    checks += [
        ("deepspeed", False, _deepspeed),
        ("cuda", False, _cuda),
        ("philox", True, _philox),
        ("kernels", False, _kernels),
        ("cores", True, _cores),
        ("memory", True, _memory),
        ("disk", True, _disk),
        ("s3", False, _s3),
        ("shared memory", False, _shm),
        ("loopback port", True, _port),
        ("ui port 5000", False, _ui_port),
    ]
    return [_run(*check) for check in checks]


def _run(name: str, needed: bool, check: Callable[[], Found]) -> dict[str, Any]:
    try:
        ok, found, remedy = check()
    except Exception as e:
        ok, found, remedy = False, f"{type(e).__name__}: {e}", "see the error; reinstalling the package often helps"
    return {"name": name, "ok": ok, "needed": needed, "found": found, "remedy": "" if ok else remedy}


def _python() -> Found:
    return (
        sys.version_info >= (3, 11),
        f"{platform.python_version()} on {platform.platform()}",
        "use Python 3.11 or newer",
    )


def _distvae() -> Found:
    from distvae import __version__
    from distvae.results.provenance import git_sha

    return True, f"{__version__} {git_sha()}".strip(), ""


def _package(name: str) -> Found:
    remedy = f"needed: {PACKAGES[name]}. pip install '{name}' (or pip install -e . again)"
    try:
        found = version(name)
        importlib.import_module({"scikit-learn": "sklearn"}.get(name, name))
    except PackageNotFoundError:
        return False, "not installed", remedy
    except Exception as e:
        return False, f"installed, but does not import: {e}", remedy
    return True, found, ""


def _deepspeed() -> Found:
    remedy = "sweeps run with engine: torch, with equal rows; on Linux: pip install deepspeed"
    try:
        from distvae.training.deepspeed_engine import import_deepspeed

        return True, f"{import_deepspeed().__version__}, nothing is compiled at run time", ""
    except Exception as e:
        return False, f"cannot be imported ({type(e).__name__}: {e})", remedy


def _cuda() -> Found:
    import torch

    if not torch.cuda.is_available():
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is a CPU build"  # type: ignore[attr-defined]
        return False, f"no CUDA device; {built}", "sweeps run on the CPU (resources.gpus: 0)"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return True, ", ".join(names), ""


def _philox() -> Found:
    from distvae.kernels.philox import philox

    known = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    return (
        philox(0, 0, 0, 0, 0).tolist() == known,
        "Philox-4x32-10 gives its known answer",
        "numpy's integer arithmetic is broken here",
    )


def _kernels() -> Found:
    from distvae.kernels import backend, cpu

    why = cpu.unavailable()
    return (
        not why and cpu.fresh(),
        backend.describe(),
        f"{why or 'the C++ sources are newer than the library: pip install -e .'} (until then the torch reference runs)",
    )


def _cores() -> Found:
    from distvae.sweeps.cluster import cores

    return cores() >= 1, f"{cores()} usable: as many one-worker trials at a time", ""


def _memory() -> Found:
    import psutil

    free = psutil.virtual_memory().available / 2**30
    return (
        free > 3,
        f"{free:.1f} GiB available",
        "a local sweep needs about 1.5 GiB per trial at a time: close something, or lower resources.concurrency",
    )


def _disk() -> Found:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    return free > 1, f"{free:.1f} GiB free here", "free some space, or point --out elsewhere"


def _s3() -> Found:
    remedy = "pip install 'distvae[s3]', for --out s3://bucket/prefix"
    try:
        found = f"boto3 {version('boto3')}"
    except PackageNotFoundError:
        return False, "boto3 is not installed", remedy
    at = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"
    return True, f"{found}, {at}", remedy


def _shm() -> Found:
    free = shutil.disk_usage("/dev/shm").free / 2**30 if Path("/dev/shm").exists() else 0.0
    temp = tempfile.gettempdir()
    return free > 0.3, f"{free:.1f} GiB in /dev/shm", f"Ray's object store falls back to {temp}: slower, but it works"


def _port() -> Found:
    with socket.create_server(("127.0.0.1", 0)) as s:
        return True, f"could listen on 127.0.0.1:{s.getsockname()[1]}", ""


def _ui_port() -> Found:
    try:
        with socket.create_server(("127.0.0.1", 5000)):
            return True, "free", ""
    except OSError as e:
        return False, str(e), "distvae ui OUT --port 0 takes any free port"


def render(checks: list[dict[str, Any]], console: Console) -> None:
    for c in checks:
        mark = "[green]ok  [/green]" if c["ok"] else "[red]FAIL[/red]" if c["needed"] else "[yellow]note[/yellow]"
        console.print(f"{mark} {c['name']:<14}", end=" ")
        console.print(c["found"], markup=False)
        if c["remedy"]:
            console.print(f"     {'':<14} -> {c['remedy']}", markup=False)
