"""A cluster file for `ray up` on AWS: a head that only drives, and as many workers as the sweep needs, none when it idles.

The token is the one in `~/.ray/auth_token` of whoever runs `ray up` (`ray get-auth-token --generate`), copied to the nodes
with mode 600. Of Ray's ports none is open to the outside: Ray's own security group admits ssh, and its nodes one another."""

from __future__ import annotations

import json
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from distvae.launch import documents
from distvae.launch.job import Job
from distvae.launch.layout import LaunchError
from distvae.launch.written import seal

# (cores, GPUs) -> type, smallest first: cores are hyper-threads there, and L4s the cheapest GPUs of today
INSTANCES = (
    (2, 0, "c7i.large"),
    (4, 0, "c7i.xlarge"),
    (8, 0, "c7i.2xlarge"),
    (16, 0, "c7i.4xlarge"),
    (32, 0, "c7i.8xlarge"),
    (64, 0, "c7i.16xlarge"),
    (4, 1, "g6.xlarge"),
    (8, 1, "g6.2xlarge"),
    (16, 1, "g6.4xlarge"),
    (32, 1, "g6.8xlarge"),
    (48, 4, "g6.12xlarge"),
    (192, 8, "g6.48xlarge"),
)
COMMENTS = {
    ("available_node_types", "head", "resources"): "it drives; trials go to the workers",
    ("available_node_types", "worker", "min_workers"): "the others come when trials wait, and go when they idle",
    ("rsync_exclude",): "what no node needs",
}
TOKEN = "~/.ray/auth_token"


def instance(cpus: int, gpus: int) -> str:
    for has_cpus, has_gpus, name in INSTANCES:
        if has_cpus >= cpus and has_gpus >= gpus and bool(has_gpus) == bool(gpus):
            return name
    raise LaunchError(f"no instance type known here has {cpus} cores and {gpus} GPUs: name one (--instance)")


def cluster(
    job: Job,
    *,
    region: str,
    instance_type: str | None,
    image: str | None,
    source: str,
    data: str | None,
    spot: bool,
) -> str:
    """The YAML. `image`: of a container with distvae in it; without one, the checkout `source` is copied and installed.
    Raises LaunchError."""
    layout = job.layout
    worker: dict[str, Any] = {"InstanceType": instance_type or instance(layout.cpus, layout.gpus)}
    if spot:
        worker["InstanceMarketOptions"] = {"MarketType": "spot"}
    resources = {"CPU": layout.ray_cpus, **({"GPU": layout.gpus} if layout.gpus else {})}
    env = "export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0"
    env += f" DISTVAE_DATA={shlex.quote(data)}" if data else ""
    setup = [f"chmod 600 {TOKEN}"]
    if not image:
        env = f". ~/venv/bin/activate; {env}"
        setup += [
            "python3 -m venv ~/venv || (sudo apt-get update && sudo apt-get install -y python3-venv g++ && python3 -m venv ~/venv)",
            f"~/venv/bin/pip install -q ~/distvae 'ray[default,tune,train]=={job.ray}' boto3",
        ]
    files: dict[str, str] = {TOKEN: TOKEN, "~/sweep.yaml": f"{job.name}-sweep.yaml"}
    if not image:
        files["~/distvae"] = source
    tree: dict[str, Any] = {
        "cluster_name": job.name,
        "max_workers": layout.nodes,
        "idle_timeout_minutes": 5,
        "provider": {"type": "aws", "region": region, "cache_stopped_nodes": False},
        "auth": {"ssh_user": "ubuntu"},
        **({"docker": {"image": image, "container_name": "distvae", "pull_before_run": True}} if image else {}),
        "available_node_types": {
            "head": {"resources": {"CPU": 0}, "node_config": {"InstanceType": "m7i.large"}},
            "worker": {
                "min_workers": layout.least,
                "max_workers": layout.nodes,
                "resources": resources,
                "node_config": worker,
            },
        },
        "head_node_type": "head",
        "file_mounts": files,
        "rsync_exclude": ["**/.git", "**/runs", "**/__pycache__"],
        "setup_commands": setup,
        "head_start_ray_commands": [
            "ray stop",
            "ulimit -n 65536; ray start --head --port=6379 --dashboard-host=127.0.0.1 --autoscaling-config=~/ray_bootstrap_config.yaml",
        ],
        "worker_start_ray_commands": ["ray stop", "ulimit -n 65536; ray start --address=$RAY_HEAD_IP:6379"],
    }
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        tree[commands] = [f"{env}; {line}" for line in tree[commands]]
    try:
        check(tree)
    except ValueError as e:
        raise LaunchError(f"the cluster file: {e}") from None
    head = f"# {job.study.name}: {layout}\n# Start it: ray up FILE. Then:\n#   {run('FILE', job, data, bool(image))}\n"
    return seal(head + documents.text(tree, comments=COMMENTS), "ray")


def run(path: str, job: Job, data: str | None, docker: bool) -> str:
    """The command that starts the sweep on the head, and lets it run when the connection ends."""
    env = "export RAY_AUTH_MODE=token" if docker else ". ~/venv/bin/activate; export RAY_AUTH_MODE=token"
    env += f" DISTVAE_DATA={shlex.quote(data)}" if data else ""
    command = f"{env}; {job.command('sweep.yaml')} --address auto"
    return f"ray exec {shlex.quote(path)} --tmux {shlex.quote(command)}"


def check(tree: dict[str, Any]) -> None:
    """Against Ray's own schema, that of the Ray installed here. Raises ValueError."""
    import jsonschema

    spec = find_spec("ray")
    if spec is None or spec.origin is None:
        raise ValueError("Ray is not installed here, and its schema is wanted")
    schema = json.loads((Path(spec.origin).parent / "autoscaler" / "ray-schema.json").read_text())
    try:
        jsonschema.validate(tree, schema)
    except jsonschema.ValidationError as e:
        raise ValueError(f"{'.'.join(map(str, e.absolute_path))}: {e.message}") from None
