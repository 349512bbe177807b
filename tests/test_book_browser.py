"""The built pages in a real browser: whole, asking no other host, good on a phone and in the dark.

Needs pages that are up to date (`make book`) and an installed Chromium; skipped, with the reason, otherwise.
"""

from __future__ import annotations

import functools
import http.server
import io
import re
import threading
from collections.abc import Iterator

import pytest
from offline import LETTERS
from PIL import Image

from book.make import pages, pdf

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core is not installed")
from browsing import DESKTOP, PHONE, Visit  # noqa: E402

if pdf.installed() is None:
    pytest.skip("no Chromium on this machine (apt install chromium)", allow_module_level=True)
if not pages.are_fresh():
    pytest.skip("the pages are not built from what is here now (make book)", allow_module_level=True)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The pages' address on this machine."""
    handler = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=pages.HTML)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


every_page = pytest.mark.parametrize("name", [*pages.contents(), "search", "genindex"])


@every_page
def test_page_is_whole_and_light_asks_no_other_host_and_fits_a_phone(browser, address, name):
    with Visit(browser, f"{address}/{name}.html") as visit:
        broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src)"
        assert visit.page.evaluate(broken) == []
        empty = "[...document.querySelectorAll('.math')].filter(m => !m.querySelector('svg :is(use, path, rect)'))"
        assert visit.page.evaluate(f"{empty}.length") == 0
        assert visit.page.locator(".math use:not([href^='#MJX'])").count() == 0
        assert visit.weight <= 1_200_000
        cut = "[...document.querySelectorAll('.cell_input pre')].filter(p => p.scrollWidth > p.clientWidth).length"
        for viewport in (DESKTOP, PHONE):
            visit.page.set_viewport_size(viewport)
            assert visit.page.evaluate(cut) == 0
        assert visit.is_narrow


@pytest.mark.parametrize("scheme", ["light", "dark"])
@every_page
def test_page_can_be_read_by_everyone(browser, address, name, scheme):
    """axe-core's rules: WCAG A and AA, and best practice."""
    with Visit(browser, f"{address}/{name}.html", color_scheme=scheme) as visit:
        for viewport in (DESKTOP, PHONE):
            visit.page.set_viewport_size(viewport)
            visit.page.wait_for_timeout(100)  # colours pass over slowly
            found = axe.Axe().run(visit.page).response["violations"]
            assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []
        visit.problems.clear()  # axe asks for style sheets at addresses of its own


@pytest.mark.parametrize("name", pages.contents())
def test_figures_have_large_letters_on_a_phone_and_no_ground_of_their_own_at_night(browser, address, name):
    with Visit(browser, f"{address}/{name}.html", viewport=PHONE, color_scheme="dark") as visit:
        ground = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == "rgb(20, 24, 29)"
        for image in visit.page.locator("article figure img").all():
            drawn, width = image.evaluate("async i => [await (await fetch(i.currentSrc)).text(), i.clientWidth]")
            scale = width / float(re.search(r"viewBox='0 0 (\S+)", drawn)[1])
            assert all(float(letters) * 100 * scale >= 10.99 for letters in LETTERS.findall(drawn))
            shown = Image.open(io.BytesIO(image.screenshot())).convert("RGB")
            assert f"rgb{shown.getpixel((1, shown.height - 2))}" == ground


def test_the_sidebar_shows_every_chapter_at_once_by_part(browser, address):
    with Visit(browser, f"{address}/chapters/03_toy.html") as visit:
        captions = visit.page.locator(".bd-sidebar-primary .caption-text").all_text_contents()
        assert {"Set-up", "The toy", "Images", "Robustness", "Beyond the paper"} <= set(captions)
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
    with Visit(browser, f"{address}/{pages.contents()[0]}.html") as visit:
        visit.page.keyboard.press("Control+k")
        visit.page.keyboard.type(words)
        visit.page.keyboard.press("Enter")
        # the results arrive one by one, in an order of their own
        visit.page.locator(f'#search-results li a[href*="{SEARCHED[words]}"]').first.wait_for(timeout=10_000)
