"""Which rows of a table of angles are out of order? Numbers only; :mod:`.path` says what that means for checkpoints.

Training is a path: between checkpoints *i* and *k* lies *j*, and a path that went away to *j* does not come back. How it
can be known that it did, and which of the three is at fault, is in :mod:`.returns`. Here is what has to be done around it:
rows in a row that differ no more than rounding does are one point, and count once, so that seventy labels on one
checkpoint do not outvote the honest ones; and series too long for all triples are looked at in several passes.

>>> import numpy as np
>>> at = np.array([0.0, 1.0, 2.0, 9.0, 4.0, 5.0])
>>> [(point.rows, point.beside) for point in order(np.abs(at[:, None] - at)).out]
[(range(3, 4), (2, 4))]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .returns import RETURN, SAME, Array, beside, out_of_order

__all__ = ["Misplaced", "Order", "angles", "order"]

PLACES = 650
"""Places that are compared at once, as the work grows with their third power; more are dealt into several passes.

The longest published series has 609 checkpoints."""


BLOCK = 128
"""Vectors that are in memory in double precision at once."""


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


def angles(vectors: Sequence[npt.NDArray[np.floating]] | npt.NDArray[np.floating]) -> Array:
    """Angles between all rows.

    Args:
        vectors: (row, component); finite, none of them zero.

    Returns:
        (row, row), radians, 0 on the diagonal.
    """
    result = np.empty((len(vectors), len(vectors)))
    blocks = [slice(at, at + BLOCK) for at in range(0, len(vectors), BLOCK)]
    for here, mine in enumerate(blocks):
        rows = _directions(vectors[mine])
        for other in blocks[: here + 1]:
            product = rows @ (rows if other == mine else _directions(vectors[other])).T
            # the arc sine of the half chord is exact for small angles, where the arc cosine of the product is not
            chord = np.sqrt(np.clip(2.0 - 2.0 * product, 0.0, 4.0))
            result[mine, other] = 2.0 * np.arcsin(chord / 2.0)
            result[other, mine] = result[mine, other].T
    np.fill_diagonal(result, 0.0)
    return result


def _directions(vectors: Sequence[npt.NDArray[np.floating]] | npt.NDArray[np.floating]) -> Array:
    rows = np.array(vectors, dtype=np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def order(angle: Array) -> Order:
    """What is out of order; the last row is believed where it and others are the same.

    Args:
        angle: (row, row) angles, rows by step.

    Returns:
        Nothing is out of order among fewer than three rows: two points are always a path.
    """
    if not len(angle):
        return Order(0, [])
    runs = _runs(angle)
    first = np.array([run[0] for run in runs], dtype=np.intp)
    table = np.minimum.reduceat(np.minimum.reduceat(angle, first, axis=0), first, axis=1)
    sizes = np.array([len(run) for run in runs])
    out = np.zeros(len(runs), dtype=bool)
    passes = -(-len(runs) // PLACES)
    # dealt at random, as faults may be regular; every pass has the last point, which is at fault only if all say so
    dealt = np.random.Generator(np.random.PCG64(0)).permutation(len(runs)) % passes
    last: list[bool] = []
    for number in range(passes):
        some = np.flatnonzero((dealt == number) | (np.arange(len(runs)) == len(runs) - 1))
        found = out_of_order(table[np.ix_(some, some)], sizes[some])
        out[some[:-1]] = found[:-1]
        last.append(bool(found[-1]))
    out[-1] = all(last)
    return Order(len(runs), [_misplaced(table, runs, node, ~out) for node in np.flatnonzero(out).tolist()])


def _runs(angle: Array) -> list[range]:
    """Rows in a row that are one point: none of them farther than rounding from the first of them."""
    runs: list[range] = []
    start = 0
    for row in range(1, len(angle) + 1):
        if row == len(angle) or angle[start, row] > SAME:
            runs.append(range(start, row))
            start = row
    return runs


def _misplaced(table: Array, runs: list[range], node: int, kept: npt.NDArray[np.bool_]) -> Misplaced:
    """What to say about a point, given those that are in order."""
    sides = beside(node, kept)
    rows = tuple(runs[n][-1] if n < node else runs[n][0] for n in sides)
    same = [n for n in range(len(runs)) if n != node and table[node, n] <= SAME]
    if same:
        return Misplaced(runs[node], rows, runs[max(same, key=lambda n: (kept[n], n))][-1], True)
    others = [n for n in np.flatnonzero(kept).tolist() if n not in sides]
    nearest = min(others, key=lambda n: float(table[node, n]), default=node)
    if not sides or nearest == node or table[node, nearest] >= RETURN * table[node, sides].min():
        return Misplaced(runs[node], rows, None, False)
    return Misplaced(runs[node], rows, runs[nearest][-1], False)
