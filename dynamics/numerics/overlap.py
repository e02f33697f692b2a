"""How far two circuits are the same: Jaccard and weighted overlap, with a null of random circuits.

- *Jaccard*: members of both over members of either (nodes or edges).
- *Weighted overlap*: sum of min(|a|, |b|) over sum of max(|a|, |b|), each first divided by its sum (Ruzicka 1958): 1 for
  equal shares of the total, whatever its size; no threshold decides.
- *Shared*: sum of min(|a|, |b|), less where the signs differ (the intersection of two histograms, Swain and Ballard 1991, with a
  sign): 0 on average for weights whose signs have nothing to do with each other, whatever their sizes share.
- *Null*: every reader keeps its own weights, dealt anew among the sources that it could read. What two circuits share
  because some readers matter more than others is then in the null too.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .arrays import FloatArray

__all__ = ["dealt_anew", "jaccard", "jaccards", "shared", "weighted_overlap", "weighted_overlaps"]


def jaccard(one: npt.ArrayLike, other: npt.ArrayLike) -> float:
    """Members of both over members of either; NaN where both are empty.

    >>> jaccard([True, True, False], [True, False, True])
    0.3333333333333333
    """
    return float(jaccards(one, np.asarray(other)[None])[0])


def jaccards(one: npt.ArrayLike, others: npt.ArrayLike) -> FloatArray:
    """(other,) as :func:`jaccard`, of one set with each of many (other, ...)."""
    many = np.asarray(others, dtype=bool)
    a, b = np.asarray(one, dtype=bool).reshape(-1), many.reshape(len(many), -1)
    both, either = (a & b).sum(1), (a | b).sum(1)
    return np.asarray(np.where(either > 0, both / np.maximum(either, 1), np.nan))


def weighted_overlap(one: npt.ArrayLike, other: npt.ArrayLike) -> float:
    """Overlap of two sets of weights, by their shares of the total; NaN where one has none, or is not finite.

    >>> weighted_overlap([1.0, 1.0], [2.0, 2.0])
    1.0
    """
    return float(weighted_overlaps(one, np.asarray(other)[None])[0])


def weighted_overlaps(one: npt.ArrayLike, others: npt.ArrayLike) -> FloatArray:
    """(other,) as :func:`weighted_overlap`, of one set with each of many (other, ...)."""
    many = np.abs(np.asarray(others, dtype=np.float64))
    a, b = np.abs(np.asarray(one, dtype=np.float64)).reshape(-1), many.reshape(len(many), -1)
    whole, each = a.sum(), b.sum(1)
    if not (np.isfinite(a).all() and whole > 0):
        return np.full(len(b), np.nan)
    known = np.isfinite(b).all(1) & (each > 0)
    a, b = a / whole, b / np.where(known, each, np.nan)[:, None]
    with np.errstate(invalid="ignore"):  # those that are not known
        return np.asarray(np.minimum(a, b).sum(1) / np.maximum(a, b).sum(1))


def shared(one: npt.ArrayLike, other: npt.ArrayLike) -> FloatArray:
    """(...) sum over the last axis of the smaller of two weights, less where their signs differ; weights are taken as they are.

    >>> float(shared([0.5, 0.25, 0.25], [0.5, -0.25, 0.0]))
    0.25
    """
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    return np.asarray((np.abs(a + b) - np.abs(a - b)).sum(-1) / 2)


def dealt_anew(weights: npt.ArrayLike, possible: npt.ArrayLike, draws: int, seed: int = 0) -> FloatArray:
    """(draw, source, reader) the weights of each reader, dealt anew among the sources that it could read.

    Args:
        weights: (source, reader), or their membership as 0 and 1.
        possible: (source, reader) which edges there can be.
        draws: how many.
    """
    values, allowed = np.asarray(weights, dtype=np.float64), np.asarray(possible, dtype=bool)
    rng = np.random.default_rng(seed)
    result = np.zeros((draws, *allowed.shape))
    for reader in range(allowed.shape[1]):
        rows = np.flatnonzero(allowed[:, reader])
        order = rng.permuted(np.tile(rows, (draws, 1)), axis=1)
        result[:, rows, reader] = values[order, reader]
    return result
