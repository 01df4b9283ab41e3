"""What KubeRay accepts, reduced to the fields we write: the CRD of `rayjobs.ray.io` and the rules its operator adds.

Written by hand after KubeRay 1.5.1 (`ray-operator/apis/ray/v1/rayjob_types.go`, `raycluster_types.go`,
`controllers/ray/utils/validation.go`) and Kubernetes' core/v1 and networking.k8s.io/v1. `additionalProperties` is false
wherever a misspelt key would be dropped in silence by the API server. A test feeds it KubeRay's rules, broken one by one."""

from __future__ import annotations

import re
from typing import Any

NAME = {"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
QUANTITY = {"type": ["string", "integer"], "pattern": r"^\d+(\.\d+)?(m|Ki|Mi|Gi|Ti|k|M|G|T)?$"}
WORDS = {"type": "object", "additionalProperties": {"type": "string"}}  # labels, rayStartParams
COUNT = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}


def _object(required: str = "", **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


def _list(items: dict[str, Any], least: int = 0) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": least}


METADATA = _object(name=NAME, namespace=NAME, labels=WORDS, annotations=WORDS)
CONTAINER = _object(
    "name image",
    name=NAME,
    image={"type": "string", "pattern": r"^\S+$"},
    imagePullPolicy={"enum": ["Always", "IfNotPresent", "Never"]},
    env=_list(_object("name value", name={"type": "string"}, value={"type": "string"})),
    envFrom=_list(_object("secretRef", secretRef=_object("name", name=NAME))),
    ports=_list(_object("containerPort", name={**NAME, "maxLength": 15}, containerPort=PORT)),
    resources=_object(
        limits={"type": "object", "additionalProperties": QUANTITY},
        requests={"type": "object", "additionalProperties": QUANTITY},
    ),
    securityContext=_object(
        allowPrivilegeEscalation={"type": "boolean"}, capabilities=_object(drop=_list({"type": "string"}))
    ),
    volumeMounts=_list(
        _object(
            "name mountPath",
            name=NAME,
            mountPath={"type": "string", "pattern": "^/"},
            readOnly={"type": "boolean"},
        )
    ),
)
VOLUME = _object(
    "name",
    name=NAME,
    configMap=_object("name", name=NAME),
    persistentVolumeClaim=_object("claimName", claimName=NAME),
    emptyDir=_object(medium={"enum": ["", "Memory"]}, sizeLimit=QUANTITY),
)
TEMPLATE = _object(
    "spec",
    metadata=METADATA,
    spec=_object(
        "containers",
        containers=_list(CONTAINER, 1),
        volumes=_list(VOLUME),
        restartPolicy={"enum": ["Always", "OnFailure", "Never"]},
        automountServiceAccountToken={"type": "boolean"},
    ),
)
HEAD = _object("rayStartParams template", rayStartParams=WORDS, template=TEMPLATE, serviceType={"enum": ["ClusterIP"]})
WORKERS = _object(
    "groupName rayStartParams template replicas minReplicas maxReplicas",
    groupName=NAME,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    rayStartParams=WORDS,
    template=TEMPLATE,
)
CLUSTER = _object(
    "rayVersion headGroupSpec",
    rayVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
    authOptions=_object("mode", mode={"enum": ["token", "disabled"]}),
    enableInTreeAutoscaling={"type": "boolean"},
    headGroupSpec=HEAD,
    workerGroupSpecs=_list(WORKERS),
)
RAYJOB = _object(
    "apiVersion kind metadata spec",
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata={**METADATA, "required": ["name"]},
    spec=_object(
        "entrypoint rayClusterSpec",
        entrypoint={"type": "string", "minLength": 1},
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        shutdownAfterJobFinishes={"type": "boolean"},
        ttlSecondsAfterFinished=COUNT,
        activeDeadlineSeconds={**COUNT, "minimum": 1},
        backoffLimit=COUNT,
        rayClusterSpec=CLUSTER,
    ),
)
CONFIGMAP = _object(
    "apiVersion kind metadata data",
    apiVersion={"const": "v1"},
    kind={"const": "ConfigMap"},
    metadata={**METADATA, "required": ["name"]},
    data={
        "type": "object",
        "propertyNames": {"pattern": "^[-._a-zA-Z0-9]+$"},
        "additionalProperties": {"type": "string", "maxLength": 2**20},
    },
)
SELECTOR = _object(matchLabels=WORDS)
POLICY = _object(
    "apiVersion kind metadata spec",
    apiVersion={"const": "networking.k8s.io/v1"},
    kind={"const": "NetworkPolicy"},
    metadata={**METADATA, "required": ["name"]},
    spec=_object(
        "podSelector",
        podSelector=SELECTOR,
        policyTypes=_list({"enum": ["Ingress", "Egress"]}),
        ingress=_list(
            _object(
                "",
                **{"from": _list(_object(podSelector=SELECTOR, namespaceSelector=SELECTOR))},
                ports=_list(_object(protocol={"enum": ["TCP", "UDP", "SCTP"]}, port=PORT)),
            )
        ),
    ),
)
KINDS = {"RayJob": RAYJOB, "ConfigMap": CONFIGMAP, "NetworkPolicy": POLICY}


def check(document: dict[str, Any]) -> None:
    """Raises ValueError at the first thing that the API server, or KubeRay's operator, would refuse."""
    import jsonschema

    kind = document.get("kind")
    if kind not in KINDS:
        raise ValueError(f"kind: {kind!r} is not one of {', '.join(KINDS)}")
    errors = sorted(jsonschema.Draft202012Validator(KINDS[kind]).iter_errors(document), key=lambda e: str(e.path))
    if errors:
        raise ValueError(f"{'.'.join(map(str, errors[0].absolute_path))}: {errors[0].message}")
    if kind == "RayJob":
        _rules(document)


def _rules(document: dict[str, Any]) -> None:
    """Of the operator."""
    spec = document["spec"]
    cluster = spec["rayClusterSpec"]
    if len(document["metadata"]["name"]) > 47:
        raise ValueError("metadata.name: a RayJob's has at most 47 characters")
    if cluster.get("authOptions", {}).get("mode") == "token":
        major, minor, _ = map(int, re.findall(r"\d+", cluster["rayVersion"]))
        if (major, minor) < (2, 52):
            raise ValueError("spec.rayClusterSpec.rayVersion: token authentication needs 2.52.0 or newer")
    if spec.get("submissionMode") == "SidecarMode":
        policy = cluster["headGroupSpec"]["template"]["spec"].get("restartPolicy", "Never")
        if policy != "Never":
            raise ValueError("spec.rayClusterSpec.headGroupSpec: restartPolicy must be Never in SidecarMode")
    if spec.get("submissionMode") == "InteractiveMode" and spec.get("backoffLimit"):
        raise ValueError("spec.backoffLimit: not with InteractiveMode")
    if spec.get("ttlSecondsAfterFinished") and not spec.get("shutdownAfterJobFinishes"):
        raise ValueError("spec.ttlSecondsAfterFinished: needs shutdownAfterJobFinishes")
    for group in cluster.get("workerGroupSpecs", []):
        if not group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]:
            raise ValueError(
                f"workerGroupSpecs {group['groupName']}: minReplicas <= replicas <= maxReplicas does not hold"
            )
    for group in [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])]:
        pod = group["template"]["spec"]
        volumes = {v["name"] for v in pod.get("volumes", [])}
        for container in pod["containers"]:
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in volumes:
                    raise ValueError(f"volumeMounts: there is no volume {mount['name']!r}")
