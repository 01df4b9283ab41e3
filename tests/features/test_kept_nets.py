"""Nets kept in the cache: made once, by one of many, and again if the file is damaged in any way."""

import stat
import subprocess
import sys
from threading import Thread
from time import sleep

import pytest
import torch

from distvae.features import kept as module
from distvae.features.kept import kept, read, write

MADE = ({"w": torch.arange(6.0).view(2, 3), "s": torch.tensor(2.5)}, {"accuracy": 0.75, "seconds": 1.0})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "features" / "net.safetensors"


def same(a, b):
    return a[1] == b[1] and a[0].keys() == b[0].keys() and all(torch.equal(a[0][k], b[0][k]) for k in a[0])


def never():
    raise AssertionError("made again")


def test_the_second_time_nothing_is_made(path):
    assert same(kept(path, lambda: MADE), MADE)
    assert same(kept(path, never), MADE)
    assert [p.name for p in path.parent.iterdir() if not p.name.startswith(".")] == ["net.safetensors"]


def test_any_damage_is_noticed_and_mended(path):
    write(path, MADE)
    whole = path.read_bytes()
    broken = [whole[:n] for n in (0, 4, 9, len(whole) // 2, len(whole) - 1)] + [b"not safetensors" * 9, whole + b"x"]
    for place in (whole.index(b"0.75"), len(whole) - 3):  # in the card, in a number
        broken.append(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    for blob in broken:
        path.write_bytes(blob)
        assert read(path) is None
        assert same(kept(path, lambda: MADE), MADE) and same(kept(path, never), MADE)


def test_where_nothing_can_be_written_it_is_made_all_the_same(tmp_path):
    assert same(kept(None, lambda: MADE), MADE)
    (tmp_path / "file").write_text("")
    assert same(kept(tmp_path / "file" / "features" / "net.safetensors", lambda: MADE), MADE)


def test_a_make_that_fails_leaves_nothing(path):
    def fails():
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        kept(path, fails)
    assert not path.exists() and same(kept(path, lambda: MADE), MADE)


def test_of_many_at_once_one_makes_it(path):
    makers, found = [], []

    def make():
        makers.append(1)
        sleep(0.2)
        return MADE

    threads = [Thread(target=lambda: found.append(kept(path, make))) for _ in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(makers) == 1 and len(found) == 4 and all(same(f, MADE) for f in found)


def test_without_locks_the_file_is_still_whole(path, monkeypatch):
    def no_locks(*_):
        raise OSError("no locks on this file system")

    monkeypatch.setattr(module.fcntl, "flock", no_locks)
    threads = [Thread(target=kept, args=(path, lambda: MADE)) for _ in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert same(kept(path, never), MADE)
    assert stat.S_ISREG(path.stat().st_mode) and not list(path.parent.glob("*.tmp"))


@pytest.mark.slow
def test_two_processes_and_one_that_is_killed_while_it_makes(path, tmp_path):
    code = f"""
import os, sys, time, torch
from pathlib import Path
from distvae.features.kept import kept
def make():
    with open({str(tmp_path / "makers")!r}, "a") as f:
        f.write("x")
    time.sleep(2)
    if sys.argv[1] == "dies":
        os.kill(os.getpid(), 9)
    return {{"w": torch.ones(3)}}, {{"by": sys.argv[1]}}
print(kept(Path({str(path)!r}), make)[1]["by"])
"""

    def start(name):
        return subprocess.Popen([sys.executable, "-c", code, name], stdout=subprocess.PIPE, text=True)

    killed = start("dies")
    assert killed.communicate()[0] == "" and killed.returncode == -9 and not path.exists()
    both = [start("one"), start("two")]
    said = {p.communicate()[0].strip() for p in both}
    assert len(said) == 1 and (tmp_path / "makers").read_text() == "xx"
