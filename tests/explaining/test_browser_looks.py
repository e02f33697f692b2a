"""The page in a browser: it fits, it can be read in light and dark, and it can be printed."""

from __future__ import annotations

import re
from itertools import cycle
from typing import Any

import pytest

from tests.tabs import style

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["organism", "pythia", "hostile", "features", "hostile-features", "long"])
def test_the_page_is_not_wider_than_the_window_beside_its_scrollbar(opened: Any, name: str) -> None:
    page = opened(name)
    last = int(page.tab.locator("#slider").get_attribute("max"))
    sizes = (400, 480, 560, 640, 800, 900, 960, 1024, 1100, 1200, 1280, 1366, 1440, 1600)
    for width, checkpoint in zip(sizes, cycle((0, last // 2, last)), strict=False):
        page.tab.set_viewport_size({"width": width, "height": 900})
        page.tab.locator("#slider").fill(str(checkpoint))
        inside, wide = page.tab.evaluate("[document.documentElement.clientWidth, document.documentElement.scrollWidth]")
        assert wide <= inside < width, (width, checkpoint)


@pytest.mark.parametrize("width", [1280, 800, 390])
@pytest.mark.parametrize("name", ["organism", "pythia", "hostile", "features", "hostile-features"])
def test_nothing_is_wider_than_the_window(opened: Any, name: str, width: int) -> None:
    page = opened(name, viewport={"width": width, "height": 900})
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= width
    beside = page.tab.locator(".lens").bounding_box()["x"] > page.tab.locator(".flow").bounding_box()["x"] + 100
    assert beside == (width == 1280 and name != "pythia")


@pytest.mark.parametrize("name", ["organism", "pythia", "features"])
def test_labels_of_edges_do_not_overlap(opened: Any, name: str) -> None:
    page = opened(name)
    boxes = page.tab.eval_on_selector_all(
        "#labels .label", "f => f.map(e => { const b = e.getBBox(); return [b.x, b.y, b.x + b.width, b.y + b.height] })"
    )
    assert len(boxes) > 10
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            apart = a[2] <= b[0] + 1 or b[2] <= a[0] + 1 or a[3] <= b[1] + 2 or b[3] <= a[1] + 2
            assert apart, (a, b)


def rgb(colour: str) -> list[float]:
    """A computed colour, as ``rgb(...)`` in 255ths or as ``color(srgb ...)``."""
    parts = [float(n) for n in re.findall(r"[\d.]+(?:e-?\d+)?", colour.replace("srgb", ""))]
    return [p if "srgb" in colour else p / 255 for p in parts[:3]]


def contrast(a: str, b: str) -> float:
    """WCAG 2 contrast ratio."""

    def luminance(colour: str) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb(colour)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_the_measure_of_contrast_is_right() -> None:
    assert contrast("rgb(0, 0, 0)", "color(srgb 1 1 1)") == pytest.approx(21)
    assert contrast("rgb(119, 119, 119)", "rgb(255, 255, 255)") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_features_can_be_read_in_light_and_dark(opened: Any, scheme: str) -> None:
    page = opened("features", color_scheme=scheme)
    boxes = style(page, ".node.feature.on .box", "fill")
    for selector in (".node.feature.on .name:not(.value)", ".node.feature.on .value"):
        for name, box in zip(style(page, selector, "fill"), boxes, strict=True):
            assert contrast(name, box) >= 4.5
    (strip,) = style(page, ".strip", "fill")
    assert strip != style(page, "body", "backgroundColor")[0]
    for line in set(style(page, ".node.feature.on .box", "stroke")):
        assert contrast(line, strip) >= 3
    page.tab.locator(".node.feature.on .box").first.hover()
    assert contrast(style(page, "#tip", "color")[0], style(page, "#tip", "backgroundColor")[0]) >= 4.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(opened: Any, scheme: str) -> None:
    page = opened(color_scheme=scheme)
    (paper,) = style(page, "body", "backgroundColor")
    (card,) = set(style(page, ".column", "fill"))
    assert (contrast(paper, "rgb(255, 255, 255)") == 1) == (scheme == "light")
    for selector in ("body", ".soft", "dt", "h3", "summary", "#says", "#top bdi", "#lens th"):
        for colour in style(page, selector, "color"):
            assert contrast(colour, paper) >= 4.5, selector
    for selector in (".label", ".token", ".layer", ".position", ".axis", ".ticks text"):
        found = style(page, selector, "fill")
        assert found
        for colour in set(found):
            assert min(contrast(colour, paper), contrast(colour, card)) >= 4.5, selector
    for name, box in zip(style(page, ".node.on .name", "fill"), style(page, ".node.on rect.box", "fill"), strict=True):
        assert contrast(name, box) >= 4.5
    for text, back in zip(style(page, "#lens td", "color"), style(page, "#lens td", "backgroundColor"), strict=True):
        assert contrast(text, back) >= 4.5
    for line in set(style(page, "#edges .line", "stroke")) | set(style(page, ".node.on .box", "stroke")):
        assert contrast(line, paper) >= 3  # what is no text


def test_movement_is_left_out_for_who_asked_for_none(opened: Any) -> None:
    assert "0.2s" in style(opened(), "#edges .line", "transitionDuration")[0]
    assert set(style(opened(reduced_motion="reduce"), "#edges .line", "transitionDuration")) == {"0s"}


@pytest.mark.parametrize("name", ["organism", "pythia"])
def test_a_print_shows_the_checkpoint_without_controls_on_white(opened: Any, name: str) -> None:
    page = opened(name, color_scheme="dark", viewport={"width": 794, "height": 1123})
    page.tab.emulate_media(media="print")
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= 794
    for hidden in ("#play", "#slider", "fieldset", ".keys"):
        assert not page.tab.locator(hidden).is_visible()
    for shown in ("#flow", "#lens", "#numbers", "#chart", "#step"):
        assert page.tab.locator(shown).is_visible()
    (paper,) = style(page, "body", "backgroundColor")
    assert contrast(paper, "rgb(255, 255, 255)") == 1


def test_what_is_said_about_the_lens_does_not_scroll_away(opened: Any) -> None:
    """The table is scrolled to its end when the page opens; a sentence in it would be cut off."""
    page = opened()
    about, outside = page.tab.evaluate(
        """() => {
            const about = document.getElementById("lens-about"), scroll = document.getElementById("lens-scroll");
            const box = about.getBoundingClientRect(), section = about.closest("section").getBoundingClientRect();
            return [about.innerText, !scroll.contains(about) && box.left >= section.left && box.right <= section.right];
        }"""
    )
    assert about.startswith("After each block") and outside
