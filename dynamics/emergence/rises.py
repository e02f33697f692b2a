"""Does a curve rise at all, and where is half of the rise? The parts of the definitions that need no fitted parameter."""

from __future__ import annotations

import numpy as np
from scipy.special import chdtri

from dynamics.emergence.bound import draws_needed, simultaneous_bound
from dynamics.emergence.columns import Shape, gain, widest
from dynamics.emergence.crossing import Crossing, crossing, half_level, interval, quantile
from dynamics.emergence.noise import Noise
from dynamics.emergence.shapes import plausible
from dynamics.numerics.arrays import FloatArray

__all__ = ["half_rise", "rise_p_values", "rises_after_start"]


STILL = 1.96
"""A difference of neighbours is no movement up to this many of its standard errors: for both sides of a gap, 95%."""

UNRESOLVED = 1 / 3
"""A gap that holds at least this share of the whole rise does not say where in it the rise was.

Chosen by simulation (`calibration`): where steps lie between checkpoints, linear interpolation within such a gap is off by more
than the noise; between 0.2 and 0.4 the intervals cover about the same.
"""


def rise_p_values(shape: Shape, x: FloatArray, values: FloatArray, null: FloatArray) -> tuple[float, float]:
    """P values of "the curve follows its null", against a rise that lasts and against being far above somewhere.

    Two statistics are taken of the curve and of every null draw: what a shape explains, and the largest studentised
    excess over the null's mean, which a short-lived rise has too. Each is doubled, for being one of two (Bonferroni).

    Args:
        shape: which one.
        x: (checkpoint,) log10(step + 1).
        values: (checkpoint,) finite.
        null: (checkpoint, null_draw) curves of the null; draws with NaN are left out.
    """
    draws = null[:, np.isfinite(null).all(axis=0)]
    n = draws.shape[1]
    if n < draws_needed(0.95):
        return 1.0, 1.0
    # The mean of the null without the draw itself: a draw must not be nearer to it than the curve is.
    away = (draws - draws.mean(axis=1, keepdims=True)) * (n / (n - 1))
    variance = away.var(axis=1)
    weight = 1.0 / np.maximum(variance, max(0.25 * float(variance.mean()), 1e-18))
    shapes = widest(shape, x)[2]
    together = np.concatenate([(values - draws.mean(axis=1))[None], away.T])
    explained = gain(together, weight, shapes).max(axis=(1, 2))
    bound = simultaneous_bound(draws)
    height = (values - bound.mean) / np.where(bound.scale > 0, bound.scale, np.inf)
    farthest = np.concatenate([[height.max()], bound.largest])
    rise, far = (
        min(1.0, 2.0 * (1 + int((one[1:] >= one[0] - 1e-9 * abs(one[0])).sum())) / (1 + n))
        for one in (explained, farthest)
    )
    return rise, far


def rises_after_start(x: FloatArray, values: FloatArray, noise: Noise, null: FloatArray, *, level: float) -> bool:
    """Whether a curve that is above its null from the first checkpoint on has most of its rise still before it.

    It has where half of its height above the null's mean, or more, is a rise within the series, and that rise is beyond the
    curve's own noise. The null draws say nothing of that: shuffled answers to the same predictions do not vary along training.

    Args:
        x: (checkpoint,) log10(step + 1).
        values: (checkpoint,) finite.
        noise: of the curve.
        null: (checkpoint, null_draw) curves of the null.
        level: of the test.
    """
    floor, plateau = half_level((values - np.nanmean(null, axis=1))[None])
    if floor[0] >= 0.5 * plateau[0]:
        return False
    scale = noise.scale(np.full(values.shape, values.mean()))
    together = np.concatenate([values[None], noise.residuals.T * scale])
    explained = gain(together, 1.0 / scale**2, widest("logistic", x)[2]).max(axis=(1, 2))
    return bool(1 + (explained[1:] >= explained[0]).sum() <= (1.0 - level) * explained.size)


def half_rise(x: FloatArray, values: FloatArray, noise: Noise, *, level: float = 0.95) -> tuple[float, float, float]:
    """Location of half the rise and its interval, in x; infinite where it is open.

    The critical value of the interval is the largest over several curves that the measured one may be a sample of
    (:func:`plausible`).

    Args:
        x: (checkpoint,) log10(step + 1).
        values: (checkpoint,) finite, rising.
        noise: of the curve.
        level: of the interval.
    """
    position = np.arange(x.size, dtype=np.float64)
    limit = 0.0
    supposed = plausible(x, values, noise)
    for mean, scale, location in supposed:
        drawn = mean + noise.residuals.T * scale
        found = _half(drawn, scale)
        true = np.interp(location, x, position)
        limit = max(limit, quantile(found.at(np.array([true]))[:, 0] - found.lowest, level))
    scale = supposed[0][1]
    measured = _half(values[None], scale)
    low, high = interval(measured, limit)
    estimate = float(np.interp(measured.position[0], position, x))
    last = x.size - 1.0
    low, high = _with_jumps(values, scale, supposed[0][0], low, high)
    low, high = _outward(values, noise.residuals * scale[:, None], low, high)
    return (
        estimate,
        -np.inf if low <= 0 else float(np.interp(low, position, x)),
        np.inf if high >= last else float(np.interp(high, position, x)),
    )


def _half(curves: FloatArray, scale: FloatArray) -> Crossing:
    floor, plateau = half_level(curves)
    return crossing((curves - 0.5 * (floor + plateau)[:, None]) / scale)


def _outward(values: FloatArray, away: FloatArray, low: float, high: float) -> tuple[float, float]:
    """The interval of positions, with the whole gap at either end if the curve may have jumped there.

    It may, if it rises in the gap by more than noise, and either stands still, up to noise, between the two checkpoints
    before the gap and between the two after it, or has much of its rise in the gap (:data:`UNRESOLVED`). A rise in several
    jumps is no single jump (:func:`_with_jumps`), and where in its gap each was is not known.

    Args:
        values: (checkpoint,) the curve.
        away: (checkpoint, draw) its noise.
    """
    floor, plateau = half_level(values[None])
    rise = np.diff(values)
    moves = np.concatenate([[False], rise > STILL * np.diff(away, axis=0).std(axis=1), [False]])

    def jump(gap: int) -> bool:
        much = rise[gap] >= UNRESOLVED * float(plateau[0] - floor[0])
        return bool(moves[gap + 1] and (much or not moves[[gap, gap + 2]].any()))

    last = values.size - 2
    first, final = min(int(np.floor(low)), last), max(int(np.ceil(high)) - 1, 0)
    return float(first) if jump(first) else low, float(final + 1) if jump(final) else high


def _with_jumps(
    values: FloatArray, scale: FloatArray, mean: FloatArray, low: float, high: float
) -> tuple[float, float]:
    """The interval of positions with all gaps in which a jump fits as well: where in a gap it was is not known."""
    checkpoints = values.size
    weight = 1.0 / scale**2
    jumps = (np.arange(checkpoints)[None] > np.arange(checkpoints - 1)[:, None]).astype(np.float64)[:, None, :]
    share = weight / weight.sum()
    total = float((weight * (values - values @ share) ** 2).sum())
    residual = total - gain(values[None], weight, jumps)[0, :, 0]
    kept = np.flatnonzero(residual <= float((weight * (values - mean) ** 2).sum()) + float(chdtri(1, 0.05)))
    return (min(low, float(kept[0])), max(high, float(kept[-1] + 1))) if kept.size else (low, high)
