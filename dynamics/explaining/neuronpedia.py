"""An explanation as attribution graphs that Neuronpedia reads, one for each checkpoint.

The format is that of ``apps/webapp/app/api/graph/graph-schema.json`` in the public repository hijohnnylin/neuronpedia (version
1.0.0, MIT), which is Anthropic's: nodes with a layer (``E`` for embeddings), a position ``ctx_idx`` and a label ``clerp``, and
weighted links. Its graphs are of features; ours are of heads and MLPs, whose ``feature_type`` says so: the number of a head
stands as ``feature``, and an MLP stands after the last head. Edges into queries, keys and values of one head are one link,
whose weight is their sum.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .display import quoted
from .schema import ExplainedCheckpoint, Explanation, Node, check_explanation

__all__ = ["neuronpedia_graphs"]


def neuronpedia_graphs(explanation: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """Step to graph, of every checkpoint at which something was explained.

    Args:
        explanation: as in ``docs/explain-format.md``. Features of a dictionary have no edges in it, and are left out.

    Raises:
        UserError: when ``explanation`` does not follow the format.
    """
    e = check_explanation(explanation)
    return {c.step: _graph(e, c) for c in e.checkpoints if c.edges}


def _graph(e: Explanation, c: ExplainedCheckpoint) -> dict[str, Any]:
    links: dict[tuple[str, str], dict[str, Any]] = {}
    for source, target, port, score in c.edges:
        ends = _id(e, e.nodes[source]), _id(e, e.nodes[target])
        link = links.setdefault(ends, {"source": ends[0], "target": ends[1], "weight": 0.0, "ports": {}})
        link["weight"] += score or 0.0
        link["ports"][port] = score
    answer, foil = quoted(e.answer.text), quoted(e.foil.text)
    reached = "" if c.faithfulness is None else f" With all other edges ablated, {c.faithfulness:.0%} of it remains."
    return {
        "metadata": {
            "slug": _slug(f"{e.run}-{e.prompt[:40]}-step{c.step}"),
            "scan": e.run,
            "prompt": e.prompt,
            "prompt_tokens": list(e.tokens),
            "info": {
                "description": (
                    f"Step {c.step} of the training of {e.run}. Weights are attributions in logits of {answer} over {foil}, "
                    f"compared with: {e.corrupted.note}{reached}"
                ),
                "generator": {"name": "circuit-dynamics"},
            },
            "pruning_settings": {"share": e.share},
        },
        "qParams": {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""},
        "nodes": [_node(e, e.nodes[i], score, c) for i, score in c.nodes if not e.nodes[i].in_dictionary],
        "links": list(links.values()),
    }


def _node(e: Explanation, node: Node, score: float | None, c: ExplainedCheckpoint) -> dict[str, Any]:
    kinds = {"embed": "embedding", "logits": "logit", "head": "attention head", "mlp": "MLP"}
    labels = {
        "embed": f"Emb: {quoted(e.tokens[node.position])}",
        "logits": f"Output {quoted(e.answer.text)} over {quoted(e.foil.text)}",
        "head": f"head {node.head} of layer {node.layer}",
        "mlp": f"MLP of layer {node.layer}",
    }
    value: dict[str, Any] = {
        "node_id": _id(e, node),
        "feature": _number(e, node),
        "layer": _layer(e, node),
        "ctx_idx": node.position,
        "feature_type": kinds[node.kind],
        "jsNodeId": f"{_layer(e, node)}_{_number(e, node)}-{node.position}",
        "clerp": labels[node.kind],
        "influence": None,
        "activation": None,
        "attribution": score,
        "name": node.id,
    }
    if node.kind == "logits":
        value |= {"is_target_logit": True, "token_prob": c.answer_probability}
    return value


def _id(e: Explanation, node: Node) -> str:
    return f"{_layer(e, node)}_{_number(e, node)}_{node.position}"


def _layer(e: Explanation, node: Node) -> str:
    return {"embed": "E", "logits": str(e.layers + 1)}.get(node.kind, str(node.layer))


def _number(e: Explanation, node: Node) -> int:
    """Which part of its layer a node is."""
    if node.kind == "embed":
        return node.position
    if node.kind == "logits":
        return e.answer.id
    return e.heads if node.head is None else node.head


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
