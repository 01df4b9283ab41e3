"""Pages in headless Chromium. No request leaves: what a page asks for beside its own address is refused and told."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium() -> str:
    """The browser. Without one the tests skip, on CI they fail."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        why = "needs Chromium (apt-get install chromium)"
        pytest.fail(why) if os.environ.get("CI") == "true" else pytest.skip(why)
    return found


@pytest.fixture(scope="module")  # not longer: its event loop would run beside other tests
def browser():
    path = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=path, args=FLAGS)  # with a new empty profile of its own
        yield b
        b.close()


class Visit:
    """A page and what went wrong on it: errors of its scripts and its console, requests that would have left."""

    def __init__(self, page):
        self.page = page
        self.errors: list[str] = []
        self.left: list[str] = []
        page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: self.errors.append(str(e)))
        page.on("dialog", lambda d: (self.errors.append(f"dialog: {d.message}"), d.dismiss()))

    def open(self, url: str) -> None:
        home = url.split("#")[0].rsplit("/", 1)[0] if url.startswith("http") else url.split("#")[0]

        def route(route):
            if route.request.url.startswith((home, "data:", "blob:")):
                return route.continue_()
            self.left.append(route.request.url)
            return route.abort()

        self.page.route("**/*", route)
        self.page.goto(url)


@pytest.fixture
def visit(browser) -> Iterator[Visit]:
    context = browser.new_context(viewport={"width": 1440, "height": 1000}, accept_downloads=True)
    yield Visit(context.new_page())
    context.close()


@pytest.fixture
def shot(tmp_path):
    """`shot(page, name)` keeps a picture of a page in $DISTVAE_SCREENSHOTS, else for the test only."""
    folder = Path(os.environ.get("DISTVAE_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)

    def take(page, name: str, **more) -> Path:
        path = folder / f"{name}.png"
        page.screenshot(path=path, **more)
        assert path.read_bytes().startswith(b"\x89PNG")
        return path

    return take
