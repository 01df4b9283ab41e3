"""The sweep without a fault that all others are compared with, random moments, and the table of what was seen."""

import os
import random
import time
from types import SimpleNamespace

import pytest
from driver import Sweep
from faulted import by_place, config
from table import Seen, Table

SEED = int(os.environ.get("DISTVAE_FAULTS_SEED", 0)) or random.SystemRandom().randrange(1, 10**6)
MOMENTS = 3


def pytest_configure(config):
    config.faults = Table(SEED)


def pytest_report_header(config):
    return f"faults: moments drawn with DISTVAE_FAULTS_SEED={SEED}"


def pytest_generate_tests(metafunc):
    """`moment`: fractions of a clean sweep's time, drawn anew each run, named by their number so that runs can be compared."""
    if "moment" in metafunc.fixturenames:
        drawn = random.Random(f"{SEED} {metafunc.function.__name__}")
        low, high = getattr(metafunc.function, "between", (0.05, 0.95))
        width = (high - low) / MOMENTS  # one in each third
        moments = [low + width * (i + drawn.random()) for i in range(MOMENTS)]
        metafunc.parametrize("moment", moments, ids=[f"moment{i}" for i in range(MOMENTS)])


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if call.when != "call" or report.skipped or "faults" not in str(item.path.parent):
        return
    told = dict(item.user_properties)
    doc = (item.function.__doc__ or item.name).strip().split("\n\n")[0]
    drawn = item.callspec.params.get("moment") if hasattr(item, "callspec") else None
    moment = told.get("moment", "-") if drawn is None else f"{drawn:.2f}"
    wrong = None if report.passed else (str(call.excinfo.value).splitlines() or [call.excinfo.typename])[0][:160]
    outcome = wrong or told.get("outcome", "held")
    test = item.nodeid.rpartition("faults/")[2]
    item.config.faults.seen.append(Seen(told.get("fault", doc.rstrip(".")), moment, outcome, test, report.passed))


def pytest_sessionfinish(session):
    if how := os.environ.get("DISTVAE_FAULTS_TABLE"):
        session.config.faults.write(add=how == "add")


@pytest.fixture(scope="session")
def clean(tmp_path_factory):
    """The sweep that nothing happens to: `.rows` by place, `.took` seconds, `.path`, `.out`."""
    folder = tmp_path_factory.mktemp("clean")
    path, out = config(folder), folder / "out"
    with Sweep(path, out) as sweep:
        began = time.monotonic()
        assert sweep.end(timeout=300) == 0, sweep.text()
        took = time.monotonic() - began
        assert sweep.all_gone(), sweep.survivors()
    return SimpleNamespace(rows=by_place(out), took=took, path=path, out=out)


@pytest.fixture
def tell(record_property):
    """`tell(outcome=..., fault=..., moment=...)`: words for the table."""

    def say(**words):
        for name, text in words.items():
            record_property(name, text)

    return say
