"""A script for sbatch. Every node runs `ray symmetric-run`: the first one starts Ray's head and the sweep, the others join.

Warned (USR1: the time limit is near, or, where SLURM is told to send the user's signal then, somebody else's job is
coming), the script sends `distvae sweep` a SIGTERM, which makes running trials save and stop, and puts itself back in the
queue. A TERM (`scancel --batch --signal=TERM`) drains the same way, and leaves the queue to SLURM, or a cancelled job would
come back. A plain `scancel` is a TERM to every process of Ray's too: trials go on from their last checkpoint. Either way
the same OUT goes on where it was.

Ray is stopped on every node as the sweep ends (`srun --overlap ray stop`): those without the head take more than a minute to
notice, and a slice may be over by then. The exit code is `distvae sweep`'s, from a file: `ray symmetric-run` ends with 0 if
Ray itself could not start."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from distvae.launch import sbatch
from distvae.launch.job import Job
from distvae.launch.layout import LaunchError
from distvae.launch.written import seal
from distvae.sweeps.tree import printable

WARNING_S = 300  # between the warning and the time limit; of a short slice, a quarter

BODY = r"""
set -u
%(setup)s
# Who may talk to this Ray: a token of this job's own, handed to the nodes with the environment.
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
export RAY_USAGE_STATS_ENABLED=0 RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=600
unset RAY_ADDRESS

# The batch script runs on the first node, and so do Ray's head and the sweep: they meet in this folder.
run=$(mktemp -d "${TMPDIR:-/tmp}/distvae-$SLURM_JOB_ID-XXXXXX") || exit 4
trap 'rm -rf "$run"' EXIT
printf %%s "$RAY_AUTH_TOKEN" > "$run/token"

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
if [ "$SLURM_JOB_NUM_NODES" = 1 ]; then
    export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 # or Ray would replace 127.0.0.1 by the node's address
    ip=127.0.0.1
else
    ip=$(getent ahostsv4 "$head" | awk '$1 !~ /^127[.]/ { print $1; exit }')
fi
address=${ip:-$(hostname -I | awk '{ print $1 }')}:${DISTVAE_RAY_PORT:-6379}
echo "distvae: Ray at $address; its dashboard, from your desk: ssh -L 8265:127.0.0.1:8265 $head (token: $run/token there)"

export run address
sweep='
%(command)s --address "$address" &
pid=$!
echo "$pid" > "$run/pid.new" && mv "$run/pid.new" "$run/pid"
[ -e "$run/stop" ] && kill -TERM "$pid"
wait "$pid"
code=$?
echo "$code" > "$run/code.new" && mv "$run/code.new" "$run/code"
exit "$code"'

asked=
stop() {
    [ -n "$asked" ] && return
    asked=$1
    : > "$run/stop"
    [ -e "$run/pid" ] && kill -TERM "$(cat "$run/pid")" 2> /dev/null
}
trap 'stop requeue' USR1
trap 'stop end' TERM

# A Ray that an earlier job left behind (SLURM that does not track by cgroups loses daemons) would be in the way.
node='
ray stop --force > /dev/null 2>&1
exec ray symmetric-run --address "$address" --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus=%(ray_cpus)d --num-gpus=%(gpus)d --dashboard-host=127.0.0.1 -- bash -c "$sweep"'
export sweep

nodes="--nodes=$SLURM_JOB_NUM_NODES --ntasks-per-node=1"
srun $nodes --cpus-per-task=%(cpus)d --kill-on-bad-exit=0 bash -c "$node" < /dev/null &
step=$!
left=25
while kill -0 "$step" 2> /dev/null; do
    sleep 1 &
    wait "$!" # a trap runs at once, and not when srun ends
    if [ -e "$run/code" ]; then # the sweep has ended: other nodes would take more than a minute to notice
        [ "$left" = 25 ] && srun $nodes --overlap ray stop --grace-period=10 < /dev/null > /dev/null 2>&1 &
        left=$((left - 1))
        [ "$left" -gt 0 ] || { kill "$step"; break; }
    fi
done

code=$(cat "$run/code" 2> /dev/null || echo 4)
if [ "$asked" = requeue ]; then
    case $code in 130 | 143) scontrol requeue "$SLURM_JOB_ID" ;; esac
fi
exit "$code"
"""


def script(job: Job, *, time: str, extra: Sequence[str] = (), setup: Sequence[str] = ()) -> str:
    """The sbatch script. `extra`: more of sbatch's options, `name=value`, or others in place of ours; `setup`: lines of
    shell before anything else. Raises LaunchError."""
    if not sbatch.TIME.fullmatch(time) or sbatch.seconds(time) < 60:
        raise LaunchError(f"--time {printable(time)}: is not a time like 30 (minutes), 04:00:00 or 1-12 (days-hours)")
    warning = min(WARNING_S, sbatch.seconds(time) // 4)
    wanted: dict[str, str | None] = {
        "job-name": job.name,
        "nodes": str(job.layout.nodes),
        "ntasks-per-node": "1",
        "cpus-per-task": str(job.layout.cpus),
        **({"gpus-per-node": str(job.layout.gpus)} if job.layout.gpus else {}),
        "mem": "0",
        "exclusive": None,
        "time": time,
        "output": f"{job.name}-%j.out",
        "open-mode": "append",
        "requeue": None,
        "signal": f"B:USR1@{warning}",
    }
    try:
        wanted |= dict(sbatch.option(text.removeprefix("--")) for text in extra)
        lines = [f"#SBATCH --{name}" + ("" if value is None else f"={value}") for name, value in wanted.items()]
        text = "\n".join(["#!/bin/bash", f"# {job.study.name}: {job.layout}", *_why(warning), *lines]) + "\n"
        text += BODY % {
            "setup": "".join(f"{line}\n" for line in setup),
            "command": job.command(str(job.config), job.sets).replace("'", r"'\''"),
            "cpus": job.layout.cpus,
            "ray_cpus": job.layout.ray_cpus,
            "gpus": job.layout.gpus,
        }
        sbatch.check(text)
    except ValueError as e:
        raise LaunchError(f"the sbatch script: {e}") from None
    return seal(text, "slurm")


def _why(warning: int) -> list[str]:
    return [
        "# Nodes of its own (exclusive): at its end `ray stop` ends every Ray of yours on a node.",
        f"# {warning} s before its time is up the sweep saves, and the job goes back to the queue and on from there.",
    ]


def submit(path: str) -> str:
    """The next command."""
    return shlex.join(["sbatch", path])
