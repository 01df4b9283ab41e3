"""MLflow's comparison of a sweep, as `distvae ui` serves it, in a browser: the five axes are there to compare."""

import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from driver import heeds_ctrl_c
from made_sweeps import TEXT, sweep

from distvae.results.tracking import sync
from distvae.trial import KNOBS

ROOT = Path(__file__).parents[2]
WAIT_MS = 90_000  # MLflow's page is 10 MB of JavaScript


@contextmanager
def served(out: Path):
    """`distvae ui OUT --port 0`: the address of the comparison it prints."""
    command = [sys.executable, "-m", "distvae.cli", "ui", str(out), "--port", "0"]
    ui = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heeds_ctrl_c)
    try:
        assert ui.stdout is not None and ui.stderr is not None
        assert ui.stdout.readline().startswith("http://127.0.0.1:")
        link = next(m[1] for line in ui.stderr if (m := re.search(r"the frontier compared: (\S+)", line)))
        yield link
    finally:
        ui.send_signal(signal.SIGINT)
        _, said = ui.communicate(timeout=60)
    assert ui.returncode == 0, said


def choose(page, name: str) -> None:
    """An item of the open menu, whose items exist only where it is scrolled to."""
    menu, item = page.locator(".rc-virtual-list-holder:visible"), page.locator(f'[title="{name}"]:visible')
    menu.evaluate("m => { m.scrollTop = 0; }")
    while item.count() == 0:
        assert menu.evaluate("m => m.scrollTop + m.clientHeight < m.scrollHeight - 1"), f"{name} is not in the menu"
        menu.evaluate("m => { m.scrollTop += 100; }")
        page.wait_for_timeout(100)
    item.last.click()


def check(visit, shot, link: str, name: str) -> None:
    """The comparison opens on parallel coordinates, and every axis can be put on them; the scatter plot and a metric's
    own page draw. Nothing is asked of the network."""
    page = visit.page
    visit.open(link)
    page.locator(".parcoords").first.wait_for(timeout=WAIT_MS)
    assert page.locator("text=Parallel Coordinates Plot").count() == 1
    shot(page, f"{name}-compare")
    page.get_by_role("combobox").first.click()
    for knob in KNOBS.values():  # those that are not on it yet are put on it
        if page.locator(".parcoords .axis-title", has_text=knob).count() == 0:
            choose(page, knob)
            page.locator(".parcoords .axis-title", has_text=knob).wait_for(timeout=WAIT_MS)
    page.keyboard.press("Escape")
    drawn = page.locator(".parcoords .axis-title").all_text_contents()
    assert set(KNOBS.values()) <= set(drawn) and any("_nats" in t for t in drawn)
    shot(page, f"{name}-five-knobs")
    page.get_by_role("tab", name="Scatter Plot").click()
    page.locator(".js-plotly-plot canvas").first.wait_for(timeout=WAIT_MS)
    page.locator("#y-axis-selector").click()
    page.get_by_role("option", name="test/elbo_nats", exact=True).click()
    for knob in KNOBS.values():  # a metric over each
        page.locator("#x-axis-selector").click()
        page.get_by_role("option", name=knob, exact=True).click()
        page.locator(".xtitle", has_text=knob).wait_for(timeout=WAIT_MS)
    shot(page, f"{name}-scatter")
    page.locator("a", has_text="test/elbo_nats").first.click()
    page.locator(".js-plotly-plot .scatterlayer .trace").first.wait_for(timeout=WAIT_MS)
    shot(page, f"{name}-metric")
    assert not visit.left  # no fonts, no telemetry, no assistant


@pytest.mark.slow
def test_the_comparison_of_a_small_sweep_shows_the_five_axes(tmp_path, visit, shot):
    sweep(tmp_path, TEXT.replace("seeds: 2", "seeds: 1"), odd=False)
    sync(tmp_path)
    with served(tmp_path) as link:
        check(visit, shot, link, "small")


@pytest.mark.slow
@pytest.mark.sweep
def test_the_comparison_of_the_quickstart_shows_the_five_axes(tmp_path, visit, shot):
    config = ROOT / "tune_configs" / "quickstart.yaml"
    command = [sys.executable, "-m", "distvae.cli", "sweep", str(config), "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=500)
    with served(tmp_path) as link:
        check(visit, shot, link, "quickstart")
