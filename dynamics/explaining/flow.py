"""The flowchart of one prompt at one checkpoint: which parts passed what to whom, at which positions.

Nodes are sources at positions (a head at the position where it writes). Edges are attributed by EAP-IG (see
:mod:`dynamics.circuits.attribution`), keys and values apart by the position at which the head acts. The strongest are
kept, as few as restore the logit difference when **all** other edges are cut, up to what the stated share leaves (0.8:
between 80% and 120% of it): measured by ablation, never estimated. Cutting is per source, reader and token: the input of a head's keys at a token is one, for all
positions that look there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ..circuits.attribution import attribute
from ..circuits.graph import Graph
from ..circuits.hooks import ForwardPass
from ..circuits.wired import Metric, Wired

__all__ = ["STEPS", "Edge", "Flow", "NodeAt", "find_flow", "rows_at_once"]

NodeAt = tuple[int, int]
"""Index of a source (the number of sources for the logits), and token position."""

FEW, MOST = 300, 8000
"""Edges that are listed and drawn at most, and kept at most: circuits of large models may need more than a reader can see."""

MEMORY = 2**30
"""Bytes that inputs and gradients of one batch of twins may take."""

STEPS = 5
"""Points on the way from the twins' embeddings to the prompt's at which gradients are taken."""

_ROUNDING = 1e-5
"""Of a share, so that all of it can be asked for."""


@dataclass(frozen=True)
class Edge:
    """From what wrote to what read, with the port and the attribution in logits."""

    source: NodeAt
    target: NodeAt
    port: str
    score: float


@dataclass(frozen=True)
class Flow:
    """What is kept.

    Attributes:
        edges: strongest first.
        nodes: total attribution of every node at an end of these edges, in logits.
        total: how many edges there are at all, as many at every checkpoint.
        faithfulness: share of the difference between prompt and twins that the kept edges restore, measured; NaN where
            the attribution is not finite, so that no edges can be chosen.
        reached: whether that is the share asked for.
        held: share of the sizes of all edges' scores that the kept ones hold, so that it can be told how widely the rest is
            spread; NaN as faithfulness.
    """

    edges: tuple[Edge, ...]
    nodes: dict[NodeAt, float]
    total: int
    faithfulness: float
    reached: bool
    held: float

    @property
    def shown(self) -> tuple[tuple[Edge, ...], dict[NodeAt, float]]:
        """The strongest of the edges, and the nodes at their ends."""
        edges = self.edges[:FEW]
        ends = {end for edge in edges for end in (edge.source, edge.target)}
        return edges, {at: score for at, score in self.nodes.items() if at in ends}


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
    total = _count(graph, ids.shape[1])
    clean = wired.run(ids)
    at_once = rows_at_once(wired, ids.shape[1])
    chunks = [twins[start : start + at_once] for start in range(0, len(twins), at_once)]
    parts = [(chunk, wired.run(chunk)) for chunk in chunks]
    by_token, reached = _attributed(wired, ids, parts, metric, clean)
    if not all(np.isfinite(scores).all() for scores in (by_token, *reached)):
        return Flow((), {}, total, float("nan"), False, float("nan"))
    here = _within(graph, by_token)
    edges = _strongest(graph, here, reached, MOST)
    size = sum(float(np.abs(scores).sum()) for scores in (here, *reached))

    def measured(count: int) -> tuple[list[Edge], float]:
        kept = _connected(edges[:count], len(graph.sources))
        cut = torch.from_numpy(_cut(graph, kept, ids.shape[1])).to(ids.device)[None]
        values = []
        for part, other in parts:
            rows, last = _repeated(ids, len(part))
            values.append(metric(wired.patched(rows, last, other, cut).float()))
        return kept, (float(torch.cat(values).mean()) - low) / difference

    # growing in small proportions and then halving: faithfulness is not monotonic, and the first that reaches counts
    few = max(1, min(FEW, len(edges)))
    sizes = [*np.geomspace(1, few, 24), *np.geomspace(few, max(few, len(edges)), 10)]
    if few < len(edges) and measured(few)[1] < share / 2:
        sizes = sizes[23:]  # what many restore so little of, fewer need not be asked for
    counts = sorted({min(len(edges), round(x)) for x in sizes})
    below, faithful, within = 0, 0.0, 1 - share + _ROUNDING

    def enough(value: float) -> bool:
        """As near to all of it from above as from below: twice the difference explains as little as none."""
        return abs(1 - value) <= within

    kept: list[Edge] = []
    for count in counts:
        kept, faithful = measured(count)
        if enough(faithful):
            while count - below > 1:
                middle = (count + below) // 2
                fewer, less = measured(middle)
                if enough(less):
                    count, kept, faithful = middle, fewer, less
                else:
                    below = middle
            break
        below = count
    ends = {end for edge in kept for end in (edge.source, edge.target)}
    # all that a source passes on at a token, kept or not; the logits receive the whole difference
    logits = len(graph.sources)
    nodes = {(s, t): difference if s == logits else float(by_token[t, s].sum()) for s, t in sorted(ends)}
    held = sum(abs(edge.score) for edge in kept) / size if size > 0 else 0.0
    return Flow(tuple(kept), nodes, total, faithful, enough(faithful), held)


def _repeated(ids: torch.Tensor, times: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(row, token) the prompt for every twin, and (row,) the last position."""
    return ids.expand(times, -1), torch.full((times,), ids.shape[1] - 1, device=ids.device)


