"""A RayJob for KubeRay: the config in a ConfigMap, a head that only drives, one pod a node, and who may talk to them.

The token is KubeRay's own: `authOptions` makes a Secret for each cluster and hands it to its pods. The job is submitted
by a sidecar of the head, so nobody but KubeRay's operator, which asks how the job is, needs the dashboard's port, and the
NetworkPolicy admits nobody else. A pod that is gone takes no trial with it: others go on with it, and a new head (or a
whole new cluster, `backoffLimit`) goes on from OUT."""

from __future__ import annotations

from typing import Any

from distvae.launch import documents, kuberay_schema
from distvae.launch.job import Job
from distvae.launch.layout import LaunchError
from distvae.launch.written import seal

CONFIG = "/etc/distvae"
GB = "Gi"
COMMENTS = {
    ("spec", "submissionMode"): "by a sidecar of the head: no other pod needs the job API (KubeRay 1.5.1 or newer)",
    ("spec", "backoffLimit"): "each time with a new cluster, from the same OUT: what has ended is not run again",
    ("spec", "rayClusterSpec", "authOptions"): "KubeRay makes the token, a Secret, and hands it to the pods",
    ("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"): "it drives; trials go to the workers",
    ("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "dashboard-host"): (
        "for KubeRay's operator; the token and the NetworkPolicy keep others out"
    ),
}


def manifest(
    job: Job,
    *,
    image: str,
    claim: str | None,
    mount: str,
    data: str | None,
    secret: str | None,
    memory: str | None,
    retries: int,
) -> str:
    """The YAML. `claim`: a PersistentVolumeClaim that all pods mount at `mount` (ReadWriteMany); `secret`: one whose keys
    become environment variables, such as S3's. Raises LaunchError."""
    if not job.in_s3 and not (claim and (job.out + "/").startswith(mount.rstrip("/") + "/")):
        raise LaunchError(
            f"--out {job.out}: give s3://bucket/prefix, or a folder under {mount} (--mount) of a volume that all pods share "
            "(--claim)"
        )
    label = {"distvae.sweep": job.name}
    pods = {"job": job, "image": image, "claim": claim, "mount": mount, "data": data, "secret": secret}
    layout = job.layout
    worker: dict[str, Any] = {"cpu": str(layout.cpus), "memory": memory or f"{layout.memory_gb}{GB}"}
    if layout.gpus:
        worker["nvidia.com/gpu"] = str(layout.gpus)
    rayjob = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": job.name, "labels": label},
        "spec": {
            "entrypoint": job.command(f"{CONFIG}/sweep.yaml") + " --address auto",
            "submissionMode": "SidecarMode",
            "shutdownAfterJobFinishes": True,
            "backoffLimit": retries,
            "rayClusterSpec": {
                "rayVersion": job.ray,
                "authOptions": {"mode": "token"},
                "headGroupSpec": {
                    "rayStartParams": {"num-cpus": "0", "num-gpus": "0", "dashboard-host": "0.0.0.0"},
                    "template": _pod("ray-head", {"cpu": "2", "memory": f"8{GB}"}, label, **pods),
                },
                "workerGroupSpecs": [
                    {
                        "groupName": "trials",
                        "replicas": layout.nodes,
                        "minReplicas": layout.least,
                        "maxReplicas": layout.nodes,
                        "rayStartParams": {"num-cpus": str(layout.ray_cpus)},
                        "template": _pod("ray-worker", worker, label, **pods),
                    }
                ],
            },
        },
    }
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": job.name, "labels": label},
        "data": {"sweep.yaml": job.study.resolved},
    }
    all_of_it = [config, _policy(job.name, label), rayjob]
    try:
        for document in all_of_it:
            kuberay_schema.check(document)
    except ValueError as e:
        raise LaunchError(f"the RayJob: {e}") from None
    head = f"# {job.study.name}: {layout}\n"
    return seal(head + documents.text(*all_of_it, comments=COMMENTS), "kuberay")


def _pod(
    name: str,
    resources: dict[str, Any],
    label: dict[str, str],
    *,
    job: Job,
    image: str,
    claim: str | None,
    mount: str,
    data: str | None,
    secret: str | None,
) -> dict[str, Any]:
    mounts: list[dict[str, Any]] = [{"name": "config", "mountPath": CONFIG, "readOnly": True}]
    volumes: list[dict[str, Any]] = [{"name": "config", "configMap": {"name": job.name}}]
    if claim:
        mounts.append({"name": "shared", "mountPath": mount})
        volumes.append({"name": "shared", "persistentVolumeClaim": {"claimName": claim}})
    env = [{"name": "RAY_USAGE_STATS_ENABLED", "value": "0"}]
    if data:
        env.append({"name": "DISTVAE_DATA", "value": data})
    container: dict[str, Any] = {"name": name, "image": image, "env": env}
    if secret:
        container["envFrom"] = [{"secretRef": {"name": secret}}]
    container |= {
        "resources": {"limits": resources, "requests": dict(resources)},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": mounts,
    }
    spec = {"automountServiceAccountToken": False, "containers": [container], "volumes": volumes}
    return {"metadata": {"labels": dict(label)}, "spec": spec}


def _policy(name: str, label: dict[str, str]) -> dict[str, Any]:
    """Only its own pods reach this cluster, and KubeRay's operator its dashboard's port."""
    operator = {
        "namespaceSelector": {},
        "podSelector": {"matchLabels": {"app.kubernetes.io/component": "kuberay-operator"}},
    }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "labels": dict(label)},
        "spec": {
            "podSelector": {"matchLabels": dict(label)},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": [{"podSelector": {"matchLabels": dict(label)}}]},
                {"from": [operator], "ports": [{"protocol": "TCP", "port": 8265}]},
            ],
        },
    }
