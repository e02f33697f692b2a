"""Graphs for Neuronpedia follow its schema, and say what the explanation says."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from dynamics.explaining import neuronpedia_graphs
from tests.explaining import made

TEXT, NUMBER = {"type": "string"}, {"type": "number"}
SCHEMA = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "required": ["metadata", "qParams", "nodes", "links"],
    "properties": {
        "metadata": {
            "type": "object",
            "required": ["slug", "scan", "prompt_tokens", "prompt"],
            "properties": {"slug": TEXT, "scan": TEXT, "prompt": TEXT, "prompt_tokens": {"type": "array", "items": TEXT}},
        },
        "qParams": {
            "type": "object",
            "properties": {
                "pinnedIds": {"type": "array", "items": TEXT},
                "supernodes": {"type": "array"},
                "linkType": TEXT,
                "clickedId": TEXT,
                "sg_pos": TEXT,
            },
        },
        "nodes": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["node_id", "feature", "layer", "ctx_idx", "feature_type", "jsNodeId", "clerp"],
                "properties": {
                    "node_id": TEXT,
                    "feature": {"type": ["integer", "null"]},
                    "layer": {"type": ["string", "integer"]},
                    "ctx_idx": {"type": "integer"},
                    "feature_type": TEXT,
                    "jsNodeId": TEXT,
                    "clerp": TEXT,
                    "influence": {"type": ["number", "null"]},
                    "activation": {"type": ["number", "null"]},
                },
            },
        },
        "links": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["source", "target", "weight"],
                "properties": {"source": TEXT, "target": TEXT, "weight": NUMBER},
            },
        },
    },
}  # fmt: skip
"""What graph-schema.json 1.0.0 requires (hijohnnylin/neuronpedia, apps/webapp/app/api/graph, commit b8efe84, MIT)."""


@pytest.mark.parametrize("make", [made.organism_sized, made.with_features, made.hostile])
def test_every_graph_follows_the_schema_and_has_what_was_kept(make: Any) -> None:
    explanation = make()
    graphs = neuronpedia_graphs(explanation)
    explained = [c for c in explanation["checkpoints"] if c["edges"]]
    assert list(graphs) == [c["step"] for c in explained]
    for c, graph in zip(explained, graphs.values(), strict=True):
        jsonschema.Draft7Validator(SCHEMA).validate(graph)
        ids = [node["node_id"] for node in graph["nodes"]]
        assert len(set(ids)) == len(ids)
        shown = [i for i, _ in c["nodes"] if explanation["nodes"][i]["kind"] not in ("feature", "error")]
        assert [node["name"] for node in graph["nodes"]] == [explanation["nodes"][i]["id"] for i in shown]
        assert {end for link in graph["links"] for end in (link["source"], link["target"])} <= set(ids)
        assert sum(len(link["ports"]) for link in graph["links"]) == len(c["edges"])
        total = sum(score or 0.0 for *_, score in c["edges"])
        assert sum(link["weight"] for link in graph["links"]) == pytest.approx(total)
        assert all(0 <= node["ctx_idx"] < len(explanation["tokens"]) for node in graph["nodes"])


def test_parts_stand_in_their_layers() -> None:
    explanation = made.organism_sized()
    graph = list(neuronpedia_graphs(explanation).values())[-1]
    found = {(node["layer"], node["feature_type"]) for node in graph["nodes"]}
    assert ("E", "embedding") in found and (str(explanation["layers"] + 1), "logit") in found
    assert {layer for layer, kind in found if kind in ("attention head", "MLP")} <= set("0123")
    pairs = {(link["source"], link["target"]) for link in graph["links"]}
    assert len(pairs) == len(graph["links"])
