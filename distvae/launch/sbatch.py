"""`#SBATCH` lines, read as sbatch reads them: up to the first line that is neither a comment nor empty.

The options are those of sbatch(1) of SLURM 23.11, by hand; a name that is not here would make sbatch refuse the script
only on the cluster."""

from __future__ import annotations

import re
import shlex
import subprocess
from difflib import get_close_matches


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


VALUE = _words(
    """account acctg-freq array batch bb bbf begin chdir cluster-constraint clusters comment constraint container
    container-id core-spec cores-per-socket cpu-freq cpus-per-gpu cpus-per-task deadline delay-boot dependency
    distribution error exclude export export-file extra extra-node-info gid gpu-bind gpu-freq gpus gpus-per-node
    gpus-per-socket gpus-per-task gres gres-flags hint input job-name licenses mail-type mail-user mcs-label mem mem-bind
    mem-per-cpu mem-per-gpu mincpus network nodefile nodelist nodes ntasks ntasks-per-core ntasks-per-gpu ntasks-per-node
    ntasks-per-socket open-mode output partition power prefer priority profile qos reservation signal sockets-per-node
    switches thread-spec threads-per-core time time-min tmp tres-bind tres-per-task uid wait-all-nodes wckey wrap"""
)
BARE = _words(
    """contiguous hold ignore-pbs kill-on-invalid-dep no-requeue overcommit parsable quiet reboot requeue spread-job
    test-only use-min-nodes verbose wait"""
)
EITHER = _words("exclusive get-user-env nice no-kill oversubscribe propagate")  # with a value, or without

TIME = re.compile(r"\d+(:[0-5]?\d){0,2}|\d+-\d+(:[0-5]?\d){0,2}")
SIGNAL = re.compile(r"(R?B?:)?[A-Z0-9]+(@\d{1,5})?")
SHAPES = {
    "time": TIME,
    "signal": SIGNAL,
    "open-mode": re.compile("append|truncate"),
    "exclusive": re.compile("user|mcs|topo"),
    "mem": re.compile(r"\d+[KMGT]?"),
    **dict.fromkeys(("ntasks-per-node", "cpus-per-task"), re.compile(r"[1-9]\d*")),
    "nodes": re.compile(r"[1-9]\d*(-[1-9]\d*)?"),
    "gpus-per-node": re.compile(r"([a-zA-Z][\w.-]*:)?[1-9]\d*"),
}


def options(script: str) -> dict[str, str | None]:
    """Of the script's `#SBATCH` lines. Raises ValueError at what sbatch would refuse."""
    found: dict[str, str | None] = {}
    for number, line in enumerate(script.splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            break
        if line.startswith("#SBATCH"):
            for word in shlex.split(line.removeprefix("#SBATCH"), comments=True):
                try:
                    name, value = option(word.removeprefix("--") if word.startswith("--") else "")
                except ValueError as e:
                    raise ValueError(f"line {number}: {line}: {e}") from None
                found[name] = value
    return found


def option(text: str) -> tuple[str, str | None]:
    """`name=value` or `name`, without the dashes."""
    name, eq, value = text.partition("=")
    known = VALUE | BARE | EITHER
    if name not in known:
        near = get_close_matches(name, known, 1)
        raise ValueError(f"{name!r} is no option of sbatch" + (f" - did you mean {near[0]!r}?" if near else ""))
    if name in VALUE and not value:
        raise ValueError(f"{name} needs a value ({name}=...)")
    if name in BARE and eq:
        raise ValueError(f"{name} takes no value")
    if eq and name in SHAPES and not SHAPES[name].fullmatch(value):
        raise ValueError(f"{name}: {value!r} is not what sbatch takes")
    if not all(c.isprintable() for c in value):
        raise ValueError(f"{name}: has control characters")
    return name, value if eq else None


def seconds(time: str) -> int:
    """Of sbatch's `--time`: minutes, minutes:seconds, hours:minutes:seconds, days-hours, ...:minutes, ...:seconds."""
    days, _, clock = time.rpartition("-")
    parts = [int(p) for p in clock.split(":")]
    if days:
        h, m, s = [*parts, 0, 0][:3]
    elif len(parts) == 3:
        h, m, s = parts
    else:
        h, (m, s) = 0, [*parts, 0][:2]
    return ((int(days or 0) * 24 + h) * 60 + m) * 60 + s


def check(script: str) -> None:
    """Raises ValueError if bash cannot read it, or sbatch would refuse it."""
    bash = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
    if bash.returncode:
        raise ValueError(bash.stderr.strip())
    options(script)
