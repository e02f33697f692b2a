"""Where the nodes of a flowchart lie: one column a position, layers upward, in the same boxes at every checkpoint.

The boxes follow from the union of the nodes of all checkpoints, so that nothing moves while one goes through training.
Several nodes of one layer at one position share a *cell*, in lines of as many as the column has room for; columns are
widened where that lowers the chart most, as long as it fits a page. Layers that keep no node take no room. Features of a
dictionary stand in a strip of their own, between two layers. Lengths are in the units of the drawing (about pixels); x
grows to the right, y downward.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf

from .schema import Node

__all__ = [
    "FEATURE_HEIGHT",
    "NODE_HEIGHT",
    "NODE_WIDTH",
    "BezierCurve",
    "Box",
    "ChartLayout",
    "Column",
    "Row",
    "SkippedLayers",
    "curve",
    "label_spots",
    "lay_out",
    "place_labels",
]

NODE_WIDTH, NODE_HEIGHT = 34.0, 19.0
LABEL_WIDTH, LABEL_HEIGHT = 42.0, 13.0
FEATURE_HEIGHT = 30.0
"""Features have two lines: their number, and their attribution."""

_FEATURE_PITCH, _STRIP_PAD = 36.0, 5.0
_STRIP = -1
"""What counts as the strip's layer."""

_PITCH_X, _PITCH_Y = 40.0, 26.0
_BETWEEN_COLUMNS, _MOST_SPARE = 8.0, 24.0
_LEAST_BETWEEN_LAYERS, _MOST_BETWEEN_LAYERS = 16.0, 64.0
_GAP = 14.0
_MARGIN_LEFT, _MARGIN_RIGHT, _MARGIN_TOP = 62.0, 16.0, 12.0
_NARROWEST = 12.0
"""Width of a column that holds no node: tokens at an angle still do not touch."""

_SLANT = 0.87
"""Sine of the angle (60 degrees) at which long tokens stand."""

_SWINGS = (16.0, 32.0, 52.0, 76.0, 104.0, 136.0)
"""How far the handles of a line are moved aside to go around boxes; the line itself passes three quarters as far."""

_LEFT_EDGE, _RIGHT_EDGE = 48.0, 8.0
"""Lines stay this far from the sides of the drawing; on the left stand the layers' names."""

_PORT_X = {"q": -10.0, "k": 0.0, "v": 10.0, "in": 0.0}


@dataclass(frozen=True)
class Box:
    """A rectangle by its centre and size."""

    x: float
    y: float
    width: float
    height: float

    def overlaps(self, other: Box) -> bool:
        """Whether the two share more than an edge."""
        return (
            abs(self.x - other.x) * 2 < self.width + other.width
            and abs(self.y - other.y) * 2 < self.height + other.height
        )

    def holds(self, x: float, y: float, margin: float = 0.0) -> bool:
        """Whether a point lies inside, or less than ``margin`` outside."""
        return abs(self.x - x) < self.width / 2 + margin and abs(self.y - y) < self.height / 2 + margin


@dataclass(frozen=True)
class Column:
    """One position of the prompt, by the centre of its column."""

    position: int
    x: float
    width: float


@dataclass(frozen=True)
class Row:
    """One layer that keeps something."""

    layer: int
    top: float
    bottom: float


@dataclass(frozen=True)
class SkippedLayers:
    """Layers ``first`` to ``last`` keep nothing; they are shrunk to a mark at ``y``."""

    first: int
    last: int
    y: float


