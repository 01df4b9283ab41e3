"""The machines that the cluster tests run on are machines: apart, joined by a cable, gone at the end."""

import subprocess

import psutil
import pytest
from machines import Lan, skip_without

pytestmark = pytest.mark.slow
LISTEN = "import socket; s = socket.create_server(('0.0.0.0', 7777)); print('on', flush=True)\nwhile True: s.accept()[0].close()"
ASK = "import socket, sys; socket.create_connection((sys.argv[1], 7777), timeout=3)"


def test_two_machines_a_cable_and_nothing_left(tmp_path):
    skip_without()
    with Lan(2, tmp_path) as lan:
        one, two = lan[0], lan[1]
        assert one.run("hostname").stdout == "node1\n"
        server = one.popen("python3", "-c", LISTEN, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None and server.stdout.readline() == "on\n"

        def reaches(machine) -> bool:
            return machine.run("python3", "-c", ASK, one.address, check=False).returncode == 0

        assert reaches(two) and reaches(one)
        lan.cut(1)
        assert not reaches(two) and reaches(one)
        lan.mend(1)
        assert reaches(two)
        (tmp_path / "shared").write_text("seen")
        one.run("sh", "-c", f"echo own > /tmp/own; cp {tmp_path}/shared {tmp_path}/copy")
        assert two.run("cat", tmp_path / "copy").stdout == "seen"
        assert "own" not in two.run("ls", "/tmp").stdout.split()
        assert len(two.processes()) == 0 and len(one.processes("socket")) == 1
        pids = [p.pid for p in one.processes()] + [m.init.pid for m in (one, two, lan.switch)]
    server.wait(20)
    server.stdout.close()
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
