"""Ray's noise goes to a log; what matters of it is said once."""

import logging
import subprocess
import sys
import threading

from distvae.operate import ray_log

CODE = """
import logging, os, subprocess, sys, threading
from pathlib import Path
from distvae.operate import ray_log

out, said = Path(sys.argv[1]), []
with ray_log.apart(out, lambda text: print("SAID", text, file=sys.stderr)) as noise:
    noise.listen()
    os.write(2, b"[W] raylet.cc: a warning\\n")
    subprocess.run(["sh", "-c", "echo from a child >&2"])
    def ray_thread():
        print("(raylet) info", file=sys.stderr)
        print("(raylet) The node with node id: %s has been marked dead" % ("ab" * 28), file=sys.stderr)
        print("(raylet) The node with node id: %s has been marked dead" % ("cd" * 28))  # as Ray itself does
    t = threading.Thread(target=ray_thread, name="ray_listen_error_messages"); t.start(); t.join()
    logging.getLogger("ray.worker").error("cannot reach the GCS")
    logging.getLogger("ray.worker").warning("slow")
    logging.getLogger("ray.tune.x").error("trial failed: Traceback")
    print("ours", file=sys.stderr)
print("after", file=sys.stderr)
os.write(2, b"raw after\\n")
"""


def test_who_writes_where(tmp_path):
    done = subprocess.run([sys.executable, "-c", CODE, tmp_path], capture_output=True, text=True, timeout=60)
    lines = done.stderr.splitlines()
    assert done.stdout == ""
    assert done.returncode == 0 and [line[:9] for line in lines] == [
        "SAID Ray:",
        "SAID Ray:",
        "ours",
        "after",
        "raw after",
    ]
    assert "marked dead" in lines[0] and "cannot reach the GCS" in lines[1] and "ray.log)" in lines[0]
    log = ray_log.path(tmp_path).read_text()
    for text in (
        "a warning",
        "from a child",
        "(raylet) info",
        "abab",
        "cdcd",
        "the GCS",
        "WARNING slow",
        "trial failed",
    ):
        assert text in log
    assert "ours" not in log and "after" not in log
    assert ray_log.last(tmp_path, 1) in log.splitlines()


def test_somebody_elses_stderr_is_left_alone(tmp_path, capsys):
    """As under pytest, or in a notebook."""
    before = sys.stderr
    with ray_log.apart(tmp_path, print):
        assert sys.stderr is before
    assert not ray_log.path(tmp_path).exists() and ray_log.last(tmp_path) == ""


def test_the_loggers_are_given_back(tmp_path):
    logger = logging.getLogger("ray")
    before = logger.handlers[:]
    with ray_log.apart(tmp_path, print) as noise:
        noise.listen()
        assert logger.handlers != before
    assert logger.handlers == before and threading.active_count() >= 1
