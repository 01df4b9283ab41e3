"""What all launch files say: which sweep, where its results go, and the command."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from distvae.launch.layout import LaunchError, Layout
from distvae.study import Study
from distvae.sweeps.tree import printable

RAY_WITH_TOKENS = (2, 52)


@dataclass(frozen=True)
class Job:
    """A sweep to launch."""

    study: Study
    config: Path
    out: str  # a folder all nodes see, or s3://bucket/prefix
    layout: Layout
    sets: tuple[str, ...] = ()  # --set
    ray: str = ""  # version

    @property
    def name(self) -> str:
        """The sweep's name as a DNS label, which also SLURM takes; at most 47 characters, as KubeRay has it."""
        name = re.sub(r"[^a-z0-9]+", "-", self.study.name.lower()).strip("-")
        return (name if name[:1].isalpha() else f"sweep-{name}")[:47].strip("-")

    @property
    def in_s3(self) -> bool:
        return self.out.startswith("s3://")

    def command(self, config: str, sets: Sequence[str] = ()) -> str:
        """`distvae sweep`, quoted for a shell, without its `--address`."""
        words = ["distvae", "sweep", config, "--out", self.out]
        return shlex.join([*words, *(w for s in sets for w in ("--set", s))])


def check_out(out: str, *, absolute: bool) -> str:
    """`out` as it may stand in a launch file. `absolute`: there is no folder it could be relative to."""
    if not out or not all(c.isprintable() for c in out):
        raise LaunchError(f"--out {printable(out) or repr('')}: is not the name of a folder")
    if re.match(r"[a-z0-9+]+://", out):
        if not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^/]+)*/?", out):
            raise LaunchError(f"--out {out}: is not s3://bucket/prefix, nor a folder")
    elif absolute and not out.startswith("/"):
        raise LaunchError(
            f"--out {out}: no folder here is on that cluster's nodes: give s3://bucket/prefix, or an absolute path that all of "
            "them mount"
        )
    return out


def check_ray(given: str | None) -> str:
    """The version of Ray for the cluster: the one that is installed here, where launch files are tried."""
    found = given or version("ray")
    if not re.fullmatch(r"\d+\.\d+\.\d+", found):
        raise LaunchError(f"--ray-version {printable(found)}: is not a version like 2.60.0")
    if tuple(map(int, found.split(".")[:2])) < RAY_WITH_TOKENS:
        raise LaunchError(f"--ray-version {found}: has no token authentication (2.52 or newer)")
    return found
