"""Where the strongest attention comes from: held against a circuit that is known, and what the format refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from checkpoints import UserError
from dynamics.explaining import check_explanation, explain, explanation_page
from dynamics.explaining.attention import MOST, strongest_attention
from dynamics.explaining.flow import Edge, Flow
from dynamics.explaining.printing import print_explained
from tests.circuits.handmade import Toy, induction_toy
from tests.explaining.toys import PROMPT, TWIN, toy_run, wired_toy


def explained(folder: Path, **options: Any) -> Any:
    run = toy_run(folder, {0: Toy(2), 30: induction_toy()})
    given = {"run": run, "corrupted": TWIN, "answer": "d", "foil": "e", "traces": folder, "reports": folder / "out"}
    return explain("toys", PROMPT, attention=True, **given, **options)


def test_the_attention_of_a_known_circuit_comes_from_what_was_put_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = explained(tmp_path, ablate=["drawn"])
    content = json.loads((done.folder / "explanation.json").read_text())
    check_explanation(content)
    assert content["format"] == 4
    before, last = ({(a["head"], a["token"]): a for a in c["attention"]} for c in content["checkpoints"])
    assert set(before) == set(last) and {("L0H1@3", 2), ("L1H0@6", 3)} <= set(last)
    for place, pair in ((("L0H1@3", 2), ["embed", "embed"]), (("L1H0@6", 3), ["embed", "L0H1"])):
        look = last[place]
        assert look["weight"] > 0.99 and look["parts"][0][:2] == pair
        assert [look["queries"][0][0], look["keys"][0][0]] == pair
        assert look["parts"][0][2] == pytest.approx(look["score"], rel=1e-3) and abs(look["rest"]) < 0.01
        untrained = before[place]
        assert untrained["weight"] == pytest.approx(1 / (1 + int(place[0][-1]))) and untrained["parts"] == []
    assert last["L1H0@6", 3]["corrupted"] < 0.5  # the twin has no earlier c, so that the head looks elsewhere
    page = (done.folder / "index.html").read_text()
    assert "Where the strongest attention comes from" in page and '"L1H0@6"' in page
    print_explained(done)
    said = " ".join(capsys.readouterr().out.split())
    assert "L1H0@6 to 3" in said
    assert "keys of L0H1 +34.3; queries of embed +34.3" in said


def test_a_model_that_does_not_say_where_it_looks_is_refused(tmp_path: Path) -> None:
    run = toy_run(tmp_path, {0: Toy(2)}, "BLIND")
    with pytest.raises(UserError, match="where its heads look"):
        explain("toys", PROMPT, run=run, attention=True, traces=tmp_path)


def test_the_strongest_attention_is_that_of_the_largest_edges_into_keys_and_values() -> None:
    graph = wired_toy().graph
    logits = len(graph.sources)
    edges = [
        Edge((0, 2), (4, 3), "k", -0.5),
        Edge((1, 2), (4, 3), "v", 0.75),
        Edge((0, 3), (4, 3), "q", 9.0),
        Edge((4, 3), (logits, 3), "in", 9.0),
        *(Edge((0, token), (5, 3), "v", 0.1 * token) for token in range(4)),
    ]
    flow = Flow(tuple(edges), {end: 0.0 for e in edges for end in (e.source, e.target)}, 99, 0.9, True, 0.9)
    found = strongest_attention(flow, graph)
    assert found[:3] == [(4, 3, 2), (5, 3, 3), (5, 3, 2)] and len(found) == 5 <= MOST


def test_what_contradicts_the_format_is_refused(tmp_path: Path) -> None:
    content = explained(tmp_path).content
    whole = content["checkpoints"][-1]["attention"][0]
    for wrong in (
        {"head": "L9H0@3"},
        {"head": "embed@3"},
        {"token": 6, "head": "L0H1@3"},
        {"weight": 1.5},
        {"more": 1},
    ):
        content["checkpoints"][-1]["attention"][0] = whole | wrong
        with pytest.raises(UserError, match="not an explanation"):
            explanation_page(content)
    content["checkpoints"][-1]["attention"] = None
    with pytest.raises(UserError, match="attention"):
        explanation_page(content)
