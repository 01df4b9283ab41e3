"""`--address` where there is no Ray, or not one for us: a line with the fix, soon. A GCS of our own answers as Ray's does;
test_on_a_cluster.py has Ray's."""

import json
import platform
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version

import grpc
import pytest
from ray._private import ray_constants
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

from distvae.cli import exit_code
from distvae.sweeps import reach
from distvae.sweeps.reach import AddressError, check

OURS = {"ray_version": version("ray"), "python_version": platform.python_version()}


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """127.0.0.1 is itself (Ray takes it for the machine's address), and nothing waits long."""
    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", False)
    monkeypatch.setattr(reach, "TIMEOUT_S", 2.0)
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


def refusal(address) -> str:
    began = time.monotonic()
    with pytest.raises(AddressError) as e:
        check(address)
    assert time.monotonic() - began < 15 and exit_code(e.value) == 4
    text = str(e.value)
    assert text.startswith(f"--address {address}") and "\n" not in text
    return text


@pytest.fixture
def gcs():
    """Starts a GCS that answers with `metadata`, or refuses with `status`; gives its address."""
    servers = []

    def start(metadata=None, status=None):
        class Kv(gcs_service_pb2_grpc.InternalKVGcsServiceServicer):
            def InternalKVGet(self, request, context):
                assert (request.namespace, request.key) == (b"cluster", b"CLUSTER_METADATA")
                if status is not None:
                    context.abort(status, "no")
                return gcs_service_pb2.InternalKVGetReply(value=json.dumps(metadata).encode())

        server = grpc.server(ThreadPoolExecutor(1))
        gcs_service_pb2_grpc.add_InternalKVGcsServiceServicer_to_server(Kv(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(None)


def test_a_cluster_like_ours(gcs):
    check(gcs(OURS))


@pytest.mark.parametrize(
    "other, said",
    [
        ({"ray_version": "2.9.0"}, f"has Ray 2.9.0, and this process Ray {version('ray')}"),
        ({"python_version": "3.14.1"}, f"has Python 3.14.1, and this process Python {platform.python_version()}"),
    ],
)
def test_other_versions(gcs, other, said):
    assert said in refusal(gcs(OURS | other))


def test_python_to_the_second_digit_where_ray_is_told_so(gcs, monkeypatch):
    monkeypatch.setenv("RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL", "minor")
    major, minor, _ = platform.python_version_tuple()
    check(gcs(OURS | {"python_version": f"{major}.{minor}.99"}))


def test_a_token_that_is_wanted(gcs):
    assert "it wants a token" in refusal(gcs(status=grpc.StatusCode.UNAUTHENTICATED))


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    text = refusal(f"127.0.0.1:{port}")
    assert "no Ray cluster there: connection refused" in text and "`ray start --head` printed, 6379" in text


def test_another_server_listens():
    class Page(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        assert "what answers there is no Ray head" in refusal(f"127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_server_that_says_nothing():
    with socket.create_server(("127.0.0.1", 0)) as s:
        assert "what answers there is no Ray head" in refusal(f"127.0.0.1:{s.getsockname()[1]}")


@pytest.mark.parametrize(
    "address, said",
    [
        ("no-such-host.invalid:6379", "there is no machine called 'no-such-host.invalid'"),
        ("nonsense", "is not host:port"),
        ("host:many", "is not host:port"),
        ("127.0.0.1:99999", "is not host:port"),
        ("ray://127.0.0.1:10001", "Ray Client is not for this"),
    ],
)
def test_no_address_at_all(address, said):
    assert said in refusal(address)


def test_auto_where_nothing_runs(monkeypatch):
    from ray._private import services

    monkeypatch.setattr(services, "find_gcs_addresses", set)
    monkeypatch.setattr(services, "find_bootstrap_address", lambda temp: None)
    assert "no Ray cluster runs on this machine" in refusal("auto")
