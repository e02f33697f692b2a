"""Written pages, and tabs in which they are opened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dynamics.explaining import explanation_page
from tests.explaining import made
from tests.tabs import Opened, Pages


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
