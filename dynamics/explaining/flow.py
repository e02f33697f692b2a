"""The flowchart of one prompt at one checkpoint: which parts passed what to whom, at which positions.

Nodes are sources at positions (a head at the position where it writes). Edges are attributed by EAP-IG (see
:mod:`dynamics.circuits.attribution`), keys and values apart by the position at which the head acts. The strongest are
kept, as few as reach the stated share of the logit difference when **all** other edges are cut: the share is measured by
ablation, never estimated. Cutting is per source, reader and token: the input of a head's keys at a token is one, for all
positions that look there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from ..circuits.attribution import attribute
from ..circuits.graph import Graph
from ..circuits.wired import Metric, Wired

__all__ = ["Edge", "Flow", "Place", "find_flow"]

Place = tuple[int, int]
"""Index of a source (the number of sources for the logits), and token position."""

MOST = 300
"""Edges that a flowchart shows at most."""

_STEPS = 5


@dataclass(frozen=True)
class Edge:
    """From what wrote to what read, with the port and the attribution in logits."""

    source: Place
    target: Place
    port: str
    score: float


@dataclass(frozen=True)
class Flow:
    """What is kept.

    Attributes:
        edges: strongest first.
        nodes: total attribution of every place in the flowchart, in logits.
        total: how many edges there are at all.
        faithfulness: share of the difference between prompt and twins that the kept edges restore, measured.
        reached: whether that is the share asked for.
    """

    edges: tuple[Edge, ...]
    nodes: dict[Place, float]
    total: int
    faithfulness: float
    reached: bool


def find_flow(
    wired: Wired, ids: torch.Tensor, twins: torch.Tensor, metric: Metric, *, difference: float, low: float, share: float
) -> Flow:
    """The flowchart of a prompt.

    Args:
        wired: the model.
        ids: (1, token) the prompt.
        twins: (twin, token) corrupted prompts.
        metric: of the logits at the last token.
        difference: metric of the prompt minus mean metric of the twins.
        low: mean metric of the twins.
        share: of the difference that is to be explained.
    """
    graph = wired.graph
    rows = ids.expand(len(twins), -1)
    last = torch.full((len(twins),), ids.shape[1] - 1, device=ids.device)
    written, other = wired.written(ids).expand(-1, len(twins), -1, -1), wired.written(twins)
    found = attribute(
        wired, rows, twins, last, metric, steps=_STEPS, by_token=True, reach=True, sources=(written, other)
    )
    by_token = (found.edges / len(twins)).cpu().numpy()
    edges = sorted(
        _edges(graph, by_token, [(r / len(twins)).cpu().numpy() for r in found.reached]), key=lambda e: -abs(e.score)
    )
    total = len(edges)
    edges = edges[:MOST]

    def measured(count: int) -> tuple[list[Edge], float]:
        kept = _connected(edges[:count], len(graph.sources))
        cut = torch.from_numpy(_cut(graph, kept, ids.shape[1])).to(ids.device)
        value = metric(wired.patched(rows, last, other, cut[None]).float()).mean()
        return kept, (float(value) - low) / difference

    # growing in small proportions and then halving: faithfulness is not monotonic, and the first that reaches counts
    counts = sorted({min(len(edges), round(x)) for x in np.geomspace(1, max(1, len(edges)), 24)})
    below, faithful = 0, 0.0
    kept: list[Edge] = []
    for count in counts:
        kept, faithful = measured(count)
        if faithful >= share:
            while count - below > 1:
                middle = (count + below) // 2
                fewer, less = measured(middle)
                if less >= share:
                    count, kept, faithful = middle, fewer, less
                else:
                    below = middle
            break
        below = count
    places = {place for edge in kept for place in (edge.source, edge.target)}
    nodes = {place: _strength(by_token, place, difference, graph) for place in sorted(places)}
    return Flow(tuple(kept), nodes, total, faithful, faithful >= share)


def _strength(by_token: np.ndarray, place: Place, difference: float, graph: Graph) -> float:
    """All that a source passes on at a token, kept or not; the logits receive the whole difference."""
    source, token = place
    return difference if source == len(graph.sources) else float(by_token[token, source].sum())


def _edges(graph: Graph, by_token: np.ndarray, reached: list[np.ndarray]) -> Iterable[Edge]:
    """Every edge with a score, between places.

    Args:
        by_token: (token, source, reader).
        reached: per layer (position of the head, token, source, kind and head).
    """
    tokens = by_token.shape[0]
    for reader, about in enumerate(graph.readers):
        if about.role in ("k", "v"):
            continue
        port = "q" if about.role == "q" else "in"
        target = len(graph.sources) if about.role == "logits" else graph.heads_of(reader)[0]
        for token in range(tokens) if about.role != "logits" else (tokens - 1,):
            for source in np.flatnonzero(graph.edges[:, reader] & (by_token[token, :, reader] != 0)):
                score = float(by_token[token, source, reader])
                yield Edge((int(source), token), (target, token), port, score)
    for layer, scores in enumerate(reached):
        first = graph.attention_sources(layer).start
        for position, token, source, index in np.argwhere(scores != 0):
            kind, head = divmod(int(index), graph.heads)
            score = float(scores[position, token, source, index])
            yield Edge((int(source), int(token)), (first + head, int(position)), "kv"[kind], score)


def _connected(edges: list[Edge], logits: int) -> list[Edge]:
    """The edges on paths from an embedding to the logits."""
    fed = {edge.source for edge in edges if edge.source[0] == 0}
    for edge in sorted(edges, key=lambda e: e.target[0]):  # sources are numbered in the order of computation
        if edge.source in fed:
            fed.add(edge.target)
    used = {edge.target for edge in edges if edge.target[0] == logits}
    for edge in sorted(edges, key=lambda e: -e.target[0]):
        if edge.target in used:
            used.add(edge.source)
    return [edge for edge in edges if edge.source in fed and edge.target in used]


def _cut(graph: Graph, kept: list[Edge], tokens: int) -> np.ndarray:
    """(token, source, reader) 1 where an edge is cut."""
    readers: dict[tuple[int, str], int] = {}
    for index, about in enumerate(graph.readers):
        port = {"mlp": "in", "logits": "in"}.get(about.role, about.role)
        for source in graph.heads_of(index) or [len(graph.sources)]:
            readers[source, port] = index
    cut = np.repeat(graph.edges[None].astype(np.float32), tokens, axis=0)
    for edge in kept:
        cut[edge.source[1], edge.source[0], readers[edge.target[0], edge.port]] = 0
    return cut
