"""A disk that is full: OUT on a small tmpfs, filled at a random moment."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from faulted import before, cannot, config, holds, running, same_command_again

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def small(tmp_path):
    """A folder that holds 24 MB."""
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("mount") is None:
        cannot("needs root to mount a tmpfs")
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        cannot(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> Path:
    ballast = folder / "ballast"
    with open(ballast, "wb", buffering=0) as f:
        size = 2**20
        while size:
            try:
                f.write(bytes(size))
            except OSError:
                size //= 2
    return ballast


def test_disk_full(tmp_path, small, clean, when, tell):
    """disk full"""
    path, out = config(tmp_path), small / "out"
    with running(path, out, when, clean, log=tmp_path / "sweep.stderr") as sweep:
        then = before(out)
        ballast = fill(small)
        code = sweep.end(timeout=240)
        assert sweep.all_gone(), sweep.survivors()
        said = sweep.text()
    done = "complete: 4 of 4 trials ended (4 finished)" in said  # no more than pictures and MLflow had no room
    assert code == 0 if done else code in (3, 4), said
    assert "No space left on device" in said and "Traceback" not in said, said
    assert contents_are_sound(out)
    ballast.unlink()
    same_command_again(path, out)
    tell(outcome=f"exit {code}, said so; with room again: {holds_after(path, out, then, clean)}")


def contents_are_sound(out):
    from distvae.results import ledger

    return not ledger.scan(out, mend=False)[1]


def holds_after(path, out, then, clean):
    then.saved = {}  # those written before the disk was full may be older than an interval: nothing newer could be
    return holds(path, out, then, clean.rows)
