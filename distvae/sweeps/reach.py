"""Is there a Ray cluster at `--address`, and one that takes us? Asked before `ray.init`, which takes its time. Measured with
Ray 2.60.0: where nothing answers it was still trying after 160 s; a wrong or missing token it tells of after 20 s, as
"Failed to connect to Ray cluster"; other versions it tells of at once.

One gRPC call to the cluster's GCS (what `host:port` is the address of), with the token that Ray itself would send."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

TIMEOUT_S = 10.0
NAMESPACE, KEY = b"cluster", b"CLUSTER_METADATA"  # Ray's versions, as its head wrote them (ray._common.usage)


class AddressError(Exception):
    """There is no Ray cluster at `--address` that this process can use (exit code 4)."""


def check(address: str) -> None:
    """Raises AddressError, within about TIMEOUT_S, if a sweep could not run at `address`."""
    host, port = _host_and_port(address)
    at = f"--address {address}"
    if address == "auto":
        at += f" ({host}:{port})"
    _answers(at, host, port)
    _same_versions(at, _metadata(at, host, port))


def _host_and_port(address: str) -> tuple[str, int]:
    from ray._common.network_utils import parse_address  # type: ignore[attr-defined]
    from ray._private import services

    if "://" in address:
        raise AddressError(
            f"--address {address}: Ray Client is not for this: the driver belongs on the cluster's network (give its "
            "host:port, as `ray start --head` printed it)"
        )
    try:
        found = services.canonicalize_bootstrap_address(address)  # what ray.init will make of it
        parsed = parse_address(found) if found else None
    except (ValueError, ConnectionError):
        parsed = None
    if parsed is None and address == "auto":
        raise AddressError(
            "--address auto: no Ray cluster runs on this machine (start one: RAY_AUTH_MODE=token ray start --head; or leave "
            "--address out: distvae starts one of its own)"
        )
    if parsed is None or not str(parsed[1]).isdigit() or not 0 < int(parsed[1]) < 65536:
        raise AddressError(f"--address {address}: is not host:port (or auto: the one that runs on this machine)")
    return parsed[0], int(parsed[1])


def _answers(at: str, host: str, port: int) -> None:
    """Does anything listen there?"""
    try:
        socket.create_connection((host, port), timeout=TIMEOUT_S / 2).close()
    except socket.gaierror:
        raise AddressError(
            f"{at}: there is no machine called {host!r} (a misspelt name, or one of another network)"
        ) from None
    except OSError as e:
        why = (
            "nothing answers" if isinstance(e, TimeoutError) else (os.strerror(e.errno) if e.errno else str(e)).lower()
        )
        where = f" at {host}" if host not in at else ""
        raise AddressError(
            f"{at}: no Ray cluster there: {why}{where} (is its head up: `ray status --address {host}:{port}` on it; is "
            f"{port} the port that `ray start --head` printed, 6379 by default; does a firewall lie between?)"
        ) from None


def _metadata(at: str, host: str, port: int) -> dict[str, Any]:
    """What the head wrote of itself; empty if it wrote nothing."""
    import grpc
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    options = [("grpc.enable_http_proxy", 0)]
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with grpc.insecure_channel(target, options) as channel:
        stub = gcs_service_pb2_grpc.InternalKVGcsServiceStub(channel)
        request = gcs_service_pb2.InternalKVGetRequest(namespace=NAMESPACE, key=KEY)  # type: ignore[attr-defined]
        try:
            reply = stub.InternalKVGet(request, timeout=TIMEOUT_S / 2, metadata=_token(at))
        except grpc.RpcError as e:
            code = e.code()  # type: ignore[attr-defined]
            if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
                raise AddressError(f"{at}: {_refused()}") from None
            raise AddressError(
                f"{at}: what answers there is no Ray head ({code.name.lower().replace('_', ' ')}): give the port that "
                "`ray start --head` printed, 6379 by default; 8265 is the dashboard's and 10001 Ray Client's"
            ) from None
    return json.loads(reply.value) if reply.value else {}


def _token(at: str) -> list[tuple[str, str]]:
    """The header that Ray would send."""
    from ray._private.authentication.authentication_utils import is_token_auth_enabled
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

    if not is_token_auth_enabled():
        return []
    if not _has_token():
        raise AddressError(
            f"{at}: RAY_AUTH_MODE is token, and there is none here: copy the cluster's to ~/.ray/auth_token (mode 600), or set "
            "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
        )
    return [(k.lower(), v) for k, v in AuthenticationTokenLoader.instance().get_token_for_http_header().items()]


def _has_token() -> bool:
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]
    from ray.exceptions import AuthenticationError

    try:
        return AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True)
    except AuthenticationError:  # RAY_AUTH_TOKEN_PATH names no file, or an empty one
        return False


def _refused() -> str:
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    if is_token_auth_enabled():
        return (
            "it refuses our token: give the cluster's own (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token)"
        )
    if _has_token():
        return "it wants a token, and ours is not sent: set RAY_AUTH_MODE=token"
    return (
        "it wants a token: set RAY_AUTH_MODE=token, and copy the cluster's token to ~/.ray/auth_token (mode 600) or set "
        "RAY_AUTH_TOKEN"
    )


def _same_versions(at: str, cluster: dict[str, Any]) -> None:
    """Ray refuses others than its own, Python's to the last digit included."""
    import platform
    from importlib.metadata import version

    ours = {"Ray": version("ray"), "Python": platform.python_version()}
    level = 2 if os.environ.get("RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL") == "minor" else 3
    for name, key, digits in (("Ray", "ray_version", 9), ("Python", "python_version", level)):
        theirs = cluster.get(key)
        if theirs and theirs.split(".")[:digits] != ours[name].split(".")[:digits]:
            raise AddressError(
                f"{at}: that cluster has {name} {theirs}, and this process {name} {ours[name]}: they must be the same (start "
                "the sweep with the cluster's environment, or the cluster with this one)"
            )
