"""The built pages in a real browser: whole, asking no other host, good on a phone and in the dark.

Needs pages that are up to date (`make book`) and an installed Chromium; skipped, with the reason, otherwise.
"""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator

import pytest

from book.make import pages

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DESKTOP = {"width": 1360, "height": 900}
PHONE = {"width": 390, "height": 844}

if CHROMIUM is None:
    pytest.skip("no Chromium on this machine (apt install chromium)", allow_module_level=True)
if not pages.MADE_FROM.exists() or pages.MADE_FROM.read_text() != pages.inputs():
    pytest.skip("the pages are not built from what is here now (make book)", allow_module_level=True)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The pages' address on this machine."""
    handler = functools.partial(Quiet, directory=pages.HTML)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


class Visit:
    """A page, and what went wrong while it loaded."""

    def __init__(
        self, browser: playwright.Browser, address: str, name: str, viewport: dict = DESKTOP, scheme: str = "light"
    ):
        self.problems: list[str] = []
        self.page = browser.new_page(viewport=viewport, color_scheme=scheme)
        self.page.on("console", self._message)
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("requestfailed", lambda request: self.problems.append(f"failed: {request.url}"))
        self.page.on("response", lambda response: self._response(response))
        self.page.on("request", lambda request: self._request(request, address))
        self.page.goto(f"{address}/{name}.html", wait_until="load")
        self.page.wait_for_selector("main", state="attached")
        if self.page.locator(".math").count():
            self.page.wait_for_selector("mjx-container", state="attached")

    def _message(self, message: playwright.ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"console: {message.text}")

    def _response(self, response: playwright.Response) -> None:
        if response.status >= 400:
            self.problems.append(f"{response.status}: {response.url}")

    def _request(self, request: playwright.Request, address: str) -> None:
        if not request.url.startswith((f"{address}/", "data:", "blob:")):
            self.problems.append(f"asks another host: {request.url}")

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *exception: object) -> None:
        self.page.close()


every_page = pytest.mark.parametrize("name", [*pages.contents(), "search", "genindex"])


@every_page
def test_page_is_whole_and_asks_no_other_host(browser, address, name):
    with Visit(browser, address, name) as visit:
        broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src)"
        assert visit.page.evaluate(broken) == []
        assert visit.page.locator("mjx-merror").count() == 0
        assert visit.problems == []


@every_page
def test_page_fits_a_phone(browser, address, name):
    with Visit(browser, address, name, PHONE) as visit:
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_dark_page_shows_its_figures_on_white(browser, address):
    name = pages.contents()[0]
    with Visit(browser, address, name, scheme="dark") as visit:
        style = "getComputedStyle(document.querySelector('{}')).{}"
        assert visit.page.evaluate("document.documentElement.dataset.theme") == "dark"
        image = "article figure img"
        assert visit.page.evaluate(style.format(image, "backgroundColor")) == "rgb(255, 255, 255)"
        assert visit.page.evaluate(style.format(image, "filter")) == "none"
        assert visit.page.evaluate(style.format("body", "backgroundColor")) != "rgb(255, 255, 255)"
        assert visit.problems == []


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_slider_changes_its_figure(browser, address, viewport):
    with Visit(browser, address, "chapters/03_toy", viewport) as visit:
        plot = visit.page.locator(".js-plotly-plot").first
        plot.scroll_into_view_if_needed()
        drawing, rail = plot.locator(".cartesianlayer").first, plot.locator(".slider-rail-touch-rect").first
        rail.wait_for(state="attached")
        before = drawing.inner_html()
        box = rail.bounding_box()
        visit.page.mouse.click(box["x"] + 0.95 * box["width"], box["y"] + box["height"] / 2)
        visit.page.wait_for_function(
            "([drawing, before]) => drawing.innerHTML !== before", arg=[drawing.element_handle(), before], timeout=5000
        )
        assert visit.problems == []


def test_search_finds_the_phantom(browser, address):
    with Visit(browser, address, pages.contents()[0]) as visit:
        visit.page.keyboard.press("Control+k")
        visit.page.keyboard.type("phantom")
        visit.page.keyboard.press("Enter")
        # the results arrive one by one, in an order of their own
        landing = visit.page.locator('#search-results li a[href*="intro.html"]').first
        landing.wait_for(timeout=10_000)
        assert visit.problems == []
