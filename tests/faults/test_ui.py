"""The UI answers only who asks for it by its own name: a page of a foreign site cannot read or change what it holds."""

import http.client
import json
import re
import signal

import pytest
from driver import Background

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
SEARCH = "/api/2.0/mlflow/experiments/search"
CREATE = "/api/2.0/mlflow/experiments/create"


def test_foreign_host_and_origin(clean, tmp_path, tell):
    """foreign Host or Origin at the UI"""
    with Background("ui", clean.out, "--port", "0", log=tmp_path / "ui.log") as ui:
        ui.wait_for(lambda: "Ctrl-C stops it" in ui.text())
        found = re.search(r"http://127\.0\.0\.1:(\d+)", ui.text())
        assert found is not None
        port = int(found[1])

        def ask(method, path, body=None, **headers):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            named = {"Host": f"127.0.0.1:{port}", "Content-Type": "application/json", **headers}
            connection.request(method, path, None if body is None else json.dumps(body), named)
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            return answer.status, answer.headers, content

        home = f"http://127.0.0.1:{port}"
        assert ask("POST", SEARCH, {"max_results": 5})[0] == 200
        assert ask("POST", SEARCH, {"max_results": 5}, Origin=home)[0] == 200
        for host in ("evil.example", f"evil.example:{port}", "192.168.1.7:5000", f"127.0.0.1.evil.example:{port}"):
            for method, path in (("GET", "/"), ("POST", SEARCH)):
                status, _, content = ask(method, path, {} if method == "POST" else None, Host=host)
                assert status == 403 and b"faults" not in content, (host, method, status)
        for origin in ("http://evil.example", "https://evil.example:443", "null"):
            status, headers, content = ask("POST", CREATE, {"name": "planted"}, Origin=origin)
            assert status == 403, (origin, status)
            assert headers.get("Access-Control-Allow-Origin") not in (origin, "*")
        names = [e["name"] for e in json.loads(ask("POST", SEARCH, {"max_results": 50})[2])["experiments"]]
        assert "faults" in names and "planted" not in names
        assert ui.end(signal.SIGINT) == 0, ui.text()
        assert ui.all_gone(), ui.survivors()
    tell(outcome="refused with 403, nothing read and nothing changed; its own page is served")
