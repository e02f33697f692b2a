"""The page in a browser: what a reader does, and what is then to be seen."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from dynamics.explaining import explanation_page, explanation_svg
from tests.explaining import made
from tests.tabs import Opened, Pages, style

pytestmark = pytest.mark.slow


def number(value: float) -> str:
    return f"{'−' if value < 0 else '+'}{abs(value):.2f}"


def test_the_slider_changes_the_flowchart_and_the_numbers(opened: Any, pages: Pages) -> None:
    page, explanation = opened(), pages["organism"][1]
    for place, checkpoint in enumerate(explanation["checkpoints"]):
        page.tab.locator("#slider").fill(str(place))
        shown = page.tab.eval_on_selector_all(".node.on", "found => found.map(e => Number(e.dataset.node))")
        assert set(shown) == {i for i, _ in checkpoint["nodes"]}
        assert page.count("#edges .edge") == len(checkpoint["edges"])
        minus = sum(score < 0 for *_, score in checkpoint["edges"])
        assert page.count("#edges .line.minus") == minus
        assert page.text("#step") == f"step {checkpoint['step']:,}"
        numbers = page.tab.locator("#numbers dd").all_inner_texts()
        if checkpoint["state"] == "failed":
            assert numbers == ["–"] * 7 and page.count("#top li") == 0
        else:
            assert numbers[3] == number(checkpoint["logit_difference"])
            assert numbers[6] == f"{len(checkpoint['edges'])} of 3,600"
            assert page.tab.locator("#top bdi").all_inner_texts()[0] == "␣" + checkpoint["top"][0]["text"].strip()


def test_lines_have_the_paths_widths_and_signs_of_the_checkpoint(opened: Any, pages: Pages) -> None:
    page, explanation = opened(), pages["organism"][1]
    strongest = max(abs(e[3]) for c in explanation["checkpoints"] for e in c["edges"])
    page.tab.locator("#slider").fill("25")
    widths = page.tab.eval_on_selector_all("#edges .line", "f => f.map(e => Number(e.getAttribute('stroke-width')))")
    scores = [abs(e[3]) for e in explanation["checkpoints"][25]["edges"]]
    assert sorted(widths) == pytest.approx(sorted(0.7 + 5.3 * score / strongest for score in scores), abs=0.02)


def test_places_are_the_same_at_every_checkpoint(opened: Any) -> None:
    page = opened()
    where = "f => f.map(e => { const b = e.getBoundingClientRect(); return [e.dataset.node, b.x, b.y] })"
    known: dict[str, list[float]] = {}
    for place in range(40):
        page.tab.locator("#slider").fill(str(place))
        page.tab.evaluate("scrollTo(0, 0)")
        for name, *at in page.tab.eval_on_selector_all(
            ".node.on .box", where.replace("e.dataset", "e.parentNode.dataset")
        ):
            assert known.setdefault(name, at) == pytest.approx(at, abs=0.6), name
    assert len(known) > 10


def test_playback_advances_and_stops_at_the_end(opened: Any) -> None:
    page = opened()
    play = page.tab.locator("#play")
    assert page.at == 39 and play.get_attribute("aria-label") == "Play"
    play.click()
    assert page.at <= 1 and play.get_attribute("aria-label") == "Pause"  # the clock runs on while one asks
    page.tab.clock.run_for(10_000)
    middle = page.at
    assert 5 < middle < 39
    play.click()
    paused = page.at
    assert middle <= paused < 39
    page.tab.clock.run_for(10_000)
    assert page.at == paused and play.get_attribute("aria-label") == "Play"
    play.click()
    page.tab.clock.run_for(60_000)
    assert page.at == 39 and play.get_attribute("aria-label") == "Play"


def test_the_keyboard_moves_through_training(opened: Any) -> None:
    page = opened()
    page.key("ArrowLeft", 3)
    assert page.at == 36
    page.key("ArrowRight")
    assert page.at == 37
    page.key("Home")
    assert page.at == 0 and page.text("#step") == "step 0"
    page.key("ArrowLeft")
    assert page.at == 0
    page.key("End")
    page.key("ArrowRight")
    assert page.at == 39
    page.key("Home")
    page.key("Space")
    page.tab.clock.run_for(3_000)
    assert page.at > 1
    page.key("Space")
    stopped = page.at
    page.tab.clock.run_for(3_000)
    assert page.at == stopped
    page.key("Alt+ArrowRight")  # the browser's own
    assert page.at == stopped


def test_arrows_move_the_slider_once_and_stay_with_the_radio_buttons(opened: Any) -> None:
    page = opened()
    page.tab.locator("#slider").focus()
    page.key("ArrowLeft")
    assert page.at == 38 and page.text("#step") != "step 1,438"
    page.key("Home")
    assert page.at == 0
    page.key("Space")
    page.tab.clock.run_for(2_000)
    assert page.at > 0
    page.tab.locator("#play").focus()
    page.key("Space")  # presses the button, and does nothing besides
    stopped = page.at
    page.tab.clock.run_for(3_000)
    assert page.at == stopped
    page.tab.locator("input[value=top]").focus()
    page.key("ArrowRight")
    assert page.at == stopped and page.tab.locator("input[value=answer]").is_checked()


def busiest(checkpoint: dict[str, Any], nodes: list[dict[str, Any]]) -> int:
    """A head that is fed and feeds."""
    fed = {t for _, t, *_ in checkpoint["edges"]} & {s for s, *_ in checkpoint["edges"]}
    return next(i for i in sorted(fed) if nodes[i]["kind"] == "head")


def test_pointing_at_a_node_names_it_and_lights_up_what_feeds_it_and_what_it_feeds(opened: Any, pages: Pages) -> None:
    page, explanation = opened(), pages["organism"][1]
    checkpoint, nodes = explanation["checkpoints"][-1], explanation["nodes"]
    index = busiest(checkpoint, nodes)
    assert not page.tab.locator("#tip").is_visible()
    page.tab.locator(f"[data-node='{index}'] .box").hover()
    tip = page.text("#tip")
    node = nodes[index]
    token = explanation["tokens"][node["position"]].replace(" ", "␣")
    assert tip.startswith(f"head {node['head']} of layer {node['layer']} at position {node['position']}, “{token}”\n")
    score = dict(checkpoint["nodes"])[index]
    assert (
        f"{'−' if score < 0 else '+'}{abs(score):.3f} logits, {'opposes' if score < 0 else 'supports'} the answer"
        in tip
    )
    edges = [e for e in checkpoint["edges"] if index in e[:2]]
    feeder = max((e for e in edges if e[1] == index), key=lambda e: abs(e[3]))
    assert f"fed by {nodes[feeder[0]]['id']} ({feeder[2]}) {number(feeder[3])}" in tip
    assert "\nfeeds " in tip
    lit = page.tab.eval_on_selector_all(".node.lit", "found => found.map(e => Number(e.dataset.node))")
    assert set(lit) == {i for e in edges for i in e[:2]}
    assert page.count(".edge.lit") == len(edges) < len(checkpoint["edges"])
    page.tab.mouse.move(2, 2)
    assert not page.tab.locator("#tip").is_visible() and page.count(".lit") == 0


def test_pointing_at_an_edge_names_its_ends_and_its_number(opened: Any, pages: Pages) -> None:
    page, explanation = opened(), pages["organism"][1]
    checkpoint, nodes = explanation["checkpoints"][-1], explanation["nodes"]
    meet = """() => { for (const line of document.querySelectorAll('.hit')) for (let t = 0.1; t < 1; t += 0.05) {
      const p = line.getPointAtLength(t * line.getTotalLength()).matrixTransform(line.getScreenCTM());
      if (document.elementFromPoint(p.x, p.y) === line) return [line.parentNode.getAttribute('aria-label'), p.x, p.y];
    } }"""
    label, x, y = page.tab.evaluate(meet)
    page.tab.mouse.move(x, y)
    tip = page.text("#tip")
    source, target = label.partition(",")[0].split(" → ")
    assert tip.startswith(f"{source} → {target}, its ")
    ids = {n["id"]: i for i, n in enumerate(nodes)}
    port = {"queries": "q", "keys": "k", "values": "v", "input": "in"}[tip.split("its ")[1].split("\n")[0]]
    (score,) = [e[3] for e in checkpoint["edges"] if e[:3] == [ids[source], ids[target], port]]
    assert f"\n{'−' if score < 0 else '+'}{abs(score):.3f} logits, " in tip
    lit = page.tab.eval_on_selector_all(".node.lit", "found => found.map(e => Number(e.dataset.node))")
    assert set(lit) == {ids[source], ids[target]}
    box = page.tab.locator("#tip").bounding_box()
    assert abs(box["x"] - x) < 30 or abs(box["x"] + box["width"] - x) < 30


def test_the_keyboard_reaches_nodes_and_edges(opened: Any, pages: Pages) -> None:
    page, explanation = opened(), pages["organism"][1]
    checkpoint = explanation["checkpoints"][-1]
    index = busiest(checkpoint, explanation["nodes"])
    name = explanation["nodes"][index]["id"]
    page.tab.locator(f"[data-node='{index}']").focus()
    assert "head" in page.text("#tip")
    page.key("ArrowDown")
    assert re.search(rf"→ {name}, its (queries|keys|values)", page.text("#tip"))
    page.key("ArrowDown", len(checkpoint["edges"]))  # not beyond the last
    assert page.text("#tip").startswith(f"{name} → ")
    page.key("ArrowUp", len(checkpoint["edges"]))
    focused = "document.activeElement.dataset.node"
    assert page.tab.evaluate(focused) == str(index)
    assert set(style(page, ".hit", "stroke")) == {"rgba(0, 0, 0, 0)"}
    page.key("ArrowDown")
    assert len(set(style(page, ".hit", "stroke"))) == 2  # the focused line has a halo, and no other
    page.key("ArrowUp")
    outline = page.tab.eval_on_selector(f"[data-node='{index}'] .box", "e => getComputedStyle(e).strokeWidth")
    assert outline == "2.6px"
    page.key("ArrowLeft")  # goes through training with the node still named
    assert page.at == 38 and page.tab.evaluate(focused) == str(index)
    old = dict(explanation["checkpoints"][38]["nodes"])[index]
    assert f"{abs(old):.3f} logits" in page.text("#tip")


def test_tab_stops_are_the_controls_and_the_nodes_that_are_kept(opened: Any, pages: Pages) -> None:
    page, explanation = opened(), pages["organism"][1]
    assert page.count("#flow [tabindex='0']") == len(explanation["checkpoints"][-1]["nodes"])
    page.key("Home")
    assert page.count("#flow [tabindex='0']") == 0
    for name, selector in (("Play", "#play"), ("Checkpoint", "#slider")):
        assert page.tab.locator(selector).get_attribute("aria-label") == name
    assert page.tab.locator("#slider").get_attribute("aria-valuetext") == "step 0"
    page.tab.locator("#play").focus()
    page.key("Tab")
    assert page.tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_a_click_pins_across_checkpoints_and_escape_lets_go(opened: Any, pages: Pages) -> None:
    page, explanation = opened(), pages["organism"][1]
    index = busiest(explanation["checkpoints"][-1], explanation["nodes"])
    box = page.tab.locator(f"[data-node='{index}']")
    box.locator(".box").click()
    page.tab.mouse.move(2, 2)
    assert box.get_attribute("aria-pressed") == "true" and page.tab.locator("#tip").is_visible()
    page.tab.locator("#slider").fill("0")
    assert "Not among what is kept at this checkpoint." in page.text("#tip") and page.count(".lit") == 0
    page.tab.locator("#slider").fill("38")
    assert page.text("#tip").startswith("head ") and page.count(".chosen") == 1
    page.key("Escape")
    assert not page.tab.locator("#tip").is_visible() and box.get_attribute("aria-pressed") == "false"


def test_what_could_not_be_explained_is_said_where_the_flowchart_would_be(opened: Any) -> None:
    page = opened()
    for place, words in (("0", "Not measurable: the logit difference of 0.03 is within"), ("4", "Failed: model.safe")):
        page.tab.locator("#slider").fill(place)
        assert page.text("#message").startswith(words)
        chart, message = (page.tab.locator(s).bounding_box() for s in ("#flow", "#message"))
        assert chart["y"] < message["y"] < chart["y"] + chart["height"] / 2
        assert page.count("#edges .edge") == 0
    page.tab.locator("#slider").fill("12")
    assert page.text("#says").startswith("Not reached: all edges at hand bring back 61%")
    assert page.count("#edges .edge") > 0 and not page.tab.locator("#message").is_visible()


def test_an_edge_without_a_number_is_told_from_one_with_none(chromium: Any, tmp_path: Path) -> None:
    explanation = made.organism_sized()
    checkpoint = explanation["checkpoints"][-1]
    checkpoint["edges"][0][3] = checkpoint["nodes"][0][1] = None
    file = tmp_path / "page.html"
    file.write_text(explanation_page(explanation), encoding="utf-8")
    page = Opened(chromium, file.as_uri())
    assert page.count("#edges .line.unknown") == 1 == explanation_svg(explanation, -1).count('class="line unknown"')
    assert page.tab.locator("#edges .edge:has(.unknown)").get_attribute("aria-label").endswith(": – logits")
    assert page.count(".node.on:not(.plus):not(.minus)") == 1
    assert page.troubles == []
    page.tab.close()


def test_the_lens_shows_tokens_or_the_answer(opened: Any, pages: Pages) -> None:
    page, explanation = opened(), pages["organism"][1]
    lens = explanation["checkpoints"][-1]["lens"]

    def cells() -> list[str]:
        return list(page.tab.locator("#lens td").all_inner_texts())

    shown = {" ": "␣", "\n": "↵"}
    upward = [cell[0].replace(" ", "␣").replace("\n", shown["\n"]) for row in reversed(lens["top"]) for cell in row]
    assert cells() == upward
    page.tab.locator("input[value=answer]").check()
    assert cells() == [f"{p:.2f}" for row in reversed(lens["answer"]) for p in row]
    page.tab.locator("#slider").fill("0")
    assert cells()[0] == f"{explanation['checkpoints'][0]['lens']['answer'][-1][0]:.2f}"
    page.tab.locator("#slider").fill("4")
    assert set(cells()) == {"–"}
    page.tab.locator("#slider").fill("39")
    page.tab.locator("#lens td").first.hover()
    assert page.text("#tip").startswith("layer 3, position 0 “4”\nmost probable: “")


def test_a_click_in_the_chart_goes_to_that_checkpoint(opened: Any) -> None:
    page = opened()
    box = page.tab.locator("#chart").bounding_box()
    page.tab.mouse.click(box["x"] + box["width"] * 34 / 460, box["y"] + 30)
    assert page.at == 0
    page.tab.mouse.click(box["x"] + box["width"] * 447 / 460, box["y"] + 30)
    assert page.at == 39
    x = float(page.tab.locator("#now").get_attribute("x1"))
    assert x == pytest.approx(448, abs=0.2)


def test_features_show_their_numbers_and_what_they_are(opened: Any, pages: Pages) -> None:
    page, explanation = opened("features"), pages["features"][1]
    nodes, about = explanation["nodes"], {f["feature"]: f for f in explanation["dictionary"]["features"]}
    told = set()
    for place in (39, 30):
        page.tab.locator("#slider").fill(str(place))
        checkpoint = explanation["checkpoints"][place]
        assert page.text("#splits").startswith("The stream after layer 2 passes on ")
        lengths = {i: (a, b) for i, a, b in checkpoint["split"]["active"]}
        for i, score in checkpoint["nodes"]:
            if nodes[i]["kind"] not in ("feature", "error"):
                continue
            assert page.tab.locator(f"[data-node='{i}'] .value").text_content() == number(score)
            page.tab.locator(f"[data-node='{i}'] .box").hover()
            tip = page.text("#tip")
            if nodes[i]["kind"] == "error":
                assert tip.startswith("error of the dictionary at position ") and "fires" not in tip
                continue
            known = about[nodes[i]["feature"]]
            assert tip.startswith(f"feature {known['feature']} at position {nodes[i]['position']}, “")
            assert f"active {lengths[i][0]:.2f}, for the corrupted prompt {lengths[i][1]:.2f}" in tip
            born = known["birth"] and (
                "born between step 12 and step 18" if known["birth"]["absent"] else "since step 0"
            )
            assert (born or "when it was born is not known") in tip
            shown = [e["token"].strip(" ").replace("\n", "↵") for e in known["examples"]]
            assert page.tab.locator("#tip mark").all_inner_texts() == shown
            told.add(len(shown))
    assert told >= {0, 2, 3}
    page.tab.locator("#slider").fill("4")  # failed
    assert page.text("#splits") == "No features: the checkpoint failed." and page.count(".node.feature.on") == 0


def test_pointing_at_a_feature_lights_up_the_edges_that_carry_it(opened: Any, pages: Pages) -> None:
    page, explanation = opened("features"), pages["features"][1]
    nodes, checkpoint = explanation["nodes"], explanation["checkpoints"][-1]
    after = explanation["dictionary"]["after"]

    def below(i: int) -> bool:
        return bool(nodes[i]["kind"] == "embed" or (nodes[i]["layer"] is not None and nodes[i]["layer"] < after))

    for i, *_ in checkpoint["split"]["active"]:
        page.tab.locator(f"[data-node='{i}'] .box").hover()
        across = [e for e in checkpoint["edges"] if below(e[0]) and not below(e[1])]
        carrying = [e for e in across if nodes[e[0]]["position"] == nodes[i]["position"]]
        assert page.count(".edge.lit") == len(carrying) < len(checkpoint["edges"])
        lit = page.tab.eval_on_selector_all(".node.lit", "found => found.map(e => Number(e.dataset.node))")
        assert set(lit) == {i} | {end for e in carrying for end in e[:2]}
        assert ("none of the edges that are kept passes here" in page.text("#tip")) == (not carrying)
    page.tab.locator(f"[data-node='{i}']").focus()
    page.key("Enter")
    page.tab.mouse.move(2, 2)
    page.key("ArrowLeft")
    assert page.tab.locator("#tip").is_visible() and page.text("#tip").startswith("feature ")
    page.key("Escape")
    assert page.count(".lit") == 0
