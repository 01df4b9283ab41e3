"""Runs a command in this process, as the console script does."""

import sys

import pytest

from distvae.cli import main


class Done:
    def __init__(self, code: int, out: str, err: str):
        self.code, self.out, self.err = code, out, err


def command(capsys: pytest.CaptureFixture[str], *args: object) -> Done:
    """`distvae args...`: its exit code and what it printed. An exception it lets through fails the test."""
    before, sys.argv = sys.argv, ["distvae", *map(str, args)]
    code = 0
    try:
        main()
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else 0 if e.code is None else 1
    finally:
        sys.argv = before
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return Done(code, out, err)
