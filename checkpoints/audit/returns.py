"""Which points are at fault where a path returns to a point that it has left?

Let ``A[i, k]`` be the angle between the weights at points *i* < *j* < *k* of a training. It is no smaller than about the
smaller of ``A[i, j]`` and ``A[j, k]``: steady drift makes it the sum, independent steps of equal length make it 1.41 times
as large as either, noise around one point makes all three equal. A *return* is a triple for which it is less than
:data:`RETURN` of that. One of the three then is not what its label says, and the answer sought is the smallest set of
points without which there are no returns (a hitting set: the greedy choice, corrected by what can be put back).

A return to *exactly* the same point is a statement about *i* and *k* alone: one of them is a copy, and whatever is in
between is no less credible for it.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

__all__ = ["RETURN", "SAME", "TELLING", "Array", "Mask", "beside", "out_of_order"]

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int32]

SAME = 3e-3
"""Radians: no farther apart than this are two copies of the same weights in two dtypes.

Rounding to bfloat16 turns a vector of weights by 1.6e-3 (2.3e-3 if all of them are just above a power of two), to float16
by an eighth of that."""

RETURN = 0.7
"""A path whose ends are this much nearer to each other than to what lies between has come back.

Trainings simulated in many ways, and those of small transformers, gave no ratio below 0.93 (random walks 1.2 and above, the
transformers 1.4, noise around one point 0.95); half of what independent steps give is 0.7."""

TELLING = 2.0
"""Of two points with the same weights the one so much farther from its neighbours is the copy; else either may be."""


def out_of_order(table: Array, sizes: npt.NDArray[np.integer]) -> Mask:
    """The points at fault.

    Args:
        table: (point, point) angles, points by step; next ones differ by more than :data:`SAME`.
        sizes: (point,) how many labels are on each.

    Returns:
        (point,). Among copies of the last point, that one is believed.
    """
    near, exact = _returns(table)
    kept = _fewest(table, near, exact)
    return ~_without_copies(table, exact, kept, sizes)


class _Triples:
    """Triples of points, each (n, 3), and which of them a point is in."""

    def __init__(self, members: Numbers, points: int) -> None:
        self.members = members
        order = np.argsort(members.ravel(), kind="stable")
        bounds = np.searchsorted(members.ravel()[order], np.arange(points + 1))
        self._of = [order[a:b] // 3 for a, b in pairwise(bounds)]

    def of(self, point: int, among: Mask) -> Numbers:
        """Those that a point makes with others of the given ones."""
        mine = self.members[self._of[point]]
        inside: Numbers = mine[(among[mine] | (mine == point)).all(axis=1)]
        return inside


def _returns(table: Array) -> tuple[_Triples, _Triples]:
    """Where the path comes back near i, and where it comes back to i itself."""
    near: list[Numbers] = [np.empty((0, 3), dtype=np.int32)]
    exact = near[:]
    for j in range(1, len(table) - 1):
        ends = table[:j, j + 1 :]
        away = np.minimum(table[:j, j][:, None], table[j, j + 1 :][None, :])
        back = (ends < RETURN * away) & (away > 2 * SAME)  # less is a detour that two roundings could make
        if not back.any():
            continue
        for where, found in ((back & (ends > SAME), near), (back & (ends <= SAME), exact)):
            i, k = np.nonzero(where)
            found.append(np.stack([i, np.full_like(i, j), k + j + 1], axis=1).astype(np.int32))
    return _Triples(np.concatenate(near), len(table)), _Triples(np.concatenate(exact), len(table))


def _fewest(table: Array, near: _Triples, exact: _Triples) -> Mask:
    """Which points can stay so that no return is left, other than exact ones."""
    kept = _greedy(table, near, exact)
    # The greedy choice takes a good point among many bad ones; without those it contradicts none, or one bad point is
    # taken for good because of it.
    for point in sorted(np.flatnonzero(~kept).tolist(), key=lambda p: _misfit(table, p, kept)):
        against = near.of(point, kept)
        if not len(against):
            kept[point] = True
            continue
        for other in sorted({*against[0].tolist()} - {point}):
            rest = kept.copy()
            rest[other] = False
            free = not len(near.of(point, rest)) and not len(exact.of(point, rest))
            if free and TELLING * _misfit(table, point, rest) <= _misfit(table, other, rest):
                kept = rest
                kept[point] = True
                break
    return kept


def _greedy(table: Array, near: _Triples, exact: _Triples) -> Mask:
    """What is left when the point in most returns is taken away again and again; of equals the one that fits worst.

    The point in the middle counts twice, as the two ends at least agree with each other. Exact returns count against
    their ends, unless a single point is between: then it is not known whether that one is odd or the ends are copies.
    """
    points = len(table)
    pairs = _Triples(exact.members[exact.members[:, 2] - exact.members[:, 0] > 2], points)

    def votes(returns: Numbers, copies: Numbers) -> npt.NDArray[np.intp]:
        against = np.concatenate([returns.ravel(), returns[:, 1], copies[:, [0, 2]].ravel()])
        return np.bincount(against, minlength=points)

    score, left = votes(near.members, pairs.members), len(near.members)
    kept = np.ones(points, dtype=bool)
    while left:
        tied = np.flatnonzero(kept & (score == score[kept].max()))
        worst = int(max(tied.tolist(), key=lambda p: _misfit(table, p, kept)))
        gone = near.of(worst, kept)
        score -= votes(gone, pairs.of(worst, kept))
        left -= len(gone)
        kept[worst] = False
    return kept


def _without_copies(table: Array, exact: _Triples, kept: Mask, sizes: npt.NDArray[np.integer]) -> Mask:
    """Of points that are the same though the path has been elsewhere in between, keep the one that belongs there."""
    kept = kept.copy()
    left = exact.members
    while True:
        left = left[kept[left].all(axis=1)]
        if not len(left):
            return kept
        _, first, between = np.unique(left[:, 0] * len(table) + left[:, 2], return_index=True, return_counts=True)
        i, j, k = left[first[between == 1]].T
        odd = j[sizes[j] < np.minimum(sizes[i], sizes[k])]
        if len(odd):  # a point where the path stays, on both sides of one with fewer labels: that one is odd
            kept[odd] = False
            continue
        group = _group(left)
        kept[group] = False
        kept[_home(table, group, kept)] = True


def _group(pairs: Numbers) -> list[int]:
    """The ends of the first triple, and all points that are the same as those."""
    group = {int(pairs[0, 0])}
    while True:
        touched = np.isin(pairs[:, [0, 2]], list(group)).any(axis=1)
        more = {*pairs[touched][:, [0, 2]].ravel().tolist()}
        if more <= group:
            return sorted(group)
        group |= more


def _home(table: Array, group: list[int], kept: Mask) -> list[int]:
    """The member that belongs there, if that can be said: the last of all, or the one that fits much better."""
    if group[-1] == len(table) - 1:
        return group[-1:]
    best, second = sorted((_misfit(table, point, kept), point) for point in group)[:2]
    return [best[1]] if second[0] >= TELLING * best[0] else []


def _misfit(table: Array, point: int, kept: Mask) -> float:
    """How far its two neighbours are on average, of those kept; copies of it do not vouch for it."""
    sides = beside(point, kept & (table[point] > SAME))
    return float(table[point, sides].mean()) if sides else np.inf


def beside(point: int, kept: Mask) -> list[int]:
    """The neighbours of a point: of those kept the last before it and the first after it."""
    before, after = np.flatnonzero(kept[:point]), np.flatnonzero(kept[point + 1 :]) + point + 1
    return [int(n) for n in (*before[-1:], *after[:1])]
