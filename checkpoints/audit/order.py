"""Which rows of a table of angles are out of order? Numbers only; :mod:`.path` says what that means for checkpoints.

Training is a path: between two checkpoints *i* and *k* lies *j*, and a path that went away to *j* does not come back.
With ``A`` the angles between weights, ``A[i, k]`` is therefore no smaller than about the smaller of ``A[i, j]`` and
``A[j, k]``, for steps that undo each other half as well as for steps in one direction: independent steps of equal length
give a ratio of 1.41, steady drift gives 2, noise around one place gives 1. A *return*, that is a triple *i* < *j* < *k*
with a ratio below :data:`RETURN`, says that one of the three is not what its label says. What is looked for is the
smallest set of rows without which there are no returns (a hitting set; the greedy choice, then what can be put back).

Two things are apart from that. Rows in a row that differ no more than rounding does (:data:`SAME`) are one place, and
count once, so that seventy labels on one checkpoint do not outvote the honest ones. And a return to *exactly* the same
place is a statement about *i* and *k* alone: one of them is a copy.

>>> import numpy as np
>>> place = np.array([0.0, 1.0, 2.0, 9.0, 4.0, 5.0])
>>> [(m.rows, m.twin) for m in order(np.abs(place[:, None] - place)).out]
[(range(3, 4), None)]
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["RETURN", "SAME", "TELLING", "Misplaced", "Order", "angles", "order"]

Array = npt.NDArray[np.float64]
Triples = npt.NDArray[np.int32]

SAME = 3e-3
"""Radians: no farther apart than this are two copies of the same weights in two dtypes.

Rounding to bfloat16 turns a vector of weights by 1.6e-3 (2.3e-3 if all of them are just above a power of two), to float16
by an eighth of that."""

RETURN = 0.7
"""A path whose ends are this much nearer to each other than to what lies between has come back.

Training that was simulated in many ways, and that of small transformers, gave no ratio below 0.93, noise around one place
0.95; half of what independent steps give is 0.7."""

TELLING = 2.0
"""Of two rows with the same weights the one that is so much farther from its neighbours is the copy; else both may be."""


class Misplaced(NamedTuple):
    """A place that is out of order.

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
    """How many places the rows are, and which of those are out of order."""

    places: int
    out: list[Misplaced]


def angles(vectors: npt.NDArray[np.floating]) -> Array:
    """Angles between all rows.

    Args:
        vectors: (row, component); finite, none of them zero.

    Returns:
        (row, row), radians, 0 on the diagonal.
    """
    rows = vectors.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    # the arc sine of the half chord is exact for small angles, where the arc cosine of the product is not
    chord = np.sqrt(np.clip(2.0 - 2.0 * (rows @ rows.T), 0.0, 4.0))
    result = 2.0 * np.arcsin(chord / 2.0)
    np.fill_diagonal(result, 0.0)
    return result


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
    near, exact = _returns(table)
    out = _fewest(table, near, exact)
    out |= _copies(table, exact, out, [len(run) for run in runs])
    kept = set(range(len(runs))) - out
    found: list[Misplaced] = []
    for node in sorted(out):
        twin = _twin(table, node, kept)
        sides = tuple(runs[n][-1] if n < node else runs[n][0] for n in _beside(node, kept))
        same = twin is not None and bool(table[node, twin] <= SAME)
        found.append(Misplaced(runs[node], sides, None if twin is None else runs[twin][-1], same))
    return Order(len(runs), found)


def _runs(angle: Array) -> list[range]:
    """Rows in a row that are one place: none of them farther than rounding from the first of them."""
    runs: list[range] = []
    start = 0
    for row in range(1, len(angle) + 1):
        if row == len(angle) or angle[start, row] > SAME:
            runs.append(range(start, row))
            start = row
    return runs


def _returns(table: Array) -> tuple[Triples, Triples]:
    """Triples i < j < k where the path comes back near i, and those where it comes back to i itself; each (n, 3)."""
    near: list[Triples] = []
    exact: list[Triples] = []
    for j in range(1, len(table) - 1):
        ends = table[:j, j + 1 :]
        away = np.minimum(table[:j, j][:, None], table[j, j + 1 :][None, :])
        back = (ends < RETURN * away) & (away > 2 * SAME)  # less is a detour that two roundings could make
        for where, found in ((back & (ends > SAME), near), (back & (ends <= SAME), exact)):
            i, k = np.nonzero(where)
            found.append(np.stack([i, np.full_like(i, j), k + j + 1], axis=1).astype(np.int32))
    empty = np.empty((0, 3), dtype=np.int32)
    return np.concatenate([empty, *near]), np.concatenate([empty, *exact])


