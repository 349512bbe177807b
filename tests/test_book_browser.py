"""The built pages in a real browser: whole, asking no other host, good on a phone and in the dark.

Needs pages that are up to date (`make book`) and an installed Chromium; skipped, with the reason, otherwise.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import pytest
from offline import LETTERS
from PIL import Image

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
def test_page_is_whole_and_light_and_asks_no_other_host(browser, address, name):
    with Visit(browser, address, name) as visit:
        broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src)"
        assert visit.page.evaluate(broken) == []
        empty = "[...document.querySelectorAll('.math')].filter(m => !m.querySelector('svg :is(use, path, rect)'))"
        assert (
            visit.page.evaluate(f"{empty}.length") == 0 == visit.page.locator(".math use:not([href^='#MJX'])").count()
        )
        assert visit.problems == [] and visit.weight <= 1_200_000


@every_page
def test_page_fits_a_phone_and_no_code_is_cut(browser, address, name):
    with Visit(browser, address, name, PHONE) as visit:
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        cut = "[...document.querySelectorAll('.cell_input pre')].filter(p => p.scrollWidth > p.clientWidth).length"
        assert visit.page.evaluate(cut) == 0
        visit.page.set_viewport_size(DESKTOP)
        assert visit.page.evaluate(cut) == 0


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


@pytest.mark.parametrize("name", pages.contents())
def test_figures_have_large_letters_on_a_phone_and_no_ground_of_their_own_at_night(browser, address, name):
    with Visit(browser, address, name, PHONE, scheme="dark") as visit:
        ground = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == "rgb(20, 24, 29)"
        for image in visit.page.locator("article figure img").all():
            drawn, width = image.evaluate("async i => [await (await fetch(i.currentSrc)).text(), i.clientWidth]")
            scale = width / float(re.search(r"viewBox='0 0 (\S+)", drawn)[1])
            assert all(float(letters) * 100 * scale >= 10.99 for letters in LETTERS.findall(drawn))
            shown = Image.open(io.BytesIO(image.screenshot())).convert("RGB")
            assert f"rgb{shown.getpixel((1, shown.height - 2))}" == ground

        assert visit.problems == []


def test_the_sidebar_shows_every_chapter_at_once(browser, address):
    with Visit(browser, address, "chapters/03_toy") as visit:
        last = visit.page.locator(".bd-sidebar-primary a[href]").last.bounding_box()
        assert last["y"] + last["height"] <= DESKTOP["height"]


SEARCHED = {
    "phantom": "intro.html",
    "C7": "scorecard.html#claim-c7",
    "equation (5)": "paper.html#paper-equations-5",
    "equation 12": "paper.html#paper-equations-11-19",
    "Table 2": "paper.html#paper-tables-2",
}


@pytest.mark.parametrize("words", SEARCHED)
def test_search_finds(browser, address, words):
    with Visit(browser, address, pages.contents()[0]) as visit:
        visit.page.keyboard.press("Control+k")
        visit.page.keyboard.type(words)
        visit.page.keyboard.press("Enter")
        # the results arrive one by one, in an order of their own
        visit.page.locator(f'#search-results li a[href*="{SEARCHED[words]}"]').first.wait_for(timeout=10_000)
        assert visit.problems == []
