"""Angles between vectors of which there are too many to hold: they are read where they are, some at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .returns import Array

__all__ = ["BLOCK", "Indices", "Vectors", "angles", "apart", "blocks", "each"]

Indices = npt.NDArray[np.intp]

BLOCK = 64
"""Vectors that are in memory in double precision at once."""


class Vectors(Protocol):
    """(row, component): an array, or what reads some rows of one."""

    def __len__(self) -> int:
        """How many rows."""

    def __getitem__(self, rows: Any, /) -> npt.NDArray[Any]:
        """(index, component) the rows of an array of indices."""


def blocks(count: int) -> Iterator[slice]:
    """So many, :data:`BLOCK` at a time."""
    return (slice(at, min(at + BLOCK, count)) for at in range(0, count, BLOCK))


def each(vectors: Vectors, rows: Indices | None = None) -> Iterator[npt.NDArray[Any]]:
    """Rows one after the other, all or these, read a block at a time."""
    rows = np.arange(len(vectors)) if rows is None else rows
    for some in blocks(len(rows)):
        yield from vectors[rows[some]]


def angles(one: npt.NDArray[Any], other: npt.NDArray[Any] | None = None) -> Array:
    """Angles between all rows, or between those of two tables.

    Args:
        one: (row, component); finite, none of them zero.
        other: the same; None for ``one`` itself.

    Returns:
        (row, other row), radians; 0 on the diagonal of ``one`` with itself.
    """
    columns = one if other is None else other
    result = np.empty((len(one), len(columns)))
    for mine in blocks(len(one)):
        rows = _directions(one[mine])
        for theirs in blocks(len(columns)):
            if other is None and theirs.start > mine.start:
                break
            product = rows @ (rows if other is None and theirs == mine else _directions(columns[theirs])).T
            # the arc sine of the half chord is exact for small angles, where the arc cosine of the product is not
            chord = np.sqrt(np.clip(2.0 - 2.0 * product, 0.0, 4.0))
            result[mine, theirs] = 2.0 * np.arcsin(chord / 2.0)
            if other is None:
                result[theirs, mine] = result[mine, theirs].T
    if other is None:
        np.fill_diagonal(result, 0.0)
    return result


def apart(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """The angle between two vectors."""
    return float(angles(one[None], other[None])[0, 0])


def _directions(vectors: npt.NDArray[Any]) -> Array:
    rows = np.array(vectors, dtype=np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows
