"""Nearest, second nearest and all pairs above a threshold in a table of scores too large to hold, block by block.

The table (row, column) of 32,768 x 32,768 cosines takes 4 GB and a second one for its mask. Here one block exists at a
time: it is made, its best entries by row and by column are merged into what is known, and it is overwritten. What is
found does not depend on how the table is cut, up to the rounding of differently shaped matrix products.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .arrays import IntArray

__all__ = [
    "BLOCK",
    "CorrelationScores",
    "CosineScores",
    "Nearest",
    "ScoreBlocks",
    "ScoredPairs",
    "pieces",
    "scan_scores",
]

Table = npt.NDArray[np.float32]

BLOCK = 2048
"""Rows and columns of a block: 16 MB of scores, and matrix products of this size run at full speed."""


class ScoreBlocks(Protocol):
    """A table of scores that is made in blocks."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""

    def block(self, rows: slice, columns: slice) -> Table:
        """(row, column) scores that the caller may overwrite; -inf for a row or column that has none."""


@dataclass(frozen=True)
class Nearest:
    """For every row (or column) its largest score.

    Attributes:
        index: (row,) where it is; -1 where there is no score. The first one of equals.
        score: (row,) the largest score; -inf where there is none.
        second: (row,) the second largest, which equals ``score`` in a tie; -inf where there is none.
    """

    index: IntArray
    score: Table
    second: Table


@dataclass(frozen=True)
class ScoredPairs:
    """Pairs of a row and a column with their score, each (pair,)."""

    rows: IntArray
    columns: IntArray
    scores: Table


class CosineScores:
    """Cosines between the rows of two arrays.

    Args:
        one: (row, d) vectors; any float dtype, may be memory-mapped.
        other: (column, d) vectors. A vector of length 0 has no cosine.

    Raises:
        ValueError: shapes do not fit.
    """

    def __init__(self, one: npt.NDArray[Any], other: npt.NDArray[Any]) -> None:
        if one.ndim != 2 or other.ndim != 2 or one.shape[1] != other.shape[1]:
            raise ValueError(f"shapes are {one.shape} and {other.shape}; expected (row, d) and (column, d)")
        self._one, self._other = one, other
        self._last: tuple[slice, Table, npt.NDArray[np.bool_]] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self._one), len(self._other)

    def block(self, rows: slice, columns: slice) -> Table:
        """(row, column) cosines."""
        if self._last is None or self._last[0] != rows:
            self._last = (rows, *_unit(self._one[rows]))
        _, left, left_dead = self._last
        right, right_dead = _unit(self._other[columns])
        scores = left @ right.T
        if left_dead.any() or right_dead.any():
            scores[left_dead] = -np.inf
            scores[:, right_dead] = -np.inf
        return scores


class CorrelationScores:
    """Pearson correlations between the columns of two tables over the same tokens.

    Args:
        one: (token, row) activations, as a scipy sparse array in CSC layout: what fires on few tokens costs little.
        other: (token, column) activations on the same tokens. A feature that is constant has no correlation.

    Raises:
        ValueError: shapes do not fit.
    """

    def __init__(self, one: Any, other: Any) -> None:
        if one.shape[0] != other.shape[0]:
            raise ValueError(f"there are {one.shape[0]} and {other.shape[0]} tokens; expected the same tokens")
        self._one, self._other = one, other
        self._moments = _moments(one), _moments(other)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self._one.shape[1]), int(self._other.shape[1])

    def block(self, rows: slice, columns: slice) -> Table:
        """(row, column) correlations."""
        (left_mean, left_sd), (right_mean, right_sd) = self._moments
        products = (self._one[:, rows].T @ self._other[:, columns]).toarray() / self._one.shape[0]
        products -= np.outer(left_mean[rows], right_mean[columns])
        spread = np.outer(left_sd[rows], right_sd[columns])
        return np.where(spread > 0, products / np.where(spread > 0, spread, 1.0), -np.inf).astype(np.float32)


def pieces(length: int, block: int) -> Iterator[slice]:
    """Slices of at most ``block`` that cover ``length``."""
    for first in range(0, length, block):
        yield slice(first, min(first + block, length))


