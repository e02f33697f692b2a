r"""Where does a noisy rising curve cross a level? An estimate that uses all checkpoints, and its interval.

With :math:`z_c = (v_c - h_c) / s_c`, the height above the level h in units of the noise, and :math:`S(t)` the sum of z
up to t (z linear between checkpoints, the checkpoint's number for time), the crossing is :math:`\hat t = \arg\min S`:
before it the curve is below the level on balance, after it above. Where the curve rises this is the inverse of its
isotonic regression (Groeneboom 1985), but a later dip or a late decline does not move it, unless it outweighs the rise.
A single checkpoint above or below by chance does not either, as it would with the first crossing.

The statistic of a position is :math:`T(t_0) = S(t_0) - \min S`; its 95% quantile comes from noise about a fitted curve
(:mod:`dynamics.emergence.shapes`) that is moved so that it crosses at a known position, and the interval is all
:math:`t_0` with :math:`T(t_0) \le q^*`, as there.

Positions are numbers of checkpoints: 2.5 lies half way, in log10(step + 1), between the third and the fourth. Position 0
stands for "at or before the first checkpoint", the last one for "at or after the last".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..numerics.arrays import FloatArray

__all__ = ["Crossing", "crossing", "first_above", "first_above_range", "half_level", "interval", "quantile", "summit"]


FINE = 16
"""Parts of the stretch between two checkpoints on which the statistic is looked at."""


@dataclass(frozen=True)
class Crossing:
    """Crossings of several curves.

    Attributes:
        position: (curve,) where S is smallest.
        lowest: (curve,) S there.
        sums: (curve, checkpoint) S at the checkpoints.
        height: (curve, checkpoint) z.
    """

    position: FloatArray
    lowest: FloatArray
    sums: FloatArray
    height: FloatArray

    def at(self, position: FloatArray) -> FloatArray:
        """S of every curve at positions (position,) or (curve, 1): (curve, position)."""
        curves, checkpoints = self.sums.shape
        where = np.broadcast_to(position, (curves, np.shape(position)[-1]))
        left = np.clip(np.floor(where).astype(np.int64), 0, checkpoints - 2)
        share = where - left
        here = np.take_along_axis(self.height, left, axis=1)
        there = np.take_along_axis(self.height, left + 1, axis=1)
        return np.asarray(np.take_along_axis(self.sums, left, axis=1) + share * (here + 0.5 * share * (there - here)))


def crossing(height: FloatArray) -> Crossing:
    """The crossing of zero of curves (curve, checkpoint), at least two checkpoints, by the smallest sum up to it."""
    left, right = height[:, :-1], height[:, 1:]
    steps = 0.5 * (left + right)
    sums = np.concatenate([np.zeros((len(height), 1)), steps.cumsum(axis=1)], axis=1)
    rising = (left < 0) & (right > 0)
    share = np.divide(-left, right - left, out=np.zeros_like(left), where=rising)
    between = np.where(rising, sums[:, :-1] + 0.5 * share * left, np.inf)
    best = between.argmin(axis=1)
    rows = np.arange(len(height))
    inner = between[rows, best]
    position, lowest = best + share[rows, best], inner
    # Without a crossing inside, or with all of the curve below (above) on balance: the last (first) end.
    for end in (height.shape[1] - 1, 0):
        beyond = sums[:, end] < lowest
        position, lowest = np.where(beyond, float(end), position), np.where(beyond, sums[:, end], lowest)
    return Crossing(position=np.asarray(position), lowest=np.asarray(lowest), sums=sums, height=height)


def half_level(curves: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Floor and plateau (curve,) of curves (curve, checkpoint).

    The floor is the mean over the earlier half of the checkpoints before the crossing of the middle between them, the
    plateau the mean over the later half of those after it: what lies near the rise belongs to neither. Found from the
    split into two levels with the least squares (Fisher 1958), and once more from the crossing that follows.
    """
    rows, checkpoints = curves.shape
    index = np.arange(rows)
    total = curves.cumsum(axis=1)
    n = np.arange(1, checkpoints)
    before = total[:, :-1] / n
    after = (total[:, -1:] - total[:, :-1]) / (checkpoints - n)
    split = ((after - before) * np.abs(after - before) * n * (checkpoints - n)).argmax(axis=1)
    floor, plateau = before[index, split], after[index, split]
    for _ in range(2):
        position = crossing(curves - 0.5 * (floor + plateau)[:, None]).position
        first = np.ceil(0.5 * np.clip(np.floor(position) + 1, 1, checkpoints - 1)).astype(np.int64)
        last = np.ceil(0.5 * np.clip(checkpoints - 1 - np.floor(position), 1, checkpoints - 1)).astype(np.int64)
        floor = total[index, first - 1] / first
        plateau = (total[index, -1] - np.where(last < checkpoints, total[index, checkpoints - 1 - last], 0.0)) / last
    return floor, plateau


