"""From an explanation to what is drawn of it: boxes, curves, texts; everything that the page does not have to compute.

The page and the figure are drawn from the same :class:`Drawing`, so that they cannot differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10

from .display import number, percent, quoted, short_step, shorten, text_width, visible
from .layout import BezierCurve, Box, ChartLayout, curve, label_spots, lay_out, place_labels
from .schema import ExplainedCheckpoint, Explanation, Node, ShownDictionary

__all__ = [
    "TOKEN_SIZE",
    "Axis",
    "Drawing",
    "DrawnEdge",
    "DrawnNode",
    "EdgeLabel",
    "ablated_in_words",
    "crossing_edges",
    "draw",
    "says",
    "sign_of",
    "site_in_words",
    "size_of",
    "splits",
    "step_axis",
]

TOKEN_SIZE = 12.0
"""Size of the tokens' letters in the units of the drawing."""

_LONGEST_TOKEN = 14
_MOST_LABELS = 26
_WIDE_FROM = 14
"""Prompts of more tokens than this take the whole width of the page."""


@dataclass(frozen=True)
class DrawnNode:
    """A node with its box and names: on its box, in lists, in full."""

    box: Box
    kind: str
    short: str
    id: str
    name: str


@dataclass(frozen=True)
class DrawnEdge:
    """An edge that some checkpoint keeps: (source, target, port), its line, and where a label could stand."""

    source: int
    target: int
    port: str
    curve: BezierCurve
    spots: tuple[Box, ...]


@dataclass(frozen=True)
class EdgeLabel:
    """The number of an edge, written beside it."""

    edge: int
    x: float
    y: float


@dataclass(frozen=True)
class Drawing:
    """Everything that is drawn, of all checkpoints.

    Attributes:
        edges: union over the checkpoints.
        scores: (index of the edge, score) of each checkpoint, the weakest first, so that the strongest lie on top.
        labels: of the strongest edges of each checkpoint, as far as there is room.
        strongest: largest absolute score of any edge at any checkpoint, in logits.
        wide: whether the flowchart needs the whole width of the page.
    """

    layout: ChartLayout
    tokens: tuple[str, ...]
    nodes: tuple[DrawnNode, ...]
    edges: tuple[DrawnEdge, ...]
    scores: tuple[tuple[tuple[int, float | None], ...], ...]
    labels: tuple[tuple[EdgeLabel, ...], ...]
    strongest: float
    wide: bool


def draw(explanation: Explanation) -> Drawing:
    """Lay out the union of all nodes and edges, once."""
    tokens = tuple(shorten(visible(token), _LONGEST_TOKEN) for token in explanation.tokens)
    wide = len(tokens) > _WIDE_FROM
    layout = lay_out(
        explanation.nodes,
        explanation.layers,
        [text_width(token, TOKEN_SIZE) for token in tokens],
        parallel=explanation.parallel,
        target_width=1300 if wide else 720,
        target_height=1000 if wide else 600,
        after=explanation.dictionary.after if explanation.dictionary else None,
    )
    known: dict[tuple[int, int, str], int] = {}
    scores = []
    for checkpoint in explanation.checkpoints:
        of_this = [(known.setdefault((s, t, p), len(known)), score) for s, t, p, score in checkpoint.edges]
        scores.append(tuple(sorted(of_this, key=lambda pair: (size_of(pair[1]), -pair[0]))))
    edges = tuple(_edge(explanation.nodes, layout, *key) for key in known)
    labels = tuple(
        tuple(
            EdgeLabel(edge, round(box.x, 1), round(box.y, 1))
            for edge, box in place_labels(((e, edges[e].spots) for e, _ in reversed(of_this)), _MOST_LABELS)
        )
        for of_this in scores
    )
    nodes = tuple(
        DrawnNode(box, node.kind, _short(node), visible(node.id), _name(node, explanation.tokens))
        for node, box in zip(explanation.nodes, layout.boxes, strict=True)
    )
    strongest = max((size_of(score) for of_this in scores for _, score in of_this), default=0.0)
    return Drawing(layout, tokens, nodes, edges, tuple(scores), labels, strongest, wide)


def _edge(nodes: Sequence[Node], layout: ChartLayout, source: int, target: int, port: str) -> DrawnEdge:
    position = nodes[source].position
    column: list[Box] = []
    if nodes[target].position == position:
        column = [
            layout.boxes[i] for i, node in enumerate(nodes) if node.position == position and i not in (source, target)
        ]
    line = curve(layout.boxes[source], layout.boxes[target], port, column, layout.width)
    return DrawnEdge(source, target, port, line, label_spots(line, layout.boxes, layout.width))


def _short(node: Node) -> str:
    return {
        "embed": "",
        "head": f"H{node.head}",
        "mlp": "MLP",
        "logits": "logits",
        "feature": f"{node.feature}",
        "error": "error",
    }[node.kind]


def _name(node: Node, tokens: Sequence[str]) -> str:
    token = quoted(tokens[node.position])
    return {
        "embed": f"embedding of {token} at position {node.position}",
        "head": f"head {node.head} of layer {node.layer} at position {node.position}, {token}",
        "mlp": f"MLP of layer {node.layer} at position {node.position}, {token}",
        "logits": f"logits after position {node.position}, {token}",
        "feature": f"feature {node.feature} at position {node.position}, {token}",
        "error": f"error of the dictionary at position {node.position}, {token}",
    }[node.kind]


