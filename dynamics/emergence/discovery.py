r"""Which of many curves emerged at all, and when had enough of a set of heads or features emerged?

With thousands of heads or features, a 5% error rate for each gives hundreds of false finds. :func:`discover` controls
the *false discovery rate*: the expected share of false ones among those reported (Benjamini and Hochberg 1995; for any
dependence between curves, Benjamini and Yekutieli 2001). P values are of permutation kind, (1 + k)/(1 + n) for k of n
null statistics that are as large (Phipson and Smyth 2010). n draws give none below 1/(1 + n), so that a few finds
among 10,000 need thousands of draws.

:func:`found_since` and :func:`count_onset` date a *set*: published onsets of induction heads by the best head's score
and by the number of heads differ tenfold. A unit counts at a checkpoint if it was discovered and its lasting run above
its own null has begun there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

from dynamics.emergence.definitions import Onset
from dynamics.emergence.many import assess_many
from dynamics.emergence.runs import CODES
from dynamics.emergence.types import Interval, State, tokens_of
from dynamics.numerics.arrays import BoolArray, IntArray

__all__ = ["count_onset", "discover", "found_since"]

_DRAWS = 1000
"""Bootstrap draws over units, for an interval; each is a sort of integers, so that many cost little."""


def discover(p: npt.ArrayLike, *, rate: float = 0.05, method: Literal["bh", "by"] = "bh") -> BoolArray:
    """Which curves are found at a false discovery rate of at most ``rate``.

    Args:
        p: (curve,) p values; NaN (not measurable) is never found, and does not count.
        rate: expected share of false finds.
        method: ``"bh"`` for independent or positively dependent curves, ``"by"`` for any dependence.

    >>> discover([0.001, 0.2, 0.012, float("nan")]).tolist()
    [True, False, True, False]
    """
    values = np.asarray(p, dtype=np.float64)
    known = np.isfinite(values)
    found = np.zeros(values.shape, dtype=np.bool_)
    if known.any():
        order = np.argsort(values[known])
        rank = np.arange(1, order.size + 1)
        least = values[known][order] * (order.size / rank) * (1.0 if method == "bh" else (1.0 / rank).sum())
        adjusted = np.empty(order.size)
        adjusted[order] = np.minimum.accumulate(least[::-1])[::-1]
        found[known] = adjusted <= rate
    return found


def found_since(
    steps: npt.ArrayLike,
    units: npt.NDArray[np.floating],
    *,
    null: npt.ArrayLike | Callable[[slice], npt.ArrayLike],
    rate: float = 0.05,
    chunk: int = 1000,
) -> IntArray:
    """(unit,) number of the checkpoint from which each unit stays above its own null, for units that are found.

    The number of checkpoints stands for "never": the unit was not found, or was lost again.

    Args:
        steps: (checkpoint,) optimizer steps.
        units: (unit, checkpoint) the curve of each.
        null, chunk: as of :func:`assess_many`: (checkpoint, null_draw) for all, or a callback to
            (unit, checkpoint, null_draw).
        rate: of :func:`discover`.
    """
    many = assess_many(steps, units, null=null, chunk=chunk)
    lasting = np.isin(many.state, [CODES.index("emerged"), CODES.index("present from start")])
    found = discover(np.where(many.state == CODES.index("not measurable"), np.nan, many.p_value), rate=rate)
    return np.asarray(np.where(lasting & found, many.start, units.shape[1]))


def count_onset(
    steps: npt.ArrayLike,
    since: npt.ArrayLike,
    *,
    share: float = 0.5,
    of: Literal["found", "all"] = "found",
    tokens: npt.ArrayLike | None = None,
) -> Onset:
    """When a share of the units (heads, features) had risen above their own nulls for good.

    Args:
        steps: (checkpoint,) optimizer steps, measured ones only.
        since: (unit,) of :func:`found_since`.
        share: of the units that has to be above.
        of: a share of the units that are ever ``found``, or of ``all``.
        tokens: (checkpoint,) tokens seen.

    Returns:
        The onset, with a 95% percentile interval over resampled units. Units that are lost again do not count.
    """
    if not 0.0 < share <= 1.0:
        raise ValueError(f"share is {share}; expected a number above 0 and at most 1")
    at, begun = np.asarray(steps), np.asarray(since, dtype=np.int64)

    def onset(since: IntArray) -> IntArray:
        """(draw,) first checkpoint at which enough of the units (draw, unit) have begun."""
        ordered = np.sort(since, axis=1)
        total = (since < at.size).sum(axis=1) if of == "found" else np.full(len(since), since.shape[1])
        needed = np.maximum(np.ceil(share * total - 1e-9).astype(np.int64), 1)
        return np.asarray(ordered[np.arange(len(since)), needed - 1])

    def interval(before: int, by: int) -> Interval:
        return Interval(None if before < 0 else int(at[before]), int(at[by]) if by < at.size else None)

    first = int(onset(begun[None])[0])
    resampled = onset(begun[np.random.default_rng(0).integers(0, begun.size, size=(_DRAWS, begun.size))])
    low, high = (int(np.quantile(resampled, q, method="closest_observation")) for q in (0.025, 0.975))
    between = interval(first - 1, first)
    state: State = "not emerged" if first >= at.size else "present from start" if first == 0 else "emerged"
    return Onset(
        definition="count",
        state=state,
        between=between,
        range=interval(min(low, first) - 1, max(high, first)),
        tokens=tokens_of(between, at, tokens),
        reason="" if first < at.size else f"{int((begun < at.size).sum())} of {begun.size} units found and not lost",
    )