def scan_scores(
    scores: ScoreBlocks, *, above: float | None = None, most: int = 32, block: int = BLOCK
) -> tuple[Nearest, Nearest, ScoredPairs]:
    """One pass over a table of scores.

    Args:
        scores: the table.
        above: smallest score of the pairs that are returned; None for no pairs.
        most: a pair is returned only if it is among this many largest of its row or of its column, so that memory is
            bounded by ``most`` x (rows + columns).
        block: rows and columns of a block.

    Returns:
        Nearest column of every row, nearest row of every column, and the pairs, by row and column.
    """
    height, width = scores.shape
    by_row, by_column = _Best(height), _Best(width)
    kept: list[tuple[IntArray, IntArray, Table]] = []
    for rows in pieces(height, block):
        for columns in pieces(width, block):
            table = scores.block(rows, columns)
            if above is not None:
                kept.append(_above(table, above, most, rows.start, columns.start))
            by_row.merge(rows, *_best_of_rows(table), offset=columns.start)
            by_column.merge(columns, *_best_of_columns(table), offset=rows.start)
        if sum(len(part[0]) for part in kept) > 4 * most * (height + width):
            kept = [_pruned(kept, most)]
    pairs = _pruned(kept, most) if kept else (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    return by_row.nearest(), by_column.nearest(), ScoredPairs(*pairs)


class _Best:
    """The largest and second largest score so far."""

    def __init__(self, length: int) -> None:
        self.index = np.full(length, -1, dtype=np.int64)
        self.score = np.full(length, -np.inf, dtype=np.float32)
        self.second = np.full(length, -np.inf, dtype=np.float32)

    def merge(self, where: slice, index: IntArray, score: Table, second: Table, *, offset: int) -> None:
        better = score > self.score[where]
        lower = np.minimum(score, self.score[where])
        self.second[where] = np.maximum(np.maximum(second, self.second[where]), lower)
        self.index[where] = np.where(better, index + offset, self.index[where])
        self.score[where] = np.maximum(score, self.score[where])

    def nearest(self) -> Nearest:
        return Nearest(self.index, self.score, self.second)


def _best_of_rows(table: Table) -> tuple[IntArray, Table, Table]:
    at = np.arange(len(table))
    index = table.argmax(axis=1)
    score = table[at, index]
    table[at, index] = -np.inf
    second = table.max(axis=1)
    table[at, index] = score
    return index, score, second


def _best_of_columns(table: Table) -> tuple[IntArray, Table, Table]:
    at = np.arange(table.shape[1])
    score = table.max(axis=0)
    # argmax along the columns takes as long as the product that made the table: compare with the largest instead
    rows, columns = np.nonzero(table == np.where(np.isneginf(score), np.nan, score))
    index = np.zeros(score.size, dtype=np.int64)
    index[columns[::-1]] = rows[::-1]  # the first of equals
    table[index, at] = -np.inf
    second = table.max(axis=0)
    table[index, at] = score
    return index, score, second


def _above(table: Table, above: float, most: int, row: int, column: int) -> tuple[IntArray, IntArray, Table]:
    """The pairs of one block."""
    wanted = table >= above
    if np.count_nonzero(wanted) > most * sum(table.shape):
        wanted &= (table >= _kth(table, most, 1)) | (table >= _kth(table, most, 0))
    rows, columns = np.nonzero(wanted)
    return rows + row, columns + column, table[rows, columns]


def _kth(table: Table, most: int, axis: int) -> Table:
    """The ``most``-th largest score along an axis, which is kept."""
    length = table.shape[axis]
    if length <= most:
        return np.asarray(table.min(axis=axis, keepdims=True))
    return np.take(np.partition(table, length - most, axis=axis), [length - most], axis=axis)


def _pruned(parts: list[tuple[IntArray, IntArray, Table]], most: int) -> tuple[IntArray, IntArray, Table]:
    """What is among the largest of its row or of its column."""
    rows, columns, scores = (np.concatenate([part[i] for part in parts]) for i in range(3))
    keep = (_rank(rows, scores) < most) | (_rank(columns, scores) < most)
    order = np.lexsort((columns[keep], rows[keep]))
    return rows[keep][order], columns[keep][order], scores[keep][order]


def _rank(groups: IntArray, scores: Table) -> IntArray:
    """(pair,) how many scores of the same group are larger (equal ones share the rank of the first)."""
    order = np.lexsort((-scores, groups))
    ordered, values = groups[order], scores[order]
    index = np.arange(order.size)
    first = np.r_[True, ordered[1:] != ordered[:-1]] if order.size else np.empty(0, dtype=bool)
    starts = np.maximum.accumulate(np.where(first, index, 0))
    new = first | np.r_[True, values[1:] != values[:-1]] if order.size else first
    shared = np.maximum.accumulate(np.where(new, index, 0))
    rank = np.empty(order.size, dtype=np.int64)
    rank[order] = shared - starts
    return rank


def _unit(vectors: npt.NDArray[Any]) -> tuple[Table, npt.NDArray[np.bool_]]:
    """Vectors of length 1, and which had no direction."""
    values = np.asarray(vectors, dtype=np.float32)
    length = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
    dead = ~(np.isfinite(length) & (length > 0))
    scale = np.where(dead, 0.0, 1.0 / np.where(dead, 1.0, length)).astype(np.float32)
    return np.where(dead[:, None], np.float32(0), values * scale[:, None]), dead


def _moments(table: Any) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and standard deviation of every column; 0 for one that is constant up to rounding."""
    mean = np.asarray(table.mean(axis=0), dtype=np.float64).ravel()
    square = np.asarray(table.multiply(table).mean(axis=0), dtype=np.float64).ravel()
    variance = square - mean**2
    return mean, np.sqrt(np.where(variance > 1e-6 * square, variance, 0.0))
