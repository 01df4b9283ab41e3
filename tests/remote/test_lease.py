"""One owner of an OUT without locks: by a lease, on S3 and in a folder whose file system has no flock."""

import errno
import fcntl
import subprocess
import sys
import threading
import time

import pytest

from distvae.store import lease
from distvae.store.errors import StoreError
from distvae.sweeps import lock
from distvae.sweeps.lock import OutLockedError, hold_out

pytestmark = pytest.mark.usefixtures("quick_lease")


@pytest.fixture(params=["s3", "folder"])
def place(request, tmp_path, monkeypatch):
    if request.param == "s3":
        return request.getfixturevalue("out")

    def no_flock(fd, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_flock)
    return tmp_path / "out"


def patient(text):
    pass


def silent(text):
    raise AssertionError(text)


def test_one_owner_at_a_time_and_what_is_given_back_is_had_at_once(place):
    with hold_out(place, silent) as held:
        assert held.number == 1
        held.check()
        with pytest.raises(OutLockedError, match=r"is being swept by process \d+ on "), hold_out(place, patient):
            pass
        held.check()
    with hold_out(place, silent) as held:  # nobody is waited for
        assert held.number == 2


def test_of_eight_at_once_one_owns_it(tmp_path, monkeypatch):
    """In a folder: the exclusive create is the file system's, as on S3 it is the server's (moto's takes turns by none)."""
    monkeypatch.setattr(fcntl, "flock", lambda *a: (_ for _ in ()).throw(OSError(errno.ENOLCK, "")))
    owned, refused, done = [], [], threading.Event()

    def launch():
        try:
            with hold_out(tmp_path, patient) as held:
                owned.append(held.number)
                done.wait(10)
        except OutLockedError:
            refused.append(1)

    threads = [threading.Thread(target=launch) for _ in range(8)]
    for t in threads:
        t.start()
    deadline = time.monotonic() + 10
    while len(refused) < 7 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(owned) == 1 and len(refused) == 7
    done.set()
    for t in threads:
        t.join()


def test_a_dead_owner_is_taken_over_and_a_stalled_one_commits_nothing_more(place, monkeypatch):
    """The first owner stops beating, as if by SIGSTOP, on a machine whose clock is a day ahead."""
    beating = threading.Event()
    beat = lease._beat

    def stalled(held, me, stop):
        beating.wait(10)
        beat(held, me, stop)

    said, lost = [], []
    monkeypatch.setattr(lease, "_beat", stalled)
    with hold_out(place, silent) as first:
        first.when_lost(lost.append)
        first.check()
        monkeypatch.setattr(lease, "_beat", beat)
        monkeypatch.setattr(time, "time", lambda clock=time.time: clock() + 86_400)
        began = time.monotonic()
        with hold_out(place, said.append) as second:
            assert time.monotonic() - began > lease.PATIENCE_S and second.number == 2
            (line,) = said
            assert "which does not beat: it is taken over after 2 s of silence" in line
            with pytest.raises(OutLockedError, match=r"was taken over by process .* nothing more is committed"):
                first.check()
            first.is_lost = False
            beating.set()  # SIGCONT: it notices by itself
            deadline = time.monotonic() + 5
            while not lost and time.monotonic() < deadline:
                time.sleep(0.05)
            assert len(lost) == 1 and "was taken over by process" in lost[0]
            second.check()
        with pytest.raises(OutLockedError):
            first.check()  # also when the second has ended
    with hold_out(place, silent) as third:  # the first's end gave back nothing of the second's
        assert third.number == 3


def test_a_place_that_lets_two_create_one_file_is_refused(out, monkeypatch):
    from distvae.store.path import S3Path

    put = S3Path.put
    monkeypatch.setattr(S3Path, "put", lambda self, blob, create=False, match=None: put(self, blob))
    with pytest.raises(StoreError, match="ignores If-None-Match"), hold_out(out, silent):
        pass


def test_a_lost_answer_to_an_own_create_is_no_other_owner(out, monkeypatch):
    """The server took it, the answer was lost, and boto3 asked again: 412, for our own lease."""
    from distvae.store.path import S3Path

    put = S3Path.put

    def twice(self, blob, **how):
        if how.get("create"):
            put(self, blob, **how)
        return put(self, blob, **how)

    monkeypatch.setattr(S3Path, "put", twice)
    with hold_out(out, silent) as held:
        assert held.number == 1


DEAD = """
import os, sys
from distvae.files import at
from distvae.store import lease
with lease.hold(at(sys.argv[1]), print) as held:
    print(held.number, flush=True)
    os.kill(os.getpid(), 9)
"""


def test_kill_9_of_an_owner(out):
    done = subprocess.run([sys.executable, "-c", DEAD, str(out)], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["1"], done.stderr
    with hold_out(out, patient) as held:
        assert held.number == 2


def test_mounts_whose_locks_other_nodes_do_not_see(monkeypatch, tmp_path):
    import builtins
    import io

    mounts = f"server:/x {tmp_path} nfs rw,nolock,vers=3 0 0\nserver:/y {tmp_path}/safe nfs4 rw,vers=4.2 0 0\n"
    real = builtins.open
    fake = lambda p, *a, **k: io.StringIO("/dev/root / ext4 rw 0 0\n" + mounts) if p == "/proc/self/mounts" else real(p, *a, **k)  # fmt: skip  # noqa: E731
    monkeypatch.setattr(builtins, "open", fake)
    assert lock._one_node(tmp_path / "out") and not lock._one_node(tmp_path / "safe" / "out")
    with hold_out(tmp_path / "out", silent) as held:
        assert held.number == 1
    with hold_out(tmp_path / "safe" / "out", silent) as held:
        assert held.number is None
