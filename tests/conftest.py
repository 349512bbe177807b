"""What tests of more than one room begin with."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """The folder in which this test alone decodes images."""
    monkeypatch.setenv("SAM_CACHE_ROOT", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def public_path():
    """A folder that every user may enter; pytest's own are for one."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """An installed Chromium, driven by playwright."""
    from playwright.sync_api import sync_playwright

    from book.make import pdf

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(**pdf.launched())
        yield chromium
        chromium.close()


@pytest.fixture
def refuses() -> Callable:
    """Calls a function that must raise `error`, in one line that matches `match` and holds all of `words`."""

    def call(error: type[Exception], function: Callable, *given, match: str | None = None, words=(), **named) -> str:
        with pytest.raises(error, match=match) as caught:
            function(*given, **named)
        message = str(caught.value)
        assert "\n" not in message and all(str(word) in message for word in words), message
        return message

    return call


@pytest.fixture
def styled() -> Iterator[None]:
    """The book's style of figures, as a chapter sets it, for this test alone."""
    import matplotlib.pyplot as plt

    from book import style

    with plt.rc_context():
        style.use_style()
        yield
