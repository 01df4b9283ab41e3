"""Names that lead elsewhere: `../`, NUL, newline, symbolic links. Refused, and nothing is written outside OUT."""

import os

import pytest
from driver import distvae
from faulted import config, same_command_again

from distvae.config import load
from distvae.sweeps.tree import ConfigError

pytestmark = pytest.mark.timeout(300)

TINY = (
    "name: {name}\nvae: {{encoder: {{type: mlp, hidden: [4]}}, latent_dim: 2}}\ntrain: {{epochs: 1}}\nengine: torch\n"
)


def everything(folder):
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


@pytest.mark.parametrize(
    "name",
    ['"../../planted"', '"a\\0b"', '"a\\nb"', '"/tmp/planted"', '".."'],
    ids=["dots", "nul", "newline", "absolute", "up"],
)
def test_a_sweeps_name(tmp_path, name, tell):
    """a sweep's name with `../`, NUL or newline"""
    path = tmp_path / "c.yaml"
    path.write_text(TINY.format(name=name))
    before = everything(tmp_path)
    with pytest.raises(ConfigError, match="name"):  # which every command does
        load(path)
    done = distvae("sweep", path, "--out", tmp_path / "out")
    assert done.returncode == 2 and "name" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert everything(tmp_path) == before
    tell(moment=name.replace("|", ""), outcome="refused with exit 2, nothing written")


@pytest.mark.parametrize(
    "bad",
    ["line\nbreak", pytest.param("bell\a", marks=pytest.mark.slow), ""],
    ids=["newline", "control", "empty"],
)
def test_outs_name(tmp_path, bad, tell):
    """an OUT whose name has a newline or control character, or is empty"""
    path = tmp_path / "c.yaml"
    path.write_text(TINY.format(name="x"))
    before = everything(tmp_path)
    done = distvae("sweep", path, "--out", bad and tmp_path / bad, cwd=tmp_path)
    assert done.returncode == 2 and "--out" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert everything(tmp_path) == before
    tell(moment=repr(bad), outcome="refused with exit 2, nothing written")


def test_out_is_a_symbolic_link(tmp_path, tell):
    """a symlinked OUT"""
    path, elsewhere = tmp_path / "c.yaml", tmp_path / "elsewhere"
    path.write_text(TINY.format(name="x"))
    elsewhere.mkdir()
    (tmp_path / "out").symlink_to(elsewhere)
    for command in (("sweep", path, "--out", tmp_path / "out"), ("status", tmp_path / "out")):
        done = distvae(*command)
        assert done.returncode == 2 and "symbolic link" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not list(elsewhere.iterdir())
    tell(outcome="refused with exit 2, nothing written there")


@pytest.mark.slow
def test_a_link_inside_out(tmp_path, tell):
    """a folder in OUT that is a symbolic link to elsewhere"""
    path, out, elsewhere = config(tmp_path, TINY.format(name="x")), tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.txt").write_text("mine")
    out.mkdir()
    for folder in ("points", "checkpoints", "logs", "plots"):
        os.symlink(elsewhere, out / folder)
        done = distvae("sweep", path, "--out", out)
        assert done.returncode == 2 and f"{folder}: is a symbolic link" in done.stderr, done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        (out / folder).unlink()
    assert not list(out.iterdir())
    same_command_again(path, out)
    assert {p.name for p in elsewhere.iterdir()} == {"mine.txt"}, "written outside"
    tell(
        moment="points/, checkpoints/, logs/, plots/",
        outcome="refused with exit 2, nothing written there; without the link the same command finishes",
    )
