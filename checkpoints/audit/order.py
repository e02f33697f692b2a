"""Which points of a path are out of order? Numbers only; :mod:`.path` says what that means for checkpoints.

Training is a path: between checkpoints *i* and *k* lies *j*, and a path that went away to *j* does not come back. How it
can be known that it did, and which of the three is at fault, is in :mod:`.returns`. Here is what has to be done around it:
rows in a row that differ no more than rounding does are one point, and count once, so that seventy labels on one
checkpoint do not outvote the honest ones; and neither memory nor time may grow faster than the series.

Up to :data:`PLACES` points are compared each with each. More are dealt at random into several passes of that many, where
each is compared with its share of the whole series; what is left is compared once more with its neighbours (:data:`NEAR` on
either side), as a copy of a step nearby only shows beside those in between.

>>> import numpy as np
>>> at = np.radians([0.0, 1.0, 2.0, 9.0, 4.0, 5.0])
>>> [(point.rows, point.beside) for point in order(np.stack([np.cos(at), np.sin(at)], axis=1)).out]
[(range(3, 4), (2, 4))]
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from .returns import RETURN, SAME, Array, Mask, beside, out_of_order
from .vectors import Indices, Vectors, angles, apart, blocks, each

__all__ = ["NEAR", "PLACES", "Misplaced", "Order", "order"]

PLACES = 650
"""Places that are compared each with each, as the work grows with their third power.

The longest published series has 609 checkpoints."""

NEAR = 32
"""Neighbours on either side with which each is compared where there are more places than that."""


class Misplaced(NamedTuple):
    """A point that is out of order.

    Attributes:
        rows: which rows; several in a row if they are the same up to rounding.
        beside: the rows on either side that are in order; one at an end, none if there is none.
        twin: a row elsewhere that it is much nearer to than to those beside it; None if there is none.
        exact: whether it is the same as its twin up to rounding.
    """

    rows: range
    beside: tuple[int, ...]
    twin: int | None
    exact: bool


class Order(NamedTuple):
    """How many points the rows are, and which of those are out of order."""

    points: int
    out: list[Misplaced]


def order(vectors: Vectors) -> Order:
    """What is out of order; the last row is believed where it and others are the same.

    Args:
        vectors: rows by step; finite, none of them zero.

    Returns:
        Nothing is out of order among fewer than three rows: two points are always a path.
    """
    if not len(vectors):
        return Order(0, [])
    points = _Points(vectors)
    count = len(points.runs)
    out = np.zeros(count, dtype=bool)
    passes = -(-count // PLACES)
    # dealt at random, as faults may be regular; every pass has the last point, which is at fault only if all say so
    dealt = np.random.Generator(np.random.PCG64(0)).permutation(count) % passes
    last: list[bool] = []
    for number in range(passes):
        some = np.flatnonzero((dealt == number) | (np.arange(count) == count - 1))
        found = points.out_of_order(some)
        out[some[:-1]] = found[:-1]
        last.append(bool(found[-1]))
    out[-1] = all(last)
    if passes > 1:
        out |= _near(points, np.flatnonzero(~out))
    return Order(count, points.misplaced(np.flatnonzero(out), ~out))


def _near(points: _Points, kept: Indices) -> Mask:
    """Which of these points are out of order among their neighbours; of each window only its middle is judged."""
    out = np.zeros(len(points.runs), dtype=bool)
    for start in range(0, len(kept), NEAR):
        window = kept[max(start - NEAR, 0) : start + 2 * NEAR]
        judged = np.isin(window, kept[start : start + NEAR]) & (window != len(out) - 1)
        out[window[judged & points.out_of_order(window)]] = True
    return out


class _Points:
    """The points of a path: runs of rows that differ no more than rounding does.

    Attributes:
        runs: rows of each.
    """

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors
        self.runs = _runs(vectors)
        # few have more than a row; of those that do, the ends are farthest apart
        whole = len(vectors) <= PLACES
        self._rows = [np.array(run if whole else sorted({run[0], run[-1]}), dtype=np.intp) for run in self.runs]
        self._sizes = np.array([len(run) for run in self.runs])

    def out_of_order(self, some: Indices) -> Mask:
        """Which of these points are at fault, from the angles between them."""
        return out_of_order(self._table(some), self._sizes[some])

    def misplaced(self, out: Indices, kept: Mask) -> list[Misplaced]:
        """What to say about the points that are out of order."""
        found: list[Misplaced] = []
        for some in blocks(len(out)):
            nodes = out[some]
            rows = [self._of(nodes, others) for others in blocks(len(self.runs))]
            found += [
                self._said(n, row, kept) for n, row in zip(nodes.tolist(), np.concatenate(rows, axis=1), strict=True)
            ]
        return found

    def _said(self, node: int, away: Array, kept: Mask) -> Misplaced:
        """What to say about a point, given its angles with all points and those that are in order."""
        runs, sides = self.runs, beside(node, kept)
        rows = tuple(runs[n][-1] if n < node else runs[n][0] for n in sides)
        same = [n for n in np.flatnonzero(away <= SAME).tolist() if n != node]
        if same:
            return Misplaced(runs[node], rows, runs[max(same, key=lambda n: (kept[n], n))][-1], True)
        others = [n for n in np.flatnonzero(kept).tolist() if n not in sides]
        nearest = min(others, key=lambda n: float(away[n]), default=node)
        if not sides or nearest == node or away[nearest] >= RETURN * away[sides].min():
            return Misplaced(runs[node], rows, None, False)
        return Misplaced(runs[node], rows, runs[nearest][-1], False)

    def _table(self, some: Indices) -> Array:
        """(some, some) least angles between rows of two points."""
        rows, first = self._flat(some)
        return _least(angles(self._vectors[rows]), first, first)

    def _of(self, nodes: Indices, others: slice) -> Array:
        """(node, other) the same for a block of points and a block of all."""
        (mine, a), (theirs, b) = self._flat(nodes), self._flat(np.arange(len(self.runs))[others])
        return _least(angles(self._vectors[mine], self._vectors[theirs]), a, b)

    def _flat(self, some: Indices) -> tuple[Indices, Indices]:
        """Rows of some points one after the other, and where those of each begin."""
        rows = [self._rows[n] for n in some]
        return np.concatenate(rows), np.cumsum([0, *(len(r) for r in rows[:-1])])


def _least(table: Array, first: Indices, second: Indices) -> Array:
    result: Array = np.minimum.reduceat(np.minimum.reduceat(table, first, axis=0), second, axis=1)
    return result


def _runs(vectors: Vectors) -> list[range]:
    """Rows in a row that are one point: none of them farther than rounding from the first of them."""
    starts: list[int] = []
    first = np.empty(0)
    for row, vector in enumerate(each(vectors)):
        if not starts or apart(first, vector) > SAME:
            starts.append(row)
            first = vector
    return [range(a, b) for a, b in pairwise([*starts, len(vectors)])]
