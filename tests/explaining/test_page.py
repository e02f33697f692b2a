"""The page as text, and the figure: self-contained, inert, well-formed, complete."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from checkpoints.errors import UserError
from dynamics.explaining import check_explanation, explanation_page, explanation_svg
from dynamics.explaining.drawing import draw
from dynamics.explaining.page import _SCRIPTS
from tests.explaining import made

SVG = "{http://www.w3.org/2000/svg}"


class Elements(HTMLParser):
    """All elements with attributes, and the text inside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.inside.setdefault(tag, []).append("")

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] in ("script", "style") and self.cdata_elem == self.found[-1][0]:
            self.inside[self.found[-1][0]][-1] += data


@pytest.fixture(scope="module", params=[made.hostile, made.hostile_features])
def hostile(request: pytest.FixtureRequest) -> tuple[dict[str, Any], str, Elements]:
    explanation = request.param()
    page = explanation_page(explanation)
    return explanation, page, Elements(page)


def test_the_policy_allows_the_pages_own_script_and_style_and_nothing_else(hostile: Any) -> None:
    _, _, elements = hostile
    policies = [a["content"] for tag, a in elements.found if tag == "meta" and "http-equiv" in a]
    data, script = elements.inside["script"]
    (style,) = elements.inside["style"]
    assert json.loads(data)["checkpoints"]

    def allowed(text: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    assert policies == [
        f"default-src 'none'; img-src data:; style-src {allowed(style)}; script-src {allowed(script)}; "
        "base-uri 'none'; form-action 'none'"
    ]


def test_nothing_is_loaded_and_no_markup_carries_code_or_style(hostile: Any) -> None:
    _, page, elements = hostile
    for tag, attributes in elements.found:
        assert "src" not in attributes and "srcset" not in attributes and "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("href", "data:,") == "data:,"
        assert tag not in ("img", "iframe", "object", "embed", "b")
    assert "url(" not in page and "@import" not in page
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", page)


def test_the_script_writes_text_only() -> None:
    folder = Path(__file__).parents[2] / "dynamics/explaining/templates"
    files = sorted(folder.glob("*.js"))
    assert {file.name for file in files} == set(_SCRIPTS)
    for file in files:
        code = file.read_text(encoding="utf-8")
        for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "fetch("):
            assert way not in code
        assert len(code.splitlines()) < 500 and "</script" not in code


def test_hostile_texts_are_escaped_in_the_markup_and_in_the_data(hostile: Any) -> None:
    _, page, elements = hostile
    assert [tag for tag, _ in elements.found].count("script") == 2
    assert "<script>alert" not in page and "{{ 7 * 7 }}" in page and "49" not in elements.inside["script"][0][:200]
    raw = elements.inside["script"][0]
    assert not set("<>&\u2028\u2029") & set(raw)
    assert any("</script>" in text for text in json.loads(raw)["vocabulary"])
    page.encode("utf-8")  # half characters would not pass
    for hidden in ("\u202e", "\u2028", "\x00"):
        assert hidden not in page


def test_the_same_explanation_gives_the_same_page() -> None:
    assert explanation_page(made.organism_sized()) == explanation_page(made.organism_sized())


def test_a_page_of_the_largest_size_stays_small() -> None:
    assert len(explanation_page(made.pythia_sized()).encode()) < 5_000_000


def test_what_is_no_explanation_is_refused() -> None:
    with pytest.raises(UserError, match="this is not an explanation: format: Field required"):
        explanation_page({})
    with pytest.raises(UserError, match="this is not an explanation"):
        explanation_svg({}, 0)
    with pytest.raises(UserError, match="there is no checkpoint number 40") as caught:
        explanation_svg(made.organism_sized(), 40)
    assert caught.value.expected == "a number from 0 to 39"


def nothing_explained() -> dict[str, Any]:
    """No checkpoint keeps an edge, one has no number at all."""
    explanation = made.organism_sized()
    explanation["checkpoints"] = explanation["checkpoints"][:5]
    explanation["nodes"] = []
    return explanation


def test_a_series_in_which_nothing_was_found_has_a_page_and_figures_that_say_so() -> None:
    page = explanation_page(nothing_explained())
    assert "Not measurable: the logit difference of 0.03" in page and "Failed: model.safetensors is cut short." in page
    figure = ElementTree.fromstring(explanation_svg(nothing_explained(), 0))
    assert "Not measurable: the logit difference of 0.03" in " ".join(t.text or "" for t in figure.iter(f"{SVG}text"))
    assert not figure.findall(f".//{SVG}g[@class='edges']/{SVG}path")


