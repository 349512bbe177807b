"""The built pages in a real browser: whole, asking no other host, good on a phone and in the dark.

Needs pages that are up to date (`make book`) and an installed Chromium; skipped, with the reason, otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from book.make import pages, pdf

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core is not installed")

DESKTOP = {"width": 1360, "height": 900}
PHONE = {"width": 390, "height": 844}

if pdf.installed() is None:
    pytest.skip("no Chromium on this machine (apt install chromium)", allow_module_level=True)
if not pages.MADE_FROM.exists() or pages.MADE_FROM.read_text() != pages.inputs():
    pytest.skip("the pages are not built from what is here now (make book)", allow_module_level=True)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The pages' address on this machine."""
    with pdf.served() as address:
        yield address


class Visit:
    """A page, and what went wrong while it loaded."""

    def __init__(
        self, browser: playwright.Browser, address: str, name: str, viewport: dict = DESKTOP, scheme: str = "light"
    ):
        self.problems: list[str] = []
        self.weight = 0  # bytes of all that was loaded
        self.page = browser.new_page(viewport=viewport, color_scheme=scheme)
        self.page.on("console", self._message)
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("requestfailed", lambda request: self.problems.append(f"failed: {request.url}"))
        self.page.on("response", lambda response: self._response(response))
        self.page.on("request", lambda request: self._request(request, address))
        self.page.goto(f"{address}/{name}.html", wait_until="load")
        self.page.wait_for_selector("main", state="attached")

    def _message(self, message: playwright.ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"console: {message.text}")

    def _response(self, response: playwright.Response) -> None:
        self.weight += int(response.headers.get("content-length", 0))
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
        empty = "[...document.querySelectorAll('.math')].filter(m => !m.querySelector('svg :is(use, path, rect)'))"
        assert (
            visit.page.evaluate(f"{empty}.length") == 0 == visit.page.locator(".math use:not([href^='#MJX'])").count()
        )
        assert visit.problems == []


@every_page
def test_page_fits_a_phone_and_no_code_is_cut(browser, address, name):
    with Visit(browser, address, name, PHONE) as visit:
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        cut = "[...document.querySelectorAll('.cell_input pre')].filter(p => p.scrollWidth > p.clientWidth).length"
        assert visit.page.evaluate(cut) == 0
        visit.page.set_viewport_size(DESKTOP)
        assert visit.page.evaluate(cut) == 0


@every_page
def test_page_is_light(browser, address, name):
    with Visit(browser, address, name) as visit:
        visit.page.wait_for_timeout(200)
        assert visit.weight <= 1_200_000


@pytest.mark.parametrize("scheme", ["light", "dark"])
@every_page
def test_page_can_be_read_by_everyone(browser, address, name, scheme):
    """axe-core's rules: WCAG A and AA, and best practice."""
    with Visit(browser, address, name, scheme=scheme) as visit:
        for viewport in (DESKTOP, PHONE):
            visit.page.set_viewport_size(viewport)
            visit.page.wait_for_timeout(100)  # colours pass over slowly
            found = axe.Axe().run(visit.page).response["violations"]
            assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []


def test_the_sidebar_shows_the_chapters_by_part(browser, address):
    with Visit(browser, address, pages.contents()[0]) as visit:
        captions = visit.page.locator(".bd-sidebar-primary .caption-text").all_text_contents()
        assert {"Set-up", "The toy", "Images", "Robustness", "Beyond the paper"} <= set(captions)


def test_dark_page_turns_its_figures_dark(browser, address):
    name = pages.contents()[0]
    with Visit(browser, address, name, scheme="dark") as visit:
        style = "getComputedStyle(document.querySelector('{}')).{}"
        assert visit.page.evaluate("document.documentElement.dataset.theme") == "dark"
        image = "article figure img"
        assert visit.page.evaluate(style.format(image, "backgroundColor")) == "rgb(255, 255, 255)"
        assert visit.page.evaluate(style.format(image, "filter")) == "invert(0.9) hue-rotate(180deg)"
        assert visit.page.evaluate(style.format("body", "backgroundColor")) != "rgb(255, 255, 255)"
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
