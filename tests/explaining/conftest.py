"""A browser for the tests of the page: a Chromium that is installed, or that Playwright brought; else they skip."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dynamics.explaining import explanation_page
from tests.explaining import made
from tests.explaining.tabs import Opened, Pages

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless browser, without network of its own."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        path = next(filter(None, map(shutil.which, NAMES)), own if Path(own).is_file() else None)
        if path is None:
            pytest.skip("no Chromium is installed")
        # In containers, where tests run as root, Chromium's sandbox cannot start.
        flags = {"args": ["--no-sandbox", "--disable-gpu"], "ignore_default_args": ["--hide-scrollbars"]}
        browser = playwright.chromium.launch(executable_path=path, **flags)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Written pages with what they were made of."""
    folder = tmp_path_factory.mktemp("pages")
    found = {}
    sizes = {"organism": made.organism_sized, "pythia": made.pythia_sized, "hostile": made.hostile}
    sizes |= {"features": made.with_features, "hostile-features": made.hostile_features, "long": made.long_words}
    for name, make in sizes.items():
        explanation = make()
        file = folder / f"{name}.html"
        file.write_text(explanation_page(explanation), encoding="utf-8")
        found[name] = (file, explanation)
    return found


@pytest.fixture
def opened(chromium: Any, pages: Pages) -> Iterator[Any]:
    tabs: list[Opened] = []

    def go(name: str = "organism", **options: Any) -> Opened:
        tabs.append(Opened(chromium, pages[name][0].as_uri(), **options))
        return tabs[-1]

    yield go
    for page in tabs:
        page.tab.close()
        assert page.troubles == []
        assert [r for r in page.requests if not r.startswith("data:")] == [page.address]
