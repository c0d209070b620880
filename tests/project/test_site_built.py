"""The built site (`make docs`) in a browser, from file://: search, no request to a network, pages that fit."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from browser import Browser

import cases

SITE = cases.REPOSITORY / "build" / "site"
WIDTHS = (400, 1400)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if not (SITE / "index.html").is_file():
        if "site" in os.environ.get("SEMNR_REQUIRE", "").split(","):
            pytest.fail("SEMNR_REQUIRE names site, but there is no build/site: make docs")
        pytest.skip("no build/site: make docs")
    with Browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


def found(browser: Browser, words: str) -> list[str]:
    """Where the results of a search lead, first ones first."""
    browser.click(*browser.middle("input.md-search__input"))
    for key in words:
        browser.key(key)
    shown = "[...document.querySelectorAll('a.md-search-result__link')].map(a => a.href)"
    end = time.monotonic() + 60
    while not (links := browser.run(shown)) and time.monotonic() < end:
        browser.run("new Promise((done) => setTimeout(done, 200))")
    return list(links)


def test_the_search_works_without_a_server(browser: Browser) -> None:
    browser.size(1400, 900)
    browser.open(SITE / "index.html")
    links = found(browser, "over_sharpening")
    assert links
    assert all(link.startswith("file://") for link in links)
    assert any("rules.html" in link for link in links)


def test_pages_ask_no_network_say_no_error_and_fit_the_window(browser: Browser) -> None:
    browser.console.clear()
    browser.requests.clear()
    wide = []
    for page in sorted(SITE.rglob("*.html")):
        if page.name == "404.html":
            continue  # is served from the root of a server
        browser.open(page)
        missing = browser.run("[...document.images].filter(i => !i.naturalWidth).map(i => i.src)")
        assert not missing, page
        for width in WIDTHS:
            browser.size(width, 900)
            if (held := browser.run("document.documentElement.scrollWidth")) > width:
                wide.append(f"{page.relative_to(SITE).as_posix()} is {held} px in a window of {width}")
    assert not wide
    assert [request for request in browser.requests if not request.startswith("file://")] == []
    assert browser.console == []
