"""The gallery's pages are made from what is committed, and ask for nothing."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(ROOT / "docs/_ext"), *sys.path])
        from gallery import write_gallery

        return {p.name: p.read_text() for p in write_gallery(tmp_path_factory.mktemp("gallery"))}


def test_every_page_that_the_gallery_leads_to_is_made(pages: dict[str, str]) -> None:
    linked = re.findall(r'href="gallery/([^"]+)"', (ROOT / "docs/gallery.md").read_text())
    assert linked and set(linked) == set(pages)
    assert all(p.stat().st_size < 500_000 for p in (ROOT / "docs/gallery").iterdir())


def test_pages_are_whole_and_lead_to_no_file(pages: dict[str, str]) -> None:
    report = pages["organism.html"]
    assert "When each circuit formed" in report and report.count('class="panels"') > 10
    for page in pages.values():
        assert page.rstrip().endswith("</html>") and "default-src 'none'" in page
        assert not re.findall(r'(?:href|src)="(?!#|data:)[^"]*"', page)