@pytest.mark.parametrize("size", [made.organism_sized, made.pythia_sized, made.hostile, made.with_features])
def test_a_figure_draws_every_kept_edge_and_node(size: Any) -> None:
    explanation = size()
    drawing = draw(check_explanation(explanation))
    for place in (0, len(explanation["checkpoints"]) // 2, len(explanation["checkpoints"]) - 1):
        checkpoint = explanation["checkpoints"][place]
        text = explanation_svg(explanation, place)
        text.encode("utf-8")
        figure = ElementTree.fromstring(text)
        lines = figure.findall(f".//{SVG}g[@class='edges']/{SVG}path")
        assert len(lines) == len(checkpoint["edges"])
        paths = {(e.source, e.target, e.port): e.curve.path for e in drawing.edges}
        assert {line.get("d") for line in lines} == {paths[s, t, p] for s, t, p, _ in checkpoint["edges"]}
        minus = [line for line in lines if line.get("class") == "line minus"]
        assert len(minus) == sum(score < 0 for *_, score in checkpoint["edges"])
        names = {t.text for t in figure.iterfind(f".//{SVG}g[@class='nodes']//{SVG}title")}
        assert len(names) == len(checkpoint["nodes"])


def test_a_figure_tells_the_sign_without_colour_and_says_what_it_shows() -> None:
    explanation = made.organism_sized()
    text = explanation_svg(explanation, -1)
    figure = ElementTree.fromstring(text)
    assert "stroke-dasharray" in text.partition(".line.minus")[2].partition("}")[0]
    assert "stroke-dasharray" not in text.partition(".line.plus")[2].partition("}")[0]
    written = [t.text or "" for t in figure.iter(f"{SVG}text")]
    labels = [t.text or "" for t in figure.findall(f".//{SVG}g[@class='labels']/{SVG}text")]
    assert len(labels) >= 10 and all(label[0] in "+−" for label in labels)
    caption = " ".join(written)
    last = explanation["checkpoints"][-1]
    assert f"made, step {last['step']:,}, " in caption
    assert f"{len(last['edges'])} of 3,600 edges carry the answer" in caption
    assert f"{round(100 * last['faithfulness'])}%" in caption
    assert "Every token but the last was drawn at random" in caption
    assert [t for t in ("4", "␣6", "␣+", "␣=") if t not in written] == []


def test_widths_are_proportional_on_one_scale_for_all_checkpoints() -> None:
    explanation = made.organism_sized()
    strongest = max(abs(e[3]) for c in explanation["checkpoints"] for e in c["edges"])
    for place in (-1, 20):
        figure = ElementTree.fromstring(explanation_svg(explanation, place))
        lines = figure.findall(f".//{SVG}g[@class='edges']/{SVG}path")
        scores = sorted(abs(e[3]) for e in explanation["checkpoints"][place]["edges"])
        widths = sorted(float(line.get("stroke-width") or 0) for line in lines)
        assert widths == pytest.approx([0.7 + 5.3 * score / strongest for score in scores], abs=0.01)


def test_a_figure_cannot_be_broken_out_of() -> None:
    explanation = made.hostile()
    text = explanation_svg(explanation, -1)
    figure = ElementTree.fromstring(text)
    assert not list(figure.iter(f"{SVG}script")) and "<script>" not in text
    assert "What <script>alert(1)</script> computed at step" in (figure.findtext(f"{SVG}title") or "")


def test_a_figure_draws_features_with_their_numbers() -> None:
    explanation = made.with_features()
    figure = ElementTree.fromstring(explanation_svg(explanation, -1))
    last = explanation["checkpoints"][-1]
    for kind in ("feature", "error"):
        boxes = figure.findall(f".//{SVG}g[@class='nodes']/{SVG}g")
        drawn = [
            [t.text for t in box.findall(f"{SVG}text")] for box in boxes if (box.get("class") or "").startswith(kind, 5)
        ]
        wanted = [
            [str(explanation["nodes"][i].get("feature", "error")), f"{'−' if score < 0 else '+'}{abs(score):.2f}"]
            for i, score in last["nodes"]
            if explanation["nodes"][i]["kind"] == kind
        ]
        assert sorted(map(str, drawn)) == sorted(map(str, wanted)) and wanted
    written = " ".join(t.text or "" for t in figure.iter(f"{SVG}text"))
    assert "The stream after layer 2 passes on" in written and "features of “main”" in written


def test_pages_without_features_hold_nothing_of_them() -> None:
    page = explanation_page(made.organism_sized())
    for word in ("splits", "strip", "dictionary", "featureAt", "cut corners"):
        assert word not in page
    assert "strip" not in explanation_svg(made.organism_sized(), -1)
    with_them = explanation_page(made.with_features())
    assert "cut corners" in with_them and "One code of this dictionary" in with_them
    apart = made.with_features()
    apart["dictionary"]["joint"] = False
    assert "One code of this dictionary" not in explanation_page(apart)
