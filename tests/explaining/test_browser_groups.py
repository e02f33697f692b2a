"""The page in a browser: its address, groups of nodes, and what changed between two checkpoints."""

from __future__ import annotations

import re
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest

from tests.explaining.test_browser_use import busiest
from tests.tabs import Opened, Pages

pytestmark = pytest.mark.slow


def effects(explanation: dict[str, Any], group: set[int]) -> list[float]:
    return [
        sum(score for source, target, _, score in c["edges"] if source in group and target not in group)
        for c in explanation["checkpoints"]
    ]


def link(page: Opened) -> str:
    """The address, once it says what is seen."""
    page.tab.clock.run_for(300)
    return str(page.tab.evaluate("location.href"))


def test_a_link_shows_what_its_sender_saw(chromium: Any, opened: Any, pages: Pages) -> None:
    page, explanation = opened(), pages["organism"][1]
    index = busiest(explanation["checkpoints"][-1], explanation["nodes"])
    page.tab.locator(f"[data-node='{index}'] .box").click()
    page.tab.locator("#slider").fill("36")
    page.tab.locator("input[value=answer]").check()
    page.tab.locator("#against").select_option("25")
    page.tab.locator("#group-positions").click()
    names = page.tab.locator("#groups input").evaluate_all("found => found.map(e => e.value)")
    page.tab.locator("#groups input").first.fill("</script><b>mine|&=#%")
    other = Opened(chromium, link(page))
    assert other.at == 36 and other.tab.locator("input[value=answer]").is_checked()
    assert other.tab.locator("#against").input_value() == "25" and other.text("#changed") == page.text("#changed")
    assert other.tab.locator(".node.chosen").get_attribute("data-node") == str(index)
    found = other.tab.locator("#groups input").evaluate_all("found => found.map(e => e.value)")
    assert found[1:] == names[1:] and found[0] == "</script><b>mine|&=#%" and other.count("b") == 0
    assert other.troubles == []
    other.tab.evaluate("location.hash = '#step=none&pin=nobody&group=x|y&group=%25|y&against=-1&lens=nothing&pins=||'")
    other.tab.wait_for_function("document.querySelectorAll('#groups li').length === 0")
    assert other.at == 39 and other.text("#changed") == "" and other.count(".chosen") == 0
    assert other.troubles == []
    other.tab.close()


def test_pinned_nodes_become_a_group_whose_effect_is_what_leaves_it(opened: Any, pages: Pages) -> None:
    page, explanation = opened(), pages["organism"][1]
    source, target = next(
        e[:2] for e in explanation["checkpoints"][-1]["edges"] if all(explanation["nodes"][i]["kind"] == "head" for i in e[:2])
    )  # fmt: skip
    assert page.tab.locator("#group-pinned").is_disabled()
    page.tab.locator(f"[data-node='{source}']").focus()
    page.key("Enter")
    page.tab.locator(f"[data-node='{target}'] .box").click(modifiers=["Shift"])
    assert page.count(".node.pinned") == 2
    page.tab.locator("#group-pinned").click()
    assert page.count("#groups li") == 1 and page.count(".node.grouped") == 2
    expected = effects(explanation, {source, target})
    for at in (39, 30):
        page.tab.locator("#slider").fill(str(at))
        shown = page.text("#groups .effect").replace("−", "-")
        assert float(re.match(r"[+-]?[\d.]+", shown)[0]) == pytest.approx(expected[at], abs=0.006)
    page.tab.locator("#slider").fill("4")  # failed
    assert page.text("#groups .effect") == "–"
    page.tab.locator("#groups button").click()
    assert page.count("#groups li") == 0 and "group" not in link(page)


def test_nodes_alike_have_curves_that_correlate(opened: Any, pages: Pages) -> None:
    page, explanation = opened(), pages["organism"][1]
    page.tab.locator("#group-alike").click()
    members = [text.split(", ") for text in page.tab.locator("#groups .small").all_inner_texts()]
    ids = {n["id"]: i for i, n in enumerate(explanation["nodes"])}
    curves = [[dict(c["nodes"]).get(i) for c in explanation["checkpoints"] if c["edges"]] for i in range(len(ids))]
    assert members and all(len(group) > 1 for group in members)
    for group in members:
        for one, other in combinations(group, 2):
            pairs = zip(curves[ids[one]], curves[ids[other]], strict=True)
            both = [pair for pair in pairs if None not in pair]
            assert len(both) >= 4 and np.corrcoef(np.array(both, dtype=float).T)[0, 1] > 0.9
    said = page.text("#groups-said")
    assert said == f"{len(members)} group{'s' * (len(members) > 1)} added."
    page.tab.locator("#group-alike").click()
    assert page.count("#groups li") == len(members) and "already" in page.text("#groups-said")


def test_nothing_is_compared_with_a_checkpoint_without_an_explanation(opened: Any, pages: Pages) -> None:
    page, explanation = opened(), pages["organism"][1]
    empty = [i for i, c in enumerate(explanation["checkpoints"]) if not c["edges"]]
    disabled = page.tab.locator("#against option:disabled").evaluate_all("found => found.map(e => Number(e.value))")
    assert disabled == empty and {0, 4} <= set(empty)
    assert page.tab.locator("#against option[value='4']").inner_text().endswith(" (failed)")
    page.tab.locator("#against").select_option("30")
    assert "appeared" in page.text("#changed") and page.count(".comparing") == 1
    for at, says in ((4, "Failed: "), (0, "Not measurable: ")):
        page.tab.locator("#slider").fill(str(at))
        step = explanation["checkpoints"][at]["step"]
        assert page.text("#changed").startswith(
            f"Nothing was explained at step {step}, so there is nothing to compare. {says}"
        )
        assert page.count("#gone path") == 0 and page.count("#changes tr") == 0 and page.count(".comparing") == 0
        assert not page.tab.locator("#changes-table").is_visible()
    step = explanation["checkpoints"][4]["step"]
    page.tab.evaluate(f"location.hash = '#step={explanation['checkpoints'][39]['step']}&against={step}'")
    page.tab.wait_for_function("document.getElementById('slider').value === '39'")
    assert page.text("#changed").startswith(f"Nothing was explained at step {step}")
    assert page.count("#edges .appeared") == 0


def test_changes_between_two_checkpoints_are_counted_and_drawn(opened: Any, pages: Pages) -> None:
    page, explanation = opened(), pages["organism"][1]
    page.tab.locator("#slider").fill("30")
    page.tab.locator("#against").select_option("39")
    then, now = ({(*e[:3],): e[3] for e in explanation["checkpoints"][i]["edges"]} for i in (39, 30))
    both = [(then[e], now[e]) for e in then.keys() & now.keys()]
    vanished, appeared = len(then.keys() - now.keys()), len(now.keys() - then.keys())
    weaker = sum(abs(b) < 0.8 * abs(a) and a * b > 0 for a, b in both)
    assert page.count("#gone .vanished") == vanished and page.count("#edges .appeared") == appeared
    assert page.count("#edges .weaker") == weaker
    said = page.text("#changed")
    assert f"{vanished} vanished" in said and f"{weaker} are weaker" in said
    page.tab.locator("#changes-table summary").click()
    rows = page.tab.locator("#changes tr").all_inner_texts()
    sizes = []
    for row in rows:
        before, after = (float(x.replace("−", "-").replace("–", "0")) for x in row.split("\t")[2:])
        sizes.append(abs(after - before))
    assert all(b - a < 0.011 for a, b in pairwise(sizes))
    page.tab.locator("#against").select_option("")
    assert page.count("#gone path") == 0 and page.count("#edges .weaker") == 0
