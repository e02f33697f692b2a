"""Made-up explanations of any size that look like real ones: circuits that grow backwards from the logits."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from functools import cache
from typing import Any

SUM = ("4", " 6", " +", " 3", " 9", " =", " 8")
PLACES = (
    "The", " E", "iff", "el", " Tower", " is", " in", " the", " city", " of", " Paris", ",", " and", " the", " Col",
    "os", "seum", " is", " in", " the", " city", " of", " Rome", ",", " while", " the", " Brand", "enburg", " Gate",
    " stands", " in", " the", " city", " of",
)  # fmt: skip
WORDS = (" Berlin", " the", " Paris", " Rome", " a", ",", " and", " Germany", " city", " London", "\n", " 7", " of")
DIGITS = (" 5", " 6", " 4", " 15", " 0", " +", " =", " 9", "\n")
HOSTILE = (
    "<script>alert(1)</script>", "</script>", "<!--", "\u202egnp.exe", "\u2028", " & \"'", "\x00", "日本語の長いトークン",
    "{{ 7 * 7 }}", "\ud800", "&lt;b&gt;",
)  # fmt: skip

Edge = tuple[str, str, str]


def explanation(
    tokens: Sequence[str] = SUM,
    *,
    layers: int = 4,
    heads: int = 4,
    checkpoints: int = 40,
    edges: int = 90,
    parallel: bool = True,
    last_step: int = 1400,
    words: Sequence[str] = WORDS,
    seed: int = 0,
) -> dict[str, Any]:
    """An explanation as JSON would hold it. Its first checkpoints are not measurable, the fifth failed.

    Args:
        edges: kept at the end of training; fewer before.
        words: what the lens and the most probable tokens say.
    """
    rng = random.Random(seed)
    nodes, found = circuit(rng, len(tokens), layers, heads, edges, parallel)
    steps = [0, *sorted({round(last_step ** (i / (checkpoints - 2))) + i for i in range(checkpoints - 1)})]
    forms = {edge: rng.uniform(0.45, 0.8) for edge in found}
    final = {edge: rng.choice((1, 1, 1, -1)) * rng.expovariate(3.0) for edge in found}
    made = [
        one(rng, place / (checkpoints - 1), step, tokens, layers, nodes, found, forms, final, words)
        for place, step in enumerate(steps)
    ]
    if checkpoints > 5:
        made[4] = failed(steps[4])
    used = sorted({i for c in made for i, _ in c["nodes"]})
    renumber = {old: new for new, old in enumerate(used)}
    for c in made:
        c["nodes"] = [[renumber[i], score] for i, score in c["nodes"]]
        c["edges"] = [[renumber[s], renumber[t], port, score] for s, t, port, score in c["edges"]]
    return {
        "format": 1,
        "kind": "circuit-dynamics-explanation",
        "run": "made",
        "prompt": "".join(tokens),
        "tokens": list(tokens),
        "answer": {"text": words[0], "id": 12},
        "foil": {"text": words[1], "id": 13},
        "guessed": ["answer", "foil"],
        "corrupted": {
            "how": "random tokens",
            "texts": ["".join(rng.choice(words) for _ in tokens) for _ in range(3)],
            "note": "Every token but the last was drawn at random, three times.",
        },
        "metric": "logit(answer) - logit(foil)",
        "share": 0.8,
        "layers": layers,
        "heads": heads,
        "parallel": parallel,
        "step_counts": "optimizer steps",
        "nodes": [nodes[i] for i in used],
        "checkpoints": made,
    }


def circuit(
    rng: random.Random, positions: int, layers: int, heads: int, count: int, parallel: bool
) -> tuple[list[dict[str, Any]], list[tuple[int, int, str]]]:
    """Nodes, and edges (source, target, port) that all lead to the logits of the last position."""
    nodes: list[dict[str, Any]] = []
    numbers: dict[tuple[str, int | None, int | None, int], int] = {}

    def number(kind: str, layer: int | None, head: int | None, position: int) -> int:
        key = (kind, layer, head, position)
        if key not in numbers:
            numbers[key] = len(nodes)
            name = {"embed": "embed", "logits": "logits", "mlp": f"MLP{layer}", "head": f"L{layer}H{head}"}[kind]
            nodes.append({"id": f"{name}@{position}", "kind": kind, "layer": layer, "head": head, "position": position})
        return numbers[key]

    targets = [number("logits", None, None, positions - 1)]
    telling = [0, positions - 1, *rng.sample(range(positions), min(positions, 5))]
    edges: dict[tuple[int, int, str], None] = {}
    while len(edges) < count:
        target = targets[min(int(rng.expovariate(0.12)), len(targets) - 1)]
        node = nodes[target]
        port = rng.choice("qkvv") if node["kind"] == "head" else "in"
        position = node["position"]
        if port in ("k", "v"):
            position = rng.choice([p for p in telling if p <= position] or [position])
        below = layers if node["layer"] is None else node["layer"]
        serial = not parallel and node["kind"] == "mlp"
        kind = rng.choice(("head", "head", "head", "mlp", "embed"))
        if (kind == "embed" and node["layer"] in (None, layers - 1)) or (not below and not (serial and kind == "head")):
            kind = "embed"
        if kind == "embed":
            source = number("embed", None, None, position)
        else:
            top = below + 1 if serial and kind == "head" else below
            layer = max(0, top - 1 - int(rng.expovariate(0.4)))
            head = min(rng.randrange(heads), rng.randrange(heads)) if kind == "head" else None
            again = [i for i in targets if (nodes[i]["kind"], nodes[i]["layer"], nodes[i]["position"]) == (kind, layer, position)]  # fmt: skip
            # What is there already is used again more often than not, as in real circuits.
            source = rng.choice(again) if again and rng.random() < 0.7 else number(kind, layer, head, position)
        if nodes[source]["kind"] != "embed" and source not in targets:
            targets.append(source)
        edges[source, target, port] = None
    return nodes, list(edges)


def one(
    rng: random.Random,
    time: float,
    step: int,
    tokens: Sequence[str],
    layers: int,
    nodes: list[dict[str, Any]],
    edges: list[tuple[int, int, str]],
    forms: dict[tuple[int, int, str], float],
    final: dict[tuple[int, int, str], float],
    words: Sequence[str],
) -> dict[str, Any]:
    """One checkpoint, ``time`` of the way (0 to 1) through the series."""
    grown = 1 / (1 + math.exp(-14 * (time - 0.62)))
    scores = {e: final[e] / (1 + math.exp(-18 * (time - forms[e]))) * rng.uniform(0.85, 1.15) for e in edges}
    kept = [[*e, score] for e, score in scores.items() if abs(score) > 0.012]
    answer = 0.002 + 0.93 * grown
    state, reason = "explained", ""
    if time < 0.28:
        state, kept = "not measurable", []
        reason = "the logit difference of 0.03 is within the noise of the corrupted prompts, 0.11."
    elif time < 0.34:
        state, reason = "not reached", "all edges at hand bring back 61% of the logit difference, not 80%."
    at = sorted({i for s, t, *_ in kept for i in (s, t)})
    totals = {i: sum(e[3] for e in kept if e[0] == i) for i in at}
    rest = [round((1 - answer) * share, 4) for share in (0.4, 0.2, 0.1, 0.05)]
    top = sorted(zip(words, [answer, *rest], strict=False), key=lambda pair: -pair[1])

    def cell(layer: int) -> list[Any]:
        return [rng.choice(words), round(rng.betavariate(1 + 4 * grown * (layer + 1) / layers, 2), 4)]

    return {
        "step": step,
        "tokens": step * 2048,
        "stage": "",
        "label": f"step{step}",
        "state": state,
        "reason": reason,
        "answer_probability": answer,
        "foil_probability": rest[0],
        "answer_rank": round(60 * (1 - grown) ** 4),
        "top": [{"text": text, "probability": p} for text, p in top],
        "logit_difference": 5 * grown - 0.2,
        "corrupted_difference": -0.1,
        "faithfulness": {"explained": 0.8 + 0.05 * rng.random(), "not reached": 0.61}.get(state),
        "edges_kept": len(kept),
        "edges_total": 40 * len(edges),
        "nodes": [[i, totals[i]] for i in at],
        "edges": kept,
        "lens": {
            "top": [[cell(layer) for _ in tokens] for layer in range(layers)],
            "answer": [
                [round(answer * rng.random() * (layer + 1) / layers, 4) for _ in tokens] for layer in range(layers)
            ],
        },
    }


def failed(step: int) -> dict[str, Any]:
    """A checkpoint that could not be loaded."""
    numbers = ("answer_probability", "foil_probability", "answer_rank", "logit_difference", "corrupted_difference")
    return {
        **dict.fromkeys((*numbers, "faithfulness", "edges_kept", "edges_total", "lens", "tokens")),
        "step": step,
        "stage": "",
        "label": f"step{step}",
        "state": "failed",
        "reason": "model.safetensors is cut short.",
        "top": [],
        "nodes": [],
        "edges": [],
    }


def organism_sized(**changes: Any) -> dict[str, Any]:
    """Four layers, seven tokens, forty checkpoints."""
    return explanation(**{"words": DIGITS, **changes})


def pythia_sized(**changes: Any) -> dict[str, Any]:
    """Twenty-four layers, thirty-four tokens, 150 checkpoints, 600 edges."""
    return json.loads(_pythia_sized(**changes))  # type: ignore[no-any-return]


@cache
def _pythia_sized(**changes: Any) -> str:
    """As text, because everybody gets their own."""
    sizes = {"layers": 24, "heads": 16, "checkpoints": 150, "edges": 600, "last_step": 143_000, **changes}
    return json.dumps(explanation(PLACES, **sizes))


def hostile(**changes: Any) -> dict[str, Any]:
    """Every text is one that a page could trip over."""
    made = explanation(HOSTILE, words=HOSTILE, checkpoints=8, edges=30, **changes)
    made["prompt"] = "".join(HOSTILE)
    made["run"] = "<script>alert(1)</script>"
    made["metric"] = made["corrupted"]["note"] = made["step_counts"] = "</script><img src=x onerror=alert(1)>"
    made["corrupted"]["texts"] = list(HOSTILE)
    for checkpoint in made["checkpoints"]:
        checkpoint["stage"] = checkpoint["label"] = "</script><b>"
        checkpoint["reason"] = checkpoint["reason"] and "<script>alert(1)</script>\u2029"
    return made


def long_words() -> dict[str, Any]:
    """Every text is a word that is longer than a line."""
    made, word = organism_sized(), "w" * 90
    made["prompt"] = made["run"] = made["metric"] = made["corrupted"]["note"] = made["answer"]["text"] = word
    made["foil"]["text"] = f"{word}y"
    for checkpoint in made["checkpoints"]:
        checkpoint["stage"] = checkpoint["label"] = word
        for token in checkpoint["top"]:
            token["text"] = word
    return made


def with_features(
    made: dict[str, Any] | None = None, *, texts: Sequence[str] = WORDS, after: int = 3
) -> dict[str, Any]:
    """An explanation with the features of a made-up dictionary of 600, between the last two of four layers."""
    made = organism_sized() if made is None else made
    rng = random.Random(1)
    positions = len(made["tokens"])
    numbers = rng.sample(range(600), 14)
    places: list[tuple[int, int | None]] = [(rng.choice((2, positions - 1)), n) for n in numbers]
    places += [(positions - 1, None), (2, None)]
    first = len(made["nodes"])
    for position, number in places:
        node = {"id": f"error@{position}", "kind": "error", "layer": None, "head": None, "position": position}
        if number is not None:
            node |= {"id": f"F{number}@{position}", "kind": "feature", "feature": number}
        made["nodes"].append(node)
    for checkpoint in made["checkpoints"]:
        if checkpoint["state"] in ("failed", "not measurable"):
            checkpoint["split"] = dict.fromkeys(("total", "features", "error", "differ", "shown"))
            checkpoint["split"] |= {"active": [], "reason": "the checkpoint failed"}
            continue
        shown = sorted(rng.sample(range(len(numbers)), 10))
        scores = {first + i: rng.gauss(0, 0.5) for i in [*shown, len(numbers), len(numbers) + 1]}
        checkpoint["nodes"] += [[i, score] for i, score in scores.items()]
        features, error = rng.gauss(2, 0.5), rng.gauss(0, 0.2)
        checkpoint["split"] = {
            "total": features + error,
            "features": features,
            "error": error,
            "differ": 57,
            "shown": 0.83,
            "active": [[first + i, rng.expovariate(1.0), rng.choice((0.0, 0.3))] for i in shown],
            "reason": "",
        }
    births = ({"absent": None, "present": 0}, {"absent": 12, "present": 18}, None)
    made["format"] = 2
    made["dictionary"] = {
        "name": "main" if texts is WORDS else texts[0],
        "method": "a crosscoder",
        "site": "resid_post",
        "layer": after - 1,
        "after": after,
        "joint": True,
        "size": 600,
        "note": "The dictionary covers all 40 checkpoints that the trace holds." if texts is WORDS else texts[0],
        "features": [
            {
                "feature": number,
                "birth": births[i % 3],
                "examples": [
                    {
                        "before": rng.choice(texts),
                        "token": rng.choice(texts),
                        "after": rng.choice(texts),
                        "activation": 2.5,
                    }
                    for _ in range(i % 4)
                ],
            }
            for i, number in enumerate(numbers)
        ],
    }
    return made


def hostile_features() -> dict[str, Any]:
    """Features that fire on what a page could trip over."""
    return with_features(hostile(), texts=HOSTILE)