def rows_at_once(wired: Wired, tokens: int) -> int:
    """How many twins can be attributed together: inputs, norms and gradients of all readers exist at once."""
    graph = wired.graph
    per_row = 4 * tokens * wired.architecture.shape.d_model * (3 * len(graph.sources) + 6 * len(graph.readers))
    return max(1, MEMORY // per_row)


def _attributed(
    wired: Wired,
    ids: torch.Tensor,
    parts: list[tuple[torch.Tensor, ForwardPass]],
    metric: Metric,
    clean: ForwardPass,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Mean scores over twins: (token, source, reader), and per layer (position, token, source, kind and head)."""
    count = sum(len(part) for part, _ in parts)
    by_token: np.ndarray | None = None
    reached: list[np.ndarray] = []
    for part, other in parts:
        rows, last = _repeated(ids, len(part))
        between = other.streams[0], wired.sources(clean, other)
        found = attribute(wired, rows, part, last, metric, steps=STEPS, by_token=True, reach=True, between=between)
        first, *layers = [(scores / count).cpu().numpy() for scores in (found.edges, *found.reached)]
        by_token = first if by_token is None else by_token + first
        reached = [a + b for a, b in zip(reached, layers, strict=True)] if reached else layers
    assert by_token is not None
    return by_token, reached


def _count(graph: Graph, tokens: int) -> int:
    """Edges of the flowchart of a prompt: keys and values are read by every head at this and every later position."""
    crossing = sum(
        graph.seen_by(graph.attention_readers(layer)) * 2 * graph.heads * tokens * (tokens + 1) // 2
        for layer in range(graph.layers)
    )
    staying = sum(
        int(graph.edges[:, reader].sum()) * (1 if about.role == "logits" else tokens)
        for reader, about in enumerate(graph.readers)
        if about.role not in ("k", "v")
    )
    return crossing + staying


def _within(graph: Graph, by_token: np.ndarray) -> np.ndarray:
    """(token, source, reader) the scores of edges that stay at their token; 0 for others, which heads read elsewhere too."""
    here = np.where(graph.edges, by_token, 0.0)
    here[..., [about.role in ("k", "v") for about in graph.readers]] = 0.0
    here[:-1, :, graph.logits_reader] = 0.0  # the metric is read at the last token alone
    return here


def _strongest(graph: Graph, here: np.ndarray, reached: list[np.ndarray], most: int) -> list[Edge]:
    """The edges with the largest scores, the largest first; none that is zero.

    Args:
        here: (token, source, reader) of edges that stay at their token.
        reached: per layer (position of the head, token, source, kind and head).
        most: how many.
    """
    candidates = _candidates(graph, here, reached, most)
    return sorted(candidates, key=lambda e: (-abs(e.score), e.source, e.target, e.port))[:most]


def _candidates(graph: Graph, here: np.ndarray, reached: list[np.ndarray], most: int) -> Iterator[Edge]:
    for token, source, reader in _largest(here, most):
        about = graph.readers[reader]
        target = len(graph.sources) if about.role == "logits" else graph.heads_of(reader)[0]
        port = "q" if about.role == "q" else "in"
        yield Edge((source, token), (target, token), port, float(here[token, source, reader]))
    for layer, scores in enumerate(reached):
        first = graph.attention_sources(layer).start
        for position, token, source, index in _largest(scores, most):
            kind, head = divmod(index, graph.heads)
            score = float(scores[position, token, source, index])
            yield Edge((source, token), (first + head, position), "kv"[kind], score)


def _largest(scores: np.ndarray, most: int) -> list[tuple[int, ...]]:
    """Indices of the values that are largest without their sign and not zero, in no order."""
    sizes = np.abs(scores).reshape(-1)
    chosen = np.argpartition(sizes, -most)[-most:] if len(sizes) > most else np.arange(len(sizes))
    indices = np.unravel_index(chosen[sizes[chosen] > 0], scores.shape)
    return [tuple(int(i) for i in index) for index in zip(*indices, strict=True)]


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
