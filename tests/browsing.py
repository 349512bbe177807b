"""A page in a real browser, for the tests of pages and laboratory."""

from __future__ import annotations

from typing import Any, Self
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Request, Response

DESKTOP = {"width": 1360, "height": 900}
PHONE = {"width": 390, "height": 844}


class Visit:
    """A page; whatever goes wrong on it, a question to another host included, fails the test."""

    def __init__(self, browser: Browser, address: str, **options: Any):
        self.problems: list[str] = []
        self.weight = 0  # bytes of all that was loaded
        self.own = urlsplit(address).netloc
        self.page = browser.new_page(**{"viewport": DESKTOP, **options})
        self.page.on("console", self._message)
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("requestfailed", lambda request: self.problems.append(f"failed: {request.url}"))
        self.page.on("response", self._response)
        self.page.on("request", self._request)
        self.page.goto(address, wait_until="load")
        self.page.wait_for_selector("main", state="attached")

    def _message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"console: {message.text}")

    def _response(self, response: Response) -> None:
        self.weight += int(response.headers.get("content-length", 0))
        if response.status >= 400:
            self.problems.append(f"{response.status}: {response.url}")

    def _request(self, request: Request) -> None:
        if urlsplit(request.url).netloc != self.own and not request.url.startswith(("data:", "blob:")):
            self.problems.append(f"asks another host: {request.url}")

    @property
    def is_narrow(self) -> bool:
        """Whether nothing of the page lies beside a phone."""
        return self.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, *rest: object) -> None:
        self.page.close()
        if kind is None:
            assert not self.problems, self.problems
