"""How far two circuits are the same: Jaccard and weighted overlap, with a null of random circuits.

- *Jaccard*: members of both over members of either (nodes or edges).
- *Weighted overlap*: sum of min(|a|, |b|) over sum of max(|a|, |b|), each first divided by its sum (Ruzicka 1958): 1 for
  equal shares of the total, whatever its size; no threshold decides.
- *Null*: every reader keeps its own weights, dealt anew among the sources that it could read. What two circuits share
  because some readers matter more than others is then in the null too.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .arrays import FloatArray

__all__ = ["dealt_anew", "jaccard", "weighted_overlap"]


def jaccard(one: npt.ArrayLike, other: npt.ArrayLike) -> float:
    """Members of both over members of either; NaN where both are empty.

    >>> jaccard([True, True, False], [True, False, True])
    0.3333333333333333
    """
    a, b = np.asarray(one, dtype=bool), np.asarray(other, dtype=bool)
    either = int((a | b).sum())
    return float((a & b).sum() / either) if either else float("nan")


def weighted_overlap(one: npt.ArrayLike, other: npt.ArrayLike) -> float:
    """Overlap of two sets of weights, by their shares of the total; NaN where one has none, or is not finite.

    >>> weighted_overlap([1.0, 1.0], [2.0, 2.0])
    1.0
    """
    a, b = np.abs(np.asarray(one, dtype=np.float64)), np.abs(np.asarray(other, dtype=np.float64))
    if not (a.sum() > 0 and b.sum() > 0 and np.isfinite(a).all() and np.isfinite(b).all()):
        return float("nan")
    a, b = a / a.sum(), b / b.sum()
    return float(np.minimum(a, b).sum() / np.maximum(a, b).sum())


def dealt_anew(weights: npt.ArrayLike, possible: npt.ArrayLike, draws: int, seed: int = 0) -> FloatArray:
    """(draw, source, reader) the weights of each reader, dealt anew among the sources that it could read.

    Args:
        weights: (source, reader), or their membership as 0 and 1.
        possible: (source, reader) which edges there can be.
        draws: how many.
    """
    values, allowed = np.asarray(weights, dtype=np.float64), np.asarray(possible, dtype=bool)
    rng = np.random.default_rng(seed)
    result = np.zeros((draws, *values.shape))
    for reader in range(values.shape[1]):
        rows = np.flatnonzero(allowed[:, reader])
        order = rng.permuted(np.tile(np.arange(len(rows)), (draws, 1)), axis=1)
        result[:, rows, reader] = values[rows, reader][order]
    return result