@dataclass(frozen=True)
class ChartLayout:
    """Boxes of everything.

    Attributes:
        boxes: of each node, in the order of the nodes.
        slanted: whether tokens stand at an angle, because some do not fit their column.
        token_y: height at which tokens begin.
        strip: (top, bottom) of the features, where there are some.
    """

    width: float
    height: float
    boxes: tuple[Box, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    gaps: tuple[SkippedLayers, ...]
    token_y: float
    slanted: bool
    strip: tuple[float, float] | None = None


@dataclass(frozen=True)
class BezierCurve:
    """A cubic Bézier curve from a source to a target: four points (x, y)."""

    points: tuple[tuple[float, float], ...]

    @property
    def path(self) -> str:
        """The curve as data of an SVG path."""
        start, *others = (f"{round(x, 1):g} {round(y, 1):g}" for x, y in self.points)
        return f"M{start}C{','.join(others)}"

    def at(self, t: float) -> tuple[float, float]:
        """The point at ``t`` in [0, 1]."""
        weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
        return (
            sum(w * x for w, (x, _) in zip(weights, self.points, strict=True)),
            sum(w * y for w, (_, y) in zip(weights, self.points, strict=True)),
        )


_Cells = dict[tuple[int, int, int], list[int]]
"""Nodes (by index) by (layer, band within the layer, position)."""


def lay_out(
    nodes: Sequence[Node],
    layers: int,
    token_widths: Sequence[float],
    *,
    parallel: bool,
    target_width: float,
    target_height: float,
    after: int | None = None,
) -> ChartLayout:
    """Boxes of ``nodes``, a column for each of ``token_widths`` (one a position).

    Args:
        parallel: attention and MLP of a layer read the same stream and share a line; else the MLP lies above the heads.
        target_width: columns are not widened beyond this; what has one node a line may be wider.
        target_height: layers are moved apart up to this, as far as that helps; what needs more is taller.
        after: how many layers lie below the features, where there are some.
    """
    cells: _Cells = defaultdict(list)
    for index in sorted(range(len(nodes)), key=lambda i: (nodes[i].depth, nodes[i].head or 0, nodes[i].id)):
        node = nodes[index]
        if node.in_dictionary:
            cells[_STRIP, 0, node.position].append(index)
        elif node.layer is not None:
            cells[node.layer, int(node.kind == "mlp" and not parallel), node.position].append(index)
    ends = {node.position: NODE_WIDTH + 12 for node in nodes if node.kind == "logits"}
    slanted, least = _least_widths(cells, token_widths, ends, target_width)
    slots = _widen(cells, least, target_width)
    widths = [max(n * _PITCH_X, width) for n, width in zip(slots, least, strict=True)]
    apart = _BETWEEN_COLUMNS + min(max((target_width - _width(widths)) / len(widths), 0), _MOST_SPARE)
    # A slanted token hangs to the left of its column, the first ones beyond it.
    columns, x = [], max(_MARGIN_LEFT, max(token_widths, default=0) * 0.5 if slanted else 0)
    for position, width in enumerate(widths):
        columns.append(Column(position, x + (width + apart) / 2, width))
        x += width + apart

    lines: dict[tuple[int, int], int] = defaultdict(int)
    for (layer, band, position), inside in cells.items():
        lines[layer, band] = max(lines[layer, band], -(-len(inside) // slots[position]))
    in_strip = lines.pop((_STRIP, 0), 0)
    used = {layer for layer, _ in lines}
    free = target_height - sum(lines.values()) * _PITCH_Y - in_strip * _FEATURE_PITCH - 100
    between = min(max(free / (len(used) + bool(in_strip) + 1), _LEAST_BETWEEN_LAYERS), _MOST_BETWEEN_LAYERS)

    boxes: dict[int, Box] = {}
    y = _MARGIN_TOP + NODE_HEIGHT / 2
    for index, node in enumerate(nodes):
        if node.kind == "logits":
            boxes[index] = Box(columns[node.position].x, y, NODE_WIDTH + 12, NODE_HEIGHT)
    y += NODE_HEIGHT / 2 + between
    rows, gaps, layer = [], [], layers - 1
    strip: tuple[float, float] | None = None
    above_strip = after if in_strip and after is not None else -1  # the lowest layer that lies above the strip
    while layer >= 0 or above_strip >= 0:
        if layer < above_strip:
            strip = (y, y + in_strip * _FEATURE_PITCH + 2 * _STRIP_PAD)
            for position, column in enumerate(columns):
                inside = cells[_STRIP, 0, position]
                boxes.update(_cell(inside, column, slots[position], y + _STRIP_PAD, FEATURE_HEIGHT, _FEATURE_PITCH))
            y, above_strip = strip[1] + between, -1
            continue
        if layer not in used:
            lowest = max(max((other for other in used if other < layer), default=-1) + 1, above_strip)
            gaps.append(SkippedLayers(lowest, layer, y + (_GAP - between) / 2))
            y, layer = y + _GAP, lowest - 1
            continue
        top = y
        for band in (1, 0):
            for position, column in enumerate(columns):
                boxes.update(_cell(cells.get((layer, band, position), ()), column, slots[position], y))
            y += _PITCH_Y * lines.get((layer, band), 0)
        rows.append(Row(layer, top, y))
        y, layer = y + between, layer - 1
    for index, node in enumerate(nodes):
        if node.kind == "embed":
            boxes[index] = Box(columns[node.position].x, y + 5, 10, 10)
    token_y = y + 18
    height = token_y + (max(token_widths, default=0) * _SLANT if slanted else 14) + 16
    in_order = tuple(boxes[i] for i in range(len(nodes)))
    return ChartLayout(
        x + _MARGIN_RIGHT, height, in_order, tuple(columns), tuple(rows), tuple(gaps), token_y, slanted, strip
    )


def _least_widths(
    cells: _Cells, token_widths: Sequence[float], ends: dict[int, float], target: float
) -> tuple[bool, list[float]]:
    """Whether tokens stand at an angle, and the least width of each column; they lie flat if the page has room for it."""
    filled = {position for _, _, position in cells}
    bare = [max(_PITCH_X if p in filled else _NARROWEST, ends.get(p, 0.0)) for p in range(len(token_widths))]
    flat = [max(least, width) for least, width in zip(bare, token_widths, strict=True)]
    slanted = _width(flat) > target * 0.75
    return slanted, bare if slanted else flat


def _width(columns: Sequence[float]) -> float:
    return _MARGIN_LEFT + _MARGIN_RIGHT + sum(width + _BETWEEN_COLUMNS for width in columns)


def _cell(
    inside: Sequence[int],
    column: Column,
    slots: int,
    top: float,
    height: float = NODE_HEIGHT,
    pitch: float = _PITCH_Y,
) -> dict[int, Box]:
    """Nodes of a cell line by line, each line centred in its column."""
    boxes = {}
    for line, start in enumerate(range(0, len(inside), slots or 1)):
        part = inside[start : start + slots]
        for i, index in enumerate(part):
            x = column.x + (i - (len(part) - 1) / 2) * _PITCH_X
            boxes[index] = Box(x, top + (line + 0.5) * pitch, NODE_WIDTH, height)
    return boxes


def _widen(cells: _Cells, least: Sequence[float], target: float) -> list[int]:
    """Nodes side by side in each column: the column that lowers the chart most is widened until the page is full."""
    most = [0] * len(least)
    for (_, _, position), inside in cells.items():
        most[position] = max(most[position], len(inside))
    slots = [min(n, 1) for n in most]

    def cost(chosen: Sequence[int]) -> float:
        lines: dict[tuple[int, int], int] = defaultdict(int)
        crowded = 0
        for (layer, band, position), inside in cells.items():
            n = -(-len(inside) // chosen[position])
            lines[layer, band] = max(lines[layer, band], n)
            crowded += n * n
        return 4 * sum(lines.values()) + crowded

    while True:
        wider = [[*slots[:p], slots[p] + 1, *slots[p + 1 :]] for p, n in enumerate(slots) if n < most[p]]
        fitting = [s for s in wider if _width([max(n * _PITCH_X, w) for n, w in zip(s, least, strict=True)]) <= target]
        best = min(fitting, key=cost, default=slots)
        if cost(best) >= cost(slots):
            return slots
        slots = best


def curve(source: Box, target: Box, port: str, around: Sequence[Box] = (), within: float = inf) -> BezierCurve:
    """The line of an edge: it leaves above the source and enters below the target, at its port (q, k, v from the left).

    Args:
        around: boxes that it should not pass behind, because it would seem to end there: those of the column, where
            both ends share one. It swings to the side as little as that takes.
        within: width of the drawing, which it does not leave.
    """
    x1, y1 = source.x, source.y - source.height / 2
    x2, y2 = target.x + _PORT_X[port], target.y + target.height / 2
    rise = y1 - y2
    between = [box for box in around if y2 < box.y < y1]

    def bent(swing: float) -> BezierCurve:
        reach = rise * (0.5 if swing else 0.6)
        return BezierCurve(((x1, y1), (x1 + swing, y1 - reach), (x2 + swing, y2 + reach), (x2, y2)))

    def behind(line: BezierCurve) -> int:
        points = [line.at(i / 16) for i in range(1, 16)]
        return sum(any(box.holds(x, y, 2.0) for x, y in points) for box in between)

    if not between:
        return bent(0)
    outward = 1 if x2 >= x1 else -1
    swings = [0.0, *(side * step for step in _SWINGS for side in (outward, -outward))]
    inside = [swing for swing in swings if _LEFT_EDGE < (x1 + x2) / 2 + 0.75 * swing < within - _RIGHT_EDGE]
    return min(map(bent, inside or [0.0]), key=behind)


def label_spots(curve: BezierCurve, nodes: Iterable[Box], within: float = inf) -> tuple[Box, ...]:
    """Boxes on a curve that would hold a label without covering a node, the best first."""
    left, *_, right = sorted(x for x, _ in curve.points)
    high, *_, low = sorted(y for _, y in curve.points)
    near = Box((left + right) / 2, (high + low) / 2, right - left + LABEL_WIDTH, low - high + LABEL_HEIGHT)
    nodes = [node for node in nodes if node.overlaps(near)]
    spots = []
    for t in (0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8, 0.12, 0.88):
        spot = Box(*curve.at(t), LABEL_WIDTH, LABEL_HEIGHT)
        inside = spot.x - LABEL_WIDTH / 2 >= _LEFT_EDGE and spot.x + LABEL_WIDTH / 2 <= within
        if inside and not any(spot.overlaps(node) for node in nodes):
            spots.append(spot)
    return tuple(spots)


def place_labels(spots: Iterable[tuple[int, Sequence[Box]]], most: int) -> list[tuple[int, Box]]:
    """Spots for the labels of edges that overlap no other label; earlier edges choose first.

    Args:
        spots: (edge, its possible spots), the most important edge first.
        most: labels at most.
    """
    placed: list[tuple[int, Box]] = []
    for edge, possible in spots:
        if len(placed) >= most:
            break
        free = next((box for box in possible if not any(box.overlaps(other) for _, other in placed)), None)
        if free is not None:
            placed.append((edge, free))
    return placed