def size_of(score: float | None) -> float:
    """How strong an edge is drawn: one without a number as if it were 0, but in a look of its own (:func:`sign_of`)."""
    return abs(score or 0.0)


def sign_of(score: float | None) -> str:
    """The look of an edge or node: ``plus`` supports the answer, ``minus`` opposes it, ``unknown`` has no number.

    >>> sign_of(0.2), sign_of(-0.2), sign_of(None)
    ('plus', 'minus', 'unknown')
    """
    return "unknown" if score is None else "minus" if score < 0 else "plus"


def says(checkpoint: ExplainedCheckpoint) -> str:
    """What became of a checkpoint, in a sentence."""
    more = (checkpoint.edges_kept or 0) - len(checkpoint.edges)
    drawn = f" Drawn are the {len(checkpoint.edges):,} strongest edges." if checkpoint.edges and more > 0 else ""
    if checkpoint.state != "explained":
        return f"{checkpoint.state.capitalize()}: {visible(checkpoint.reason)}{'.' if drawn else ''}{drawn}"
    kept, total = (f"{n:,}" if n is not None else "–" for n in (checkpoint.edges_kept, checkpoint.edges_total))
    return (
        f"{kept} of {total} edges carry the answer: with all others ablated, {percent(checkpoint.faithfulness)} of the "
        f"logit difference remains (whole model {number(checkpoint.logit_difference, sign=True)}, corrupted "
        f"{number(checkpoint.corrupted_difference, sign=True)}).{drawn}"
    )


def splits(explanation: Explanation, checkpoint: ExplainedCheckpoint) -> str:
    """What a dictionary makes of a checkpoint, in a sentence or two; empty where there is none."""
    dictionary, split = explanation.dictionary, checkpoint.split
    if dictionary is None or split is None:
        return ""
    if split.total is None:
        return f"No features: {visible(split.reason)}."
    shown = len(split.active)
    whole = None
    if checkpoint.logit_difference is not None and checkpoint.corrupted_difference is not None:
        whole = checkpoint.logit_difference - checkpoint.corrupted_difference
    return (
        f"{site_in_words(dictionary)} passes on {number(split.total, sign=True)} logits by this estimate (the difference is "
        f"{number(whole, sign=True)}): features of {quoted(dictionary.name)} {number(split.features, sign=True)}, its "
        f"error {number(split.error, sign=True)}. "
        f"Of the {split.differ:,} activations that the corrupted prompt changes, the {shown} shown make up "
        f"{percent(split.shown)} of the absolute attribution of features."
    )


def ablated_in_words(explanation: Explanation) -> str:
    """What is done to parts that are ablated; empty where none are."""
    if explanation.ablation is None:
        return ""
    factor = explanation.ablation.factor
    return "taken from the corrupted prompt" if factor is None else f"{factor:g} times what it writes"


def site_in_words(dictionary: ShownDictionary) -> str:
    """Where features are.

    >>> from .schema import ShownDictionary
    >>> about = {"name": "d", "method": "", "layer": 2, "joint": True, "size": 8, "note": "", "features": ()}
    >>> site_in_words(ShownDictionary(site="resid_post", after=3, **about))
    'The stream after layer 2'
    >>> site_in_words(ShownDictionary(site="resid_pre", after=2, **about))
    'The stream before layer 2'
    """
    return f"The stream {'after' if dictionary.site == 'resid_post' else 'before'} layer {dictionary.layer}"


def crossing_edges(explanation: Explanation, edges: Sequence[DrawnEdge]) -> tuple[tuple[int, int], ...]:
    """(edge, position of its source) of the edges that carry what a dictionary's features split."""
    if explanation.dictionary is None:
        return ()
    after, nodes = explanation.dictionary.after, explanation.nodes
    return tuple(
        (i, nodes[edge.source].position)
        for i, edge in enumerate(edges)
        if nodes[edge.source].depth < (after, 0) <= nodes[edge.target].depth
    )


@dataclass(frozen=True)
class Axis:
    """Positions of steps on an axis from 0 to 1, and its ticks as (position, text)."""

    positions: tuple[float, ...]
    ticks: tuple[tuple[float, str], ...]


def step_axis(steps: Sequence[int]) -> Axis:
    """Logarithmic axis of ascending steps on which step 0 is shown, as in the project's figures.

    >>> [(round(position, 3), text) for position, text in step_axis([0, 1, 10, 100]).ticks]
    [(0.0, '0'), (0.149, '1'), (0.574, '10'), (1.0, '100')]
    """
    before_one = 0.35

    def raw(step: float) -> float:
        return before_one + log10(step) if step >= 1 else before_one * step

    low, high = raw(steps[0]), raw(steps[-1])
    span = high - low or 1.0
    powers = [10**k for k in range(len(str(steps[-1]))) if steps[0] <= 10**k <= steps[-1]]
    marked = [0, *powers] if steps[0] == 0 else powers
    if len(marked) < 2:
        marked = sorted({steps[0], steps[-1]})
    return Axis(
        tuple((raw(step) - low) / span for step in steps),
        tuple(((raw(step) - low) / span, short_step(step)) for step in marked),
    )