def interval(found: Crossing, limit: float) -> tuple[float, float]:
    """The outermost positions of one curve whose T does not exceed ``limit``.

    An end at position 0 or at the last one says that the interval is open there.
    """
    checkpoints = found.sums.shape[1]
    positions = np.linspace(0.0, checkpoints - 1.0, (checkpoints - 1) * FINE + 1)
    statistic = found.at(positions)[0] - float(found.lowest[0])
    kept = np.flatnonzero(statistic <= limit + 1e-12)
    best = float(found.position[0])
    if not kept.size:
        return best, best

    def edge(inner: int, outer: int) -> float:
        share = (limit - statistic[inner]) / (statistic[outer] - statistic[inner])
        return float(positions[inner] + share * (positions[outer] - positions[inner]))

    first, last = int(kept[0]), int(kept[-1])
    low = edge(first, first - 1) if first else 0.0
    high = edge(last, last + 1) if last < positions.size - 1 else checkpoints - 1.0
    return min(low, best), max(high, best)


def first_above(found: Crossing) -> FloatArray:
    """(curve, checkpoint + 1) the smallest S if checkpoint c is the first above; column "checkpoints": none is."""
    left, right = found.height[:, :-1], found.height[:, 1:]
    rising = (left < 0) & (right > 0)
    share = np.divide(-left, right - left, out=np.zeros_like(left), where=rising)
    ends = np.minimum(found.sums[:, :-1], found.sums[:, 1:])
    between = np.where(rising, found.sums[:, :-1] + 0.5 * share * left, ends)
    return np.concatenate([found.sums[:, :1], between, found.sums[:, -1:]], axis=1)


def first_above_range(
    values: FloatArray,
    threshold: FloatArray,
    fitted: list[tuple[FloatArray, FloatArray]],
    residuals: FloatArray,
    level: float,
) -> tuple[int, int]:
    """Confidence set of the first checkpoint whose *expected* value is above the threshold, as (earliest, latest).

    Position and statistic are those of the module, but a checkpoint is kept for the best crossing between it and the one
    before, and the quantile is of that statistic: where checkpoints are far apart, a set on the checkpoints that was
    rounded outward from an interval of positions would cover nearly always.

    Args:
        values: (checkpoint,) the curve.
        threshold: (checkpoint,) taken as known.
        fitted: fitted curves and their noise, (checkpoint,) each; the largest quantile of them is taken.
        residuals: (checkpoint, draw) noise curves of unit variance.
        level: of the set.

    Returns:
        Positions; the number of checkpoints for "none".
    """
    limit, noise = 0.0, fitted[0][1]
    for mean, scale in fitted:
        true = crossing(((mean - threshold) / scale)[None])
        index = int(first_above(true)[0].argmin())
        drawn = crossing((mean + residuals.T * scale - threshold) / scale)
        limit = max(limit, quantile(first_above(drawn)[:, index] - drawn.lowest, level))
    found = crossing(((values - threshold) / noise)[None])
    kept = np.flatnonzero(first_above(found)[0] - found.lowest[0] <= limit + 1e-12)
    return int(kept[0]), int(kept[-1])


def quantile(sample: FloatArray, level: float) -> float:
    """The conformal quantile (Vovk et al. 2005): the ceil(level (n + 1))-th smallest."""
    rank = min(int(np.ceil(level * (sample.size + 1) - 1e-9)), sample.size)
    return float(np.sort(sample)[rank - 1])


def summit(values: FloatArray, start: int, stop: int) -> int:
    """The checkpoint half way between rise and loss of a run (both included): what is before belongs to the rise.

    Rise and loss are where the run first and last is at half of its height. A plateau that is already falling would
    draw the middle of the rise down with it.
    """
    run = values[start : stop + 1]
    floor = float(np.median(values[:start])) if start else float(values.min())
    floor = min(floor, float(run.min()))  # a curve may fall while its null falls faster
    high = np.flatnonzero(run >= floor + 0.5 * (float(run.max()) - floor))
    return start + int(high[0] + high[-1]) // 2
