"""The page of a report in a browser: one cursor, axes, toggles, numbers to take away; hostile texts do nothing."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.reporting.made import FAILED, HOSTILE, MASKED, made_page
from tests.tabs import Opened

pytestmark = pytest.mark.slow
OVER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
Made = dict[str, tuple[Path, dict[str, Any]]]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("reports")
    kinds: dict[str, Any] = {"plain": {}, "hostile": {"hostile": True}, "large": {"checkpoints": 154, "analyses": 40}}
    found = {}
    for name, how in kinds.items():
        text, content = made_page(**how)
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
        found[name] = (folder / f"{name}.html", content)
    return found


@pytest.fixture
def opened(chromium: Any, made: Made) -> Iterator[Any]:
    tabs: list[Opened] = []

    def go(name: str = "plain", **options: Any) -> Opened:
        tabs.append(Opened(chromium, made[name][0].as_uri(), **options))
        return tabs[-1]

    yield go
    for page in tabs:
        page.tab.close()
        assert page.troubles == []
        assert [r for r in page.requests if not r.startswith(("data:", "blob:"))] == [page.address]


def cursors(page: Opened) -> set[float]:
    """Where the cursor is, over all panels, as a share of the width of the plot."""
    get = """found => found.map(e => { const box = e.closest('svg').viewBox.baseVal;
      return (Number(e.getAttribute('d').match(/^M([\\d.]+)/)[1]) - 46) / (box.width - 56); })"""
    return {round(x, 2) for x in page.tab.eval_on_selector_all(".panel .cursor", get)}


def values(page: Opened, figure: int = 0) -> list[str]:
    return list(page.tab.locator(f"[data-chart='{figure}'] .legend .value").all_inner_texts())


def finding(content: dict[str, Any], key: str) -> dict[str, Any]:
    return next(f for a in content["analyses"] for f in a["findings"] if f["key"] == key)


def test_one_cursor_moves_over_all_panels_and_shows_their_numbers(opened: Any, made: Made) -> None:
    page, content = opened(), made["plain"][1]
    assert page.count(".panel") == 6 and page.count("[data-chart]") == 4 and page.count("figure img") == 2
    done = finding(content, "made0.done")
    plot = page.tab.locator(".plot[role=slider]").first
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    page.tab.mouse.move(box["x"] + 46 + 0.6 * (box["width"] - 56), box["y"] + 60)
    at = int(page.tab.locator("#cursor").input_value())
    assert 0 < at < 39 and len(cursors(page)) == 1
    assert page.text("#cursor-text").startswith(f"step {content['series']['steps'][at]:,}")
    low, value, high = (done[part][at] for part in ("low", "values", "high"))
    shown = [float(n) for n in re.findall(r"\d[\d.]*", values(page)[0])]
    assert shown == pytest.approx([value, low, high, done["emergence"]["null_upper"][at]], abs=0.006)
    assert plot.get_attribute("aria-valuenow") == str(at) and str(value)[:4] in plot.get_attribute("aria-valuetext")
    page.tab.locator("#cursor").fill(str(FAILED))
    assert values(page)[0].startswith("–") and page.text("#cursor-text").endswith("failed: cut short")


def test_the_keyboard_moves_the_cursor_and_zooms(opened: Any, made: Made) -> None:
    page, steps = opened(), made["plain"][1]["series"]["steps"]
    plot = page.tab.locator(".plot[role=slider]").nth(1)
    plot.focus()
    page.key("Home")
    assert page.text("#cursor-text").startswith("step 0 ") and cursors(page) == {0.01}
    page.key("ArrowRight", 3)
    page.key("PageDown")
    page.key("ArrowLeft")
    assert page.tab.locator("#cursor").input_value() == "7" == plot.get_attribute("aria-valuenow")
    page.key("End")
    assert f"step {steps[-1]:,}" in plot.get_attribute("aria-valuetext")
    all_ticks = page.tab.locator(".panel .plot").first.locator("text").all_text_contents()
    page.key("+", 2)
    zoomed = page.tab.locator(".panel .plot").first.locator("text").all_text_contents()
    assert zoomed != all_ticks and "0" not in zoomed[-2:]
    page.key("0")
    assert page.tab.locator(".panel .plot").first.locator("text").all_text_contents() == all_ticks
    assert page.tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_dragging_zooms_all_panels_and_a_double_click_shows_everything(opened: Any) -> None:
    page = opened()
    plot = page.tab.locator(".plot[role=slider]").first
    plot.scroll_into_view_if_needed()
    before = page.tab.locator(".line").evaluate_all("found => found.map(e => e.getAttribute('d'))")
    box = plot.bounding_box()
    page.tab.mouse.move(box["x"] + 150, box["y"] + 50)
    page.tab.mouse.down()
    page.tab.mouse.move(box["x"] + 260, box["y"] + 60)
    assert page.count(".zoomed") == 1
    page.tab.mouse.up()
    after = page.tab.locator(".line").evaluate_all("found => found.map(e => e.getAttribute('d'))")
    assert all(a != b for a, b in zip(before, after, strict=True)) and page.count(".zoomed") == 0
    plot.dblclick(position={"x": 200, "y": 50})
    assert page.tab.locator(".line").evaluate_all("found => found.map(e => e.getAttribute('d'))") == before


def test_the_axis_is_that_of_steps_or_tokens_logarithmic_or_not(opened: Any) -> None:
    page = opened()
    ticks = page.tab.locator(".panel .plot").first.locator("text")
    assert {"0", "10", "100", "1000"} <= set(ticks.all_text_contents())
    page.tab.locator("input[value=tokens]").check()
    assert {"10k", "100k", "1M"} <= set(ticks.all_text_contents())
    page.tab.locator("#log").uncheck()
    assert {"2M", "4M", "8M"} <= set(ticks.all_text_contents())
    page.tab.locator("input[value=steps]").check()
    assert {"500", "1000", "1500", "2000"} <= set(ticks.all_text_contents())
    assert page.count(".onset") == 6  # three of the circuits' rows in the timeline of each analysis


def test_the_legend_hides_lines_and_their_numbers_stay(opened: Any) -> None:
    page = opened()
    panel = page.tab.locator("[data-chart='0'] .panel").nth(1)
    button = panel.locator(".legend button").first
    assert panel.locator(".line").count() == 3 and button.get_attribute("aria-pressed") == "true"
    button.focus()
    page.key("Enter")
    assert panel.locator(".line").count() == 2 and button.get_attribute("aria-pressed") == "false"
    assert panel.locator(".legend .value").count() == 3
    button.click()
    assert panel.locator(".line").count() == 3


def test_a_figure_gives_its_numbers_as_csv(opened: Any, made: Made) -> None:
    page, content = opened(), made["plain"][1]
    with page.tab.expect_download() as saved:
        page.tab.locator("[data-chart='0'] .csv").click()
    assert saved.value.suggested_filename == "made0-curves.csv"
    rows = list(csv.reader(io.StringIO(Path(saved.value.path()).read_bytes().decode())))
    assert rows[0][:4] == ["step", "tokens", "status", "Done: done"] and len(rows) == 41
    assert [int(r[0]) for r in rows[1:]] == content["series"]["steps"]
    assert (rows[1 + FAILED][2], rows[1 + MASKED][2]) == ("failed", "masked")
    column = rows[0].index("Parts: circuit 0: used, bound of the null")
    bound = finding(content, "made0.used")["emergence"]["null_upper"]
    assert [r[column] != "" for r in rows[1:]] == [b is not None for b in bound]
    assert [float(r[column]) for r in rows[1:] if r[column]] == pytest.approx(
        [b for b in bound if b is not None], rel=1e-5
    )
    assert rows[1 + FAILED][3] == ""


def test_the_timeline_groups_rows_by_circuit_and_marks_checkpoints_without_numbers(opened: Any, made: Made) -> None:
    page, content = opened(), made["plain"][1]
    assert page.tab.locator(".circuit h3").all_inner_texts() == ["Circuit 0", "Circuit 1"]
    names = page.tab.locator(".circuit").first.locator(".name").all_inner_texts()
    assert [name.split("\n")[0].split(" ")[0] for name in names] == ["represented", "used", "done", "never"]
    row = page.tab.locator(".circuit svg.row").nth(2)
    onset = finding(content, "made0.done")["emergence"]["onset"]
    assert f"emerged between steps {onset['after']} and {onset['by']}" in row.get_attribute("aria-label")
    assert "not emerged" in page.tab.locator(".circuit svg.row").nth(3).text_content()
    marks = page.tab.locator("svg.foot .bad title").all_text_contents()
    steps = content["series"]["steps"]
    assert marks == [
        f"step {steps[FAILED]}: failed, cut short",
        f"step {steps[MASKED]}: masked, the weights of another step",
    ]
    page.tab.locator("#cursor").fill("0")
    assert page.tab.locator(".now").first.inner_text().startswith("○")
    page.tab.locator("#cursor").fill("39")
    assert page.tab.locator(".now").first.inner_text().startswith("●")


def test_marks_are_named(opened: Any) -> None:
    page = opened("hostile")
    panel = page.tab.locator("[data-chart='1'] .panel")
    assert panel.locator(".plot .mark title").text_content() == f"turnover{HOSTILE}: step 100"
    entry = panel.locator(".legend .of-mark").inner_text()
    assert entry.startswith("turnover</script>") and entry.endswith("step 100")
    assert panel.locator(".legend .value").count() == 2  # of lines only
    assert page.tab.get_by_role("group", name="Horizontal axis", exact=True).count() == 1


def test_what_was_lost_again_is_named_beside_its_title_and_not_over_its_marks(
    chromium: Any, made: Made, tmp_path: Path
) -> None:
    text = made["plain"][0].read_text(encoding="utf-8")
    before, data, after = re.split(r'(?<=id="chart-data">)(.*?)(?=</script>)', text, maxsplit=1, flags=re.DOTALL)
    content = json.loads(data)
    content["timeline"][0]["rows"][0] |= {"state": "transient", "onset": [1, 3], "end": 10, "range": None}
    (tmp_path / "page.html").write_text(before + json.dumps(content).replace("<", "\\u003c") + after, encoding="utf-8")
    page = Opened(chromium, (tmp_path / "page.html").as_uri())
    row = page.tab.locator(".circuit li").first
    assert "transient" in row.locator(".name .fragile").all_text_contents()
    assert row.locator("svg.row text").count() == 0 and page.troubles == []
    page.tab.close()


def test_captions_say_what_is_seen(opened: Any, made: Made) -> None:
    page, content = opened(), made["plain"][1]
    first, second = page.tab.locator("figcaption").all_inner_texts()[:2]
    onset = finding(content, "made0.done")["emergence"]["onset"]
    assert f"“Done” rises above its null between steps {onset['after']} and {onset['by']}" in first
    assert "“Parts (circuit 0: never)” does not exceed its null" in first
    assert second.startswith("Growth, in the end: root 44.7; logarithm 7.6")
    assert (
        page.tab.locator("figure img")
        .first.get_attribute("alt")
        .startswith("Largest at the last checkpoint: a map: c (78)")
    )


def test_hostile_texts_are_shown_and_do_nothing(opened: Any) -> None:
    page = opened("hostile")
    for at in ("0", str(FAILED), "39"):
        page.tab.locator("#cursor").fill(at)
    assert page.tab.evaluate("window.ran") is None and page.count("script") == 2
    assert page.count("img:not(figure > img)") == 0
    words = "</script><script>window.ran=1</script><img src=x onerror="
    assert words in page.text("h1") and words in page.text("#made0")
    assert words in page.tab.locator(".panel h4").first.inner_text()
    assert words in page.tab.locator(".circuit h3").first.inner_text()
    with page.tab.expect_download() as saved:
        page.tab.locator("[data-chart='0'] .csv").click()
    head = next(csv.reader(io.StringIO(Path(saved.value.path()).read_bytes().decode())))
    assert head[3] == f"Done{HOSTILE}: done"


def test_injected_code_would_be_stopped_by_the_policy(chromium: Any, made: Made) -> None:
    page = Opened(chromium, made["plain"][0].as_uri())
    page.tab.evaluate("""() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1';
      document.body.append(s); const i = document.createElement('img'); i.src = 'http://127.0.0.1:9/x.png';
      document.body.append(i); }""")
    assert page.tab.evaluate("window.ran") is None
    assert sum("Content Security Policy" in trouble for trouble in page.troubles) == 2
    page.tab.close()


@pytest.mark.parametrize("width", [1600, 800, 400])
def test_nothing_is_wider_than_the_window(opened: Any, width: int) -> None:
    page = opened(viewport={"width": width, "height": 900}, color_scheme="dark")
    assert page.tab.evaluate(OVER) == 0
    page.tab.set_viewport_size({"width": 360, "height": 700})
    assert page.tab.evaluate(OVER) == 0
    assert page.tab.evaluate("document.querySelector('.panel .plot').viewBox.baseVal.width") < 360


def test_many_checkpoints_and_analyses_stay_small(opened: Any, made: Made) -> None:
    page = opened("large")
    assert page.count(".panel") == 120 and made["large"][0].stat().st_size < 5e6
    page.tab.locator("#cursor").fill("20")
    assert len(cursors(page)) == 1