def _fewest(table: Array, returns: Triples, exact: Triples) -> set[int]:
    """A small set of nodes that has a member of every return; exact ones speak against their ends."""
    out: list[int] = []
    # with a single node between the two nobody knows whether that one is odd or they are copies
    left, pairs = returns, exact[exact[:, 2] - exact[:, 0] > 2]
    while len(left):
        worst = _worst(table, left, pairs, out)
        out.append(worst)
        left = left[(left != worst).all(axis=1)]
        pairs = pairs[(pairs != worst).all(axis=1)]
    # The greedy choice takes a good node among many bad ones; without those it is in nobody's way, or one bad node is
    # in the way that was not taken because of it.
    kept = set(range(len(table))) - set(out)
    for node in sorted(out, key=lambda n: _misfit(table, n, kept)):
        against = _among(returns, node, kept)
        if not len(against):
            kept.add(node)
            continue
        for other in sorted(kept & set(against[0].tolist())):
            rest = kept - {other}
            free = not len(_among(returns, node, rest)) and not len(_among(exact, node, rest))
            if free and TELLING * _misfit(table, node, rest) <= _misfit(table, other, rest):
                kept = rest | {node}
                break
    return set(range(len(table))) - kept


def _among(returns: Triples, node: int, kept: Collection[int]) -> Triples:
    """The returns that a node makes with those kept."""
    mine = returns[(returns == node).any(axis=1)]
    within: Triples = mine[np.isin(mine, [*kept, node]).all(axis=1)]
    return within


def _worst(table: Array, left: Triples, pairs: Triples, out: Sequence[int]) -> int:
    """The node in most of the returns; among equals the one in the middle of most, then the one that fits worst."""
    votes = np.bincount(np.concatenate([left.ravel(), pairs[:, [0, 2]].ravel()]), minlength=len(table))
    middle = np.bincount(left[:, 1], minlength=len(table))
    kept = set(range(len(table))) - set(out)
    tied = np.flatnonzero(votes == votes.max())
    return int(max(tied, key=lambda n: (middle[n], _misfit(table, int(n), kept))))


def _copies(table: Array, exact: Triples, out: set[int], sizes: Sequence[int]) -> set[int]:
    """Of nodes that are the same place although the path has been elsewhere in between: all but the one that fits."""
    found: set[int] = set()
    while True:
        gone = out | found
        left = exact[~np.isin(exact, list(gone)).any(axis=1)]
        if not len(left):
            return found
        between = {(int(i), int(k)): left[(left[:, 0] == i) & (left[:, 2] == k), 1] for i, _, k in left}
        stay = [m for (i, k), m in between.items() if len(m) == 1 and sizes[m[0]] < min(sizes[i], sizes[k])]
        if stay:  # a place where the path stays, on both sides of one that is fewer rows: that one is odd
            found |= {int(m[0]) for m in stay}
            continue
        group = _group(left)
        kept = set(range(len(table))) - gone - group
        found |= group - _home(table, group, kept)


def _group(pairs: Triples) -> set[int]:
    """The first node of a pair and all nodes that are its place too."""
    group = {int(pairs[0, 0])}
    while True:
        more = group | {int(n) for i, _, k in pairs if i in group or k in group for n in (i, k)}
        if more == group:
            return group
        group = more


def _home(table: Array, group: set[int], kept: set[int]) -> set[int]:
    """The member whose place it is, if that can be told: the last row of all, or the one that fits much better."""
    if len(table) - 1 in group:
        return {len(table) - 1}
    best, second = sorted(group, key=lambda n: _misfit(table, n, kept))[:2]
    return {best} if _misfit(table, second, kept) >= TELLING * _misfit(table, best, kept) else set()


def _misfit(table: Array, node: int, kept: set[int]) -> float:
    """How far its two neighbours are on average, of those kept; copies of it do not vouch for it."""
    beside = _beside(node, [n for n in kept if table[node, n] > SAME])
    return float(np.mean([table[node, n] for n in beside])) if beside else np.inf


def _beside(node: int, kept: Collection[int]) -> list[int]:
    """Its neighbours among those kept: the last before it and the first after it."""
    before = max((n for n in kept if n < node), default=None)
    after = min((n for n in kept if n > node), default=None)
    return [n for n in (before, after) if n is not None]


def _twin(table: Array, node: int, kept: set[int]) -> int | None:
    """The node that it is the same as, if possible one that is kept; else the kept one that it is much nearer to."""
    same = [n for n in range(len(table)) if n != node and table[node, n] <= SAME]
    if same:
        return max(same, key=lambda n: (n in kept, n))
    beside = _beside(node, kept)
    others = kept - {*beside}
    if not beside or not others:
        return None
    nearest = min(others, key=lambda n: table[node, n])
    return nearest if table[node, nearest] < RETURN * min(table[node, n] for n in beside) else None
