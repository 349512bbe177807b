"""`make pdf`: the built pages in print, one after the other, in `_build/book.pdf`; the laboratory as it stands."""

import io
import shutil
import sys
from typing import Any

from book.make import pages
from lib.files import replacing

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PDF = pages.BUILD / "book.pdf"
PAPER = {"format": "A4", "print_background": True, "margin": dict.fromkeys(("top", "bottom", "left", "right"), "18mm")}


def write() -> None:
    """Print every page of the table of contents into one file, replaced whole."""
    from playwright.sync_api import sync_playwright
    from pypdf import PdfWriter

    book = PdfWriter()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(**launched())
        page = browser.new_page(color_scheme="light")
        for name in pages.contents():
            page.goto((pages.HTML / f"{name}.html").as_uri(), wait_until="load")
            page.evaluate("document.querySelectorAll('details').forEach(part => part.open = false)")
            book.append(io.BytesIO(page.pdf(**PAPER)), outline_item=page.title().partition(" — ")[0])
        browser.close()
    with replacing(PDF) as file:
        book.write(file)


def installed() -> str | None:
    """The path of an installed browser, if there is one."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def launched() -> dict[str, Any]:
    """How the installed browser is launched. Raises ValueError where there is none."""
    if (found := installed()) is None:
        raise ValueError(f"a browser must be installed to print the pages (apt install chromium), one of {BROWSERS}")
    return {"executable_path": found, "args": ["--no-sandbox", "--disable-gpu"]}


def main() -> int:
    if pages.main():
        return 1
    try:
        write()
    except ValueError as error:
        print(f"pdf: {error}", file=sys.stderr)
        return 1
    print(f"The book in print is at {PDF}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
