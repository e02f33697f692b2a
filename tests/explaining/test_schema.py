"""The format refuses what contradicts it, and says what."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from checkpoints.errors import UserError
from dynamics.explaining import check_explanation
from tests.explaining import made

Change = Callable[[dict[str, Any]], object]


def last(e: dict[str, Any]) -> dict[str, Any]:
    return e["checkpoints"][-1]  # type: ignore[no-any-return]


def first(e: dict[str, Any]) -> dict[str, Any]:
    return e["checkpoints"][0]  # type: ignore[no-any-return]


def failing(e: dict[str, Any]) -> dict[str, Any]:
    return next(c for c in e["checkpoints"] if c["state"] == "failed")


def index(e: dict[str, Any], kind: str, position: int | None = None, layer: int | None = None) -> int:
    return next(
        i
        for i, n in enumerate(e["nodes"])
        if n["kind"] == kind and position in (None, n["position"]) and layer in (None, n["layer"])
    )


def ablate(e: dict[str, Any], *names: str) -> dict[str, Any]:
    """With ablations at the last checkpoint, which is returned."""
    e.update(format=3, ablation={"factor": None, "names": list(names)})
    for c in e["checkpoints"]:
        c["ablated"] = []
    last(e)["ablated"] = [[i, -0.5, 0.25, 0.5, "<b>&", 0.5] for i in range(len(names))]
    return last(e)


@pytest.mark.parametrize("size", [made.organism_sized, made.pythia_sized, made.hostile, made.with_features])
def test_what_is_made_follows_the_format_also_through_json(size: Callable[[], dict[str, Any]]) -> None:
    value = size()
    checked = check_explanation(value)
    assert check_explanation(json.loads(json.dumps(value))) == checked
    assert check_explanation(json.loads(checked.model_dump_json())) == checked if size is not made.hostile else True
    assert {c.state for c in checked.checkpoints} == {"explained", "not measurable", "not reached", "failed"}


def test_ablations_follow_the_format_with_and_without_features() -> None:
    for value in (made.organism_sized(), made.with_features()):
        ablate(value, "L0H0+L0M", value["nodes"][0]["id"])
        assert check_explanation(json.loads(json.dumps(value))).format == 3


def edge(e: dict[str, Any], source: int, target: int, port: str) -> None:
    c = last(e)
    c["nodes"] = [[i, 0.5] for i in range(len(e["nodes"]))]
    c["edges"] = [[source, target, port, 0.5]]
    c["edges_kept"] = 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda e: e.update(format=5), "format: Input should be 1, 2, 3 or 4"),
        (lambda e: e.update(format=3), "format 3 has ablations"),
        (lambda e: e.update(ablation={"factor": None, "names": []}), "format 1 has no ablations"),
        (lambda e: ablate(e, "L0H0").pop("ablated"), "not said of the whole and of every checkpoint alike"),
        (lambda e: ablate(e, "L0H0").update(ablated=[[1, *[None] * 5]]), r"ablations \[1\] of 1"),
        (lambda e: ablate(e, "L0H0")["ablated"].append([0, *[None] * 5]), r"ablations \[0, 0\] of 1"),
        (lambda e: ablate(e, "L0H0")["ablated"][0].__setitem__(2, 1.5), "less than or equal to 1"),
        (lambda e: (ablate(e, "L0H0"), failing(e).update(ablated=[[0, *[None] * 5]])), "failed has no ablations"),
        (lambda e: e.update(format=2), "format 2 has a dictionary"),
        (lambda e: e.update(kind="report"), "kind: Input should be"),
        (lambda e: e.update(extra=1), "extra: Extra inputs are not permitted"),
        (lambda e: e.pop("metric"), "metric: Field required"),
        (lambda e: e.update(share=80), "share: Input should be less than or equal to 1"),
        (lambda e: e.update(checkpoints=[]), "at least one token and one checkpoint"),
        (lambda e: e["checkpoints"].reverse(), "steps do not ascend"),
        (lambda e: last(e).update(logit_difference=float("nan")), "finite number"),
        (lambda e: last(e).update(answer_probability=1.5), "less than or equal to 1"),
        (lambda e: last(e).update(step="9999"), "step: Input should be a valid integer"),
        (lambda e: last(e).update(faithfulness=None), "'explained' needs its faithfulness"),
        (lambda e: last(e).update(state="not reached"), "'not reached' needs a reason"),
        (lambda e: last(e).update(state="not measurable", reason="noise"), "has neither nodes nor edges"),
        (lambda e: first(e).update(state="failed"), "a checkpoint that failed has no numbers"),
        (lambda e: last(e).update(edges_kept=1), "edges_kept is 1, edges are"),
        (lambda e: last(e)["edges"].append(last(e)["edges"][0]) or last(e).update(edges_kept=len(last(e)["edges"])), "an edge is listed twice"),
        (lambda e: last(e)["nodes"].append(last(e)["nodes"][0]), "a node is listed twice"),
        (lambda e: last(e)["nodes"].append([len(e["nodes"]), 0.1]), r"node \d+ of \d+"),
        (lambda e: last(e)["nodes"].pop(0), "an end that is not among the nodes"),
        (lambda e: last(e)["lens"]["top"].pop(), "the lens is not 4 layers x 7 positions"),
        (lambda e: last(e)["lens"]["answer"][0].pop(), "the lens is not 4 layers x 7 positions"),
        (lambda e: e["nodes"][0].update(id=e["nodes"][1]["id"]), "nodes named twice: "),
        (lambda e: e["nodes"][0].update(position=7), "is at position 7 of 7"),
        (lambda e: e["nodes"][index(e, "head")].update(head=4), "is outside of 4 layers of 4 heads"),
        (lambda e: e["nodes"][index(e, "head")].update(layer=4), "is outside of 4 layers of 4 heads"),
        (lambda e: e["nodes"][index(e, "head")].update(head=None), "a head has a layer and a head"),
        (lambda e: e["nodes"][index(e, "embed")].update(layer=0), "a embed has no layer and no head"),
        (lambda e: edge(e, index(e, "logits"), index(e, "head", 6), "v"), "does not point upward"),
        (lambda e: edge(e, index(e, "head", 6, 1), index(e, "head", 6, 0), "v"), "does not point upward"),
        (lambda e: edge(e, index(e, "head", 6, 0), index(e, "mlp", 6, 0), "in"), "does not point upward"),
        (lambda e: edge(e, index(e, "embed", 6), index(e, "head", 6), "in"), "enters L.H.@6 at 'in'"),
        (lambda e: edge(e, index(e, "embed", 6), index(e, "mlp", 6), "k"), "enters MLP.@6 at 'k'"),
        (lambda e: edge(e, index(e, "embed", 0), index(e, "head", 6), "q"), r"\(q\) crosses positions"),
        (lambda e: edge(e, index(e, "embed", 0), index(e, "mlp", 6), "in"), r"\(in\) crosses positions"),
    ],
)  # fmt: skip
def test_contradictions_are_refused(change: Change, words: str) -> None:
    value = made.organism_sized()
    change(value)
    with pytest.raises(UserError, match=words) as caught:
        check_explanation(value)
    assert caught.value.expected == "format 1 or 2 or 3 or 4, as in docs/explain-format.md"


def feature(e: dict[str, Any]) -> int:
    """The first feature that the last checkpoint shows."""
    return int(last(e)["split"]["active"][0][0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda e: e.update(format=1), "format 1 has no dictionary"),
        (lambda e: e.pop("dictionary"), "format 2 has a dictionary"),
        (lambda e: (e.pop("dictionary"), e.update(format=1)), "features of no dictionary"),
        (lambda e: e["dictionary"].update(after=5), "after 5 of 4 layers"),
        (lambda e: e["dictionary"].update(site="mlp_out"), "dictionary.site: Input should be"),
        (lambda e: e["dictionary"]["features"].pop(), "is not of those shown"),
        (lambda e: e["dictionary"].update(size=3), "is not of those shown"),
        (lambda e: e["dictionary"]["features"].append(e["dictionary"]["features"][0]), "is not of those shown"),
        (lambda e: e["nodes"][feature(e)].update(feature=None), "if and only if it is one"),
        (lambda e: e["nodes"][0].update(feature=3), "if and only if it is one"),
        (lambda e: e["nodes"][feature(e)].update(layer=2), "a feature has no layer and no head"),
        (lambda e: last(e).pop("split"), "does not say how the dictionary splits it"),
        (lambda e: last(e)["split"].update(error=9.0), "and error .* are not .* together"),
        (lambda e: last(e)["split"].update(total=None), "has a reason and no features"),
        (lambda e: last(e)["split"].update(shown=1.2), "less than or equal to 1"),
        (lambda e: last(e)["split"]["active"].pop(), "active features are not those among the nodes"),
        (lambda e: edge(e, index(e, "embed"), feature(e), "in"), "has a feature at its end"),
    ],
)
def test_contradictions_about_features_are_refused(change: Change, words: str) -> None:
    value = made.with_features()
    change(value)
    if words == "has a feature at its end":
        last(value)["split"]["active"] = [[i, 1.0, 0.0] for i, n in enumerate(value["nodes"]) if n["kind"] == "feature"]
    with pytest.raises(UserError, match=words):
        check_explanation(value)


def test_within_a_layer_a_head_may_feed_the_mlp_of_a_model_that_is_not_parallel() -> None:
    value = made.organism_sized(parallel=False)
    edge(value, index(value, "head", 6, 0), index(value, "mlp", 6, 0), "in")
    assert check_explanation(value).checkpoints[-1].edges_kept == 1
    value["parallel"] = True
    with pytest.raises(UserError, match="does not point upward"):
        check_explanation(value)


def test_many_contradictions_are_counted() -> None:
    value = made.organism_sized()
    for checkpoint in value["checkpoints"]:
        checkpoint["step"] = "soon"
    with pytest.raises(UserError, match=r"checkpoints\.0\.step: .*\(and 37 more\)"):
        check_explanation(value)
