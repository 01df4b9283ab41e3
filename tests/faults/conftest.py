"""The sweep without a fault that all others are compared with, random moments, and the table of what was seen."""

import os
import random
import time
from types import SimpleNamespace

import pytest
from driver import Sweep
from faulted import BEGINS, When, by_place, config, wait_for_phase
from table import Seen, Table

SEED = int(os.environ.get("DISTVAE_FAULTS_SEED", 0)) or random.SystemRandom().randrange(1, 10**6)
MOMENTS = 3
PHASES = (("starting", 0.08, 1.0), ("training", 0.0, 0.5), ("training", 0.5, 1.0), ("ending", 0.0, 0.9))


def pytest_configure(config):
    config.faults = Table(SEED)


def pytest_report_header(config):
    return f"faults: moments drawn with DISTVAE_FAULTS_SEED={SEED}"


def pytest_generate_tests(metafunc):
    """`moment`: fractions of a clean sweep's time, `when`: of its phases, drawn anew each run. Named by their number, so that
    runs can be compared."""
    drawn = random.Random(f"{SEED} {metafunc.function.__name__}")
    if "moment" in metafunc.fixturenames:  # one in each third
        moments = [0.05 + 0.9 * (i + drawn.random()) / MOMENTS for i in range(MOMENTS)]
        metafunc.parametrize("moment", moments, ids=[f"moment{i}" for i in range(MOMENTS)])
    if "when" in metafunc.fixturenames:
        phases = getattr(metafunc.function, "phases", PHASES)
        moments = [When(phase, drawn.uniform(low, high)) for phase, low, high in phases]
        metafunc.parametrize("when", moments, ids=[f"moment{i}" for i in range(len(phases))])


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if call.when != "call" or report.skipped or "faults" not in str(item.path.parent):
        return
    told = dict(item.user_properties)
    doc = (item.function.__doc__ or item.name).strip().split("\n\n")[0]
    params = item.callspec.params if hasattr(item, "callspec") else {}
    moment = f"{params['moment']:.2f}" if "moment" in params else str(params.get("when", told.get("moment", "-")))
    wrong = None if report.passed else (str(call.excinfo.value).splitlines() or [call.excinfo.typename])[0][:160]
    outcome = wrong or told.get("outcome", "held")
    test = item.nodeid.rpartition("faults/")[2]
    item.config.faults.seen.append(Seen(told.get("fault", doc.rstrip(".")), moment, outcome, test, report.passed))


def pytest_sessionfinish(session):
    if how := os.environ.get("DISTVAE_FAULTS_TABLE"):
        session.config.faults.write(add=how == "add")


@pytest.fixture(scope="session")
def clean(tmp_path_factory):
    """The sweep that nothing happens to: `.rows` by place, `.took` seconds, of each phase `.spans`, `.path`, `.out`."""
    folder = tmp_path_factory.mktemp("clean")
    path, out = config(folder), folder / "out"
    spans, began = {}, time.monotonic()
    with Sweep(path, out) as sweep:
        for phase in BEGINS:
            wait_for_phase(sweep, out, phase)
            spans[phase] = time.monotonic()
        assert sweep.end(timeout=300) == 0, sweep.text()
        ended = time.monotonic()
        assert sweep.all_gone(), sweep.survivors()
    at = [*spans.values(), ended]
    spans = {phase: at[i + 1] - at[i] for i, phase in enumerate(spans)}
    return SimpleNamespace(rows=by_place(out), took=ended - began, spans=spans, path=path, out=out)


@pytest.fixture
def tell(record_property):
    """`tell(outcome=..., fault=..., moment=...)`: words for the table."""

    def say(**words):
        for name, text in words.items():
            record_property(name, text)

    return say
